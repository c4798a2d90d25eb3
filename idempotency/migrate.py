"""Migrations by Alembic. Two processes that upgrade at once take turns."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .errors import ConfigurationError, SchemaMismatch, StoreUnavailable
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
LOCK: Final = 0x1DE3A7C4
"""The advisory lock that upgrades take."""
POLL_SECONDS: Final = 0.2


class Step(NamedTuple):
    """One step of the history."""

    revision: str
    down_revision: str | None
    summary: str


def upgrade(database_url: str, revision: str = HEAD) -> None:
    """Bring the schema up to `revision`.

    Raises StoreUnavailable, SchemaMismatch (the database is newer) or ConfigurationError.
    """
    _require_known(revision, HEAD)
    _alter(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to `revision`; "base" removes all tables, with their records."""
    _require_known(revision, BASE)

    def down(config: Config) -> None:
        command.downgrade(config, revision)
        if revision == BASE:
            connection: Connection = config.attributes["connection"]
            connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
            connection.commit()

    _alter(database_url, down)


def current(database_url: str) -> str | None:
    """The revision of the database; None when it was never migrated."""
    with _connected(database_url) as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
        return None if found is None else str(found)


def history() -> list[Step]:
    """All steps, the oldest first."""
    scripts = ScriptDirectory.from_config(_config())
    steps = [
        Step(s.revision, _only(s.down_revision), (s.doc or "").splitlines()[0])
        for s in scripts.walk_revisions()
    ]
    return steps[::-1]


def sql(start: str = BASE, end: str = HEAD) -> str:
    """The SQL of the steps after `start` up to `end`; backwards when `end` comes first."""
    out = io.StringIO()
    config = _config(out)
    for revision in (start, end):
        _require_known(revision, BASE, HEAD)
    revisions = [BASE, *(step.revision for step in history())]
    start, last = (revisions[-1] if one == HEAD else one for one in (start, end))
    if revisions.index(last) < revisions.index(start):
        command.downgrade(config, f"{start}:{last}", sql=True)
    else:
        command.upgrade(config, f"{start}:{last}", sql=True)
    return out.getvalue()


def _require_known(revision: str, *names: str) -> None:
    known = [step.revision for step in history()]
    known = [name for name in (BASE, *known, HEAD) if name in known or name in names]
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


def _alter(database_url: str, step: Callable[[Config], None]) -> None:
    config = _config()
    with _connected(database_url) as connection:
        _take_turn(connection)
        config.attributes["connection"] = connection
        try:
            step(config)
        except CommandError as error:
            raise SchemaMismatch("postgres", _advice(str(error))) from error


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
    known = ", ".join(step.revision for step in history())
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
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
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
