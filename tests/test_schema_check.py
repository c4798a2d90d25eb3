"""Databases of another version, and revisions that do not exist: refused, with the way out."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from celery import Celery
from idemwatch.idempotency import IdempotencyService, IdempotentTask, Settings, migrate
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.errors import SchemaMismatch
from idemwatch.idempotency.schema import REQUIRED_REVISION, VERSION_TABLE
from idemwatch.idempotency.service import ready
from support import commands

NEWER = "9999"
UPGRADE = "run `idemwatch db upgrade`"
RENEW = "upgrade idemwatch"
COMMANDS = (
    ("purge",),
    ("purge", "--dry-run"),
    ("keys", "list"),
    ("keys", "show", "a"),
    ("keys", "forget", "--yes", "a"),
)
each_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@pytest.fixture(params=["nothing", "0001", NEWER])
def wrong(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """A database that this code cannot use: its URL, what it has, and what is to be done."""
    if request.param == NEWER:
        url = request.getfixturevalue("database_url")
        set_version(url, NEWER)
        return url, NEWER, RENEW
    url = request.getfixturevalue("empty_database_url")
    if request.param != "nothing":
        migrate.upgrade(url, request.param)
    return url, request.param, UPGRADE


@pytest.fixture
def newer_url(database_url: str) -> str:
    """A database that a newer version of idemwatch has migrated."""
    set_version(database_url, NEWER)
    return database_url


@pytest.fixture
def _engines_end(wrong: tuple[str, str, str]) -> Iterator[None]:
    yield
    close_engines()  # before the database goes


def set_version(url: str, revision: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        changed = connection.execute(
            f"UPDATE {VERSION_TABLE} SET version_num = %s".encode(), (revision,)
        )
        assert changed.rowcount == 1


def current(url: str) -> str:
    return migrate.current(url) or "nothing"


# -- commands --------------------------------------------------------------------------------------


@each_command
def test_a_command_refuses_a_database_of_another_version(
    wrong: tuple[str, str, str], command: tuple[str, ...]
) -> None:
    url, found, advice = wrong
    done = commands.invoke(*command, "--database-url", url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert found in done.stderr and REQUIRED_REVISION in done.stderr and advice in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert current(url) == found


def test_current_shows_both_revisions_and_fails_unless_they_are_one(
    wrong: tuple[str, str, str], database_url: str
) -> None:
    url, found, advice = wrong
    done = commands.run("db", "current", "--database-url", url)
    shown = "not migrated" if found == "nothing" else found
    assert done.stdout == f"database: {shown}, this code needs: {REQUIRED_REVISION}\n"
    assert done.returncode == 1 and advice in done.stderr
    set_version(database_url, REQUIRED_REVISION)
    assert commands.output("db", "current", "--database-url", database_url) == (
        f"database: {REQUIRED_REVISION}, this code needs: {REQUIRED_REVISION}\n"
    )


def test_upgrade_tells_what_it_did(empty_database_url: str) -> None:
    def told(*arguments: str) -> str:
        return commands.output("db", *arguments, "--database-url", empty_database_url)

    assert told("upgrade", "0001") == "empty -> 0001\n"
    assert told("upgrade") == f"0001 -> {REQUIRED_REVISION}\n"
    assert told("upgrade") == f"already at {REQUIRED_REVISION}\n"
    assert told("downgrade", "0001", "--yes") == f"{REQUIRED_REVISION} -> 0001\n"
    assert told("downgrade", "base", "--yes") == "0001 -> empty\n"


def test_downgrade_asks_first(database_url: str) -> None:
    command = ("db", "downgrade", "base", "--database-url", database_url)
    for answer in ("n\n", "\n", ""):
        refused = commands.run(*command, stdin=answer)
        assert refused.returncode == 1
        assert "nothing was changed" in refused.stderr
        assert "may delete records" in refused.stdout
    assert current(database_url) == REQUIRED_REVISION
    assert commands.run(*command, stdin="y\n").returncode == 0
    assert current(database_url) == "nothing"


@pytest.mark.parametrize("command", [("upgrade",), ("downgrade", "--yes", "0001")], ids=" ".join)
def test_this_code_changes_nothing_in_a_newer_database(
    newer_url: str, command: tuple[str, ...]
) -> None:
    done = commands.invoke("db", *command, "--database-url", newer_url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert NEWER in done.stderr and REQUIRED_REVISION in done.stderr and RENEW in done.stderr
    assert current(newer_url) == NEWER


@pytest.mark.parametrize("arguments", [("nonsense",), ("--from", "nonsense"), ("head:0001",)])
def test_sql_of_an_unknown_revision_is_refused(arguments: tuple[str, ...]) -> None:
    done = commands.invoke("db", "sql", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "base, 0001, 0002, 0003" in done.stderr


@pytest.mark.parametrize("revision", ["", "nonsense", "00", "head:base"])
@pytest.mark.parametrize("command", [("upgrade",), ("downgrade", "--yes")], ids=" ".join)
def test_an_unknown_revision_is_refused_by_name(
    database_url: str, command: tuple[str, ...], revision: str
) -> None:
    done = commands.invoke("db", *command, "--database-url", database_url, "--", revision)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: revision: {revision!r} is none of ")
    assert "0001, 0002, 0003" in done.stderr
    assert current(database_url) == REQUIRED_REVISION


# -- workers ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_engines_end")
def test_the_first_use_of_the_wrong_database_is_refused_until_it_is_right(
    wrong: tuple[str, str, str],
) -> None:
    url, found, advice = wrong
    service = IdempotencyService(Settings(database_url=url))
    for use in (
        lambda: service.check_duplicate("key"),
        lambda: service.store_result("key", 1),
        lambda: service.forget("key"),
        lambda: service.once("key").__enter__(),
        lambda: service.transaction("key").__enter__(),
    ):
        with pytest.raises(SchemaMismatch, match=advice) as caught:
            use()
        assert found in str(caught.value) and REQUIRED_REVISION in str(caught.value)
    if found == NEWER:
        set_version(url, REQUIRED_REVISION)
    else:
        migrate.upgrade(url)
    with service.once("key") as work:
        assert not work.duplicate


@pytest.mark.usefixtures("_engines_end")
def test_readiness_names_the_wrong_database(wrong: tuple[str, str, str]) -> None:
    url, found, advice = wrong

    def work() -> None:
        pytest.fail("nothing is sent")

    app = Celery("unready", set_as_current=False)
    app.conf.idempotency_database_url = url
    app.task(name="unready.work", base=IdempotentTask, shared=False)(work)
    (problem,) = ready(app)
    assert found in problem and advice in problem
