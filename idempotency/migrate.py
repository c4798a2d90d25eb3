"""Migrations by Alembic. Two processes that upgrade at once take turns.

The trunk is one line of numbered steps, what the code needs. A branch stands beside it with a line
of its own, and a row of its own in the version table; nobody gets one who does not name it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from .postgres_link import is_pooled
from .schema import VERSION_TABLE

try:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from sqlalchemy import Connection, create_engine, inspect, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise ConfigurationError(
        "migrations", 'need Alembic: pip install "idemwatch[server]"'
    ) from error

BASE: Final = "base"
HEAD: Final = "head"
TRUNK: Final = ""
FACILITY: Final = "facility"
BRANCHES: Final = (FACILITY,)
"""Beside the trunk: the tables of the demo's facility application."""
LOCK: Final = 0x1DE3A7C4
"""The advisory lock that upgrades take."""
POLL_SECONDS: Final = 0.2


class Step(NamedTuple):
    """One step of the history."""

    revision: str
    down_revision: str | None
    summary: str


def upgrade(database_url: str, revision: str = HEAD, *, pooled: bool | None = None) -> None:
    """Bring the schema up to `revision`; a branch brings the trunk to its newest first.

    `pooled`: False for a pooler that keeps sessions; else none may stand before the server. Raises
    StoreUnavailable, SchemaMismatch (the database is newer) or ConfigurationError.
    """
    _require_known(revision, _names(HEAD, *BRANCHES))

    def up(config: Config) -> None:
        for one in _with_trunk(revision):
            command.upgrade(config, one)
            # Within a transaction that reading has begun, Alembic would not commit the next one.
            config.attributes["connection"].commit()

    _alter(database_url, up, pooled)


def downgrade(database_url: str, revision: str, *, pooled: bool | None = None) -> None:
    """Take the schema back to `revision`. Removed are all tables with their records by "base",
    those of one branch by "BRANCH@base".
    """
    _require_known(revision, _names(BASE, *map(_base_of, BRANCHES)))

    def down(config: Config) -> None:
        command.downgrade(config, revision)
        if revision == BASE:
            connection: Connection = config.attributes["connection"]
            connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
            connection.commit()

    _alter(database_url, down, pooled)


def current(database_url: str, branch: str = TRUNK) -> str | None:
    """The revision of the trunk or a branch; None when the database was never migrated to one."""
    with _connected(database_url) as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        rows = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
        found = [str(row[0]) for row in rows if branch_of(str(row[0])) == branch]
        return found[0] if found else None


def branch_of(revision: str) -> str:
    """The branch of a step, by its name; TRUNK for a numbered one."""
    return next((one for one in BRANCHES if revision.startswith(f"{one}_")), TRUNK)


def history(branch: str = TRUNK) -> list[Step]:
    """All steps of the trunk or a branch, the oldest first."""
    scripts = ScriptDirectory.from_config(_config())
    steps = [
        Step(s.revision, _only(s.down_revision), (s.doc or "").splitlines()[0])
        for s in scripts.walk_revisions()
        if branch_of(s.revision) == branch
    ]
    return steps[::-1]


def sql(start: str = BASE, end: str = HEAD) -> str:
    """The SQL of the steps after `start` up to `end`; backwards when `end` comes first.

    That of a branch is without the trunk's when `start` is within the branch, or its base.
    """
    for revision in (start, end):
        _require_known(revision, _names(BASE, HEAD, *BRANCHES, *map(_base_of, BRANCHES)))
    branch = next((one for one in BRANCHES if end in _line_of(one)), TRUNK)
    if branch == TRUNK or start in _line_of(branch) or end == _base_of(branch):
        return _sql(start, end, branch)
    return _sql(start, HEAD, TRUNK) + _sql(_base_of(branch), end, branch)


def _sql(start: str, end: str, branch: str) -> str:
    out = io.StringIO()
    config = _config(out)
    line = _line_of(branch)
    for revision in (start, end):
        if revision not in line:
            told = f"{revision!r} is not on the line {', '.join(line)}"
            raise ConfigurationError("revision", told)
    start, end = (line[-2] if one == line[-1] else one for one in (start, end))
    backwards = line.index(end) < line.index(start)
    if branch != TRUNK and not backwards and start == _base_of(branch):
        start = history()[-1].revision  # the version table is there
    run = command.downgrade if backwards else command.upgrade
    if start != end:
        run(config, f"{start}:{end}", sql=True)
    return out.getvalue()


def _line_of(branch: str) -> list[str]:
    """A line from its base to its newest, whose other name is the last."""
    base, newest = (BASE, HEAD) if branch == TRUNK else (_base_of(branch), branch)
    return [base, *(step.revision for step in history(branch)), newest]


def _base_of(branch: str) -> str:
    return f"{branch}@base"


def _with_trunk(revision: str) -> list[str]:
    """What is to be upgraded to, in turn, by Alembic's names; a `head` is never left to Alembic,
    which finds one for each line.
    """
    newest = history()[-1].revision
    branch = revision if revision in BRANCHES else branch_of(revision)
    if branch == TRUNK:
        return [newest if revision == HEAD else revision]
    return [newest, f"{branch}@head" if revision == branch else revision]


def _names(*names: str) -> list[str]:
    """What may be said for a revision: the steps of all lines, and `names`; BASE first."""
    steps = [step.revision for line in (TRUNK, *BRANCHES) for step in history(line)]
    first, last = [name for name in names if name == BASE], [n for n in names if n != BASE]
    return [*first, *steps, *last]


def _require_known(revision: str, known: list[str]) -> None:
    if revision not in known:
        raise ConfigurationError("revision", f"{revision!r} is none of {', '.join(known)}")


def _only(revision: object) -> str | None:
    return revision if isinstance(revision, str) else None


def _config(out: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=out) if out is not None else Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _alter(database_url: str, step: Callable[[Config], None], pooled: bool | None) -> None:
    config = _config()
    with _connected(database_url) as connection:
        _require_session(connection, pooled)
        _take_turn(connection)
        config.attributes["connection"] = connection
        try:
            step(config)
        except CommandError as error:
            raise SchemaMismatch("postgres", _advice(str(error))) from error


def _require_session(connection: Connection, pooled: bool | None) -> None:
    """A turn belongs to a session: one that is shared would never give it back."""
    driver: Any = connection.connection.dbapi_connection
    shared = is_pooled(driver) if pooled is None else pooled
    connection.rollback()
    if shared:
        raise ConfigurationError(
            "idempotency_database_url",
            "leads to a pooler (PgBouncer), and a migration needs a session of its own: say "
            "--database-url with the address of PostgreSQL itself, or set "
            "idempotency_database_pooled to false if the pooler keeps sessions",
        )


def _take_turn(connection: Connection) -> None:
    """Wait until nobody else migrates. The turn ends with the connection, however that ends.

    By polling: a statement that waits would be waited for by CREATE INDEX CONCURRENTLY.
    """
    while not connection.execute(
        text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}
    ).scalar():
        connection.commit()
        threading.Event().wait(POLL_SECONDS)
    connection.commit()


def _advice(problem: str) -> str:
    known = ", ".join(_names())
    return f"{problem} (this version of idemwatch knows {known}): upgrade idemwatch, or name one"


def _raise_interruption(error: BaseException) -> None:
    """Alembic's steps fail on their way out of a Ctrl-C, which is what is told then."""
    cause = error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        cause = cause.__context__


@contextmanager
def _connected(database_url: str) -> Iterator[Connection]:
    try:
        conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "idempotency_database_url", "not a PostgreSQL URL: postgresql://user@host/database"
        ) from None
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(database_url, prepare_threshold=None),
        poolclass=NullPool,
    )
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        _raise_interruption(error)
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StoreUnavailable("postgres", reason[:300]) from error
    finally:
        engine.dispose()
