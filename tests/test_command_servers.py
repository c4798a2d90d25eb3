"""Commands and their servers: found by option or environment, named when away, passwords unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import idemwatch.idempotency
import pytest
from support import commands
from support.stores import postgres_subject, redis_subject
from support.venv import clean_environ

SECRET = "hunter2"
NOWHERE = "127.0.0.1:1"
DATABASE = f"postgresql://me:{SECRET}@{NOWHERE}/db"
REDIS = f"redis://me:{SECRET}@{NOWHERE}/3"
USES_DATABASE = (
    ("db", "upgrade"),
    ("db", "downgrade", "--yes", "base"),
    ("db", "current"),
    ("purge",),
    ("keys", "show", "k"),
    ("keys", "list"),
    ("keys", "forget", "--yes", "k"),
)
USES_KEYS = USES_DATABASE[-3:]
uses_database = pytest.mark.parametrize("command", USES_DATABASE, ids=" ".join)
uses_keys = pytest.mark.parametrize("command", USES_KEYS, ids=" ".join)


@pytest.fixture(autouse=True)
def _no_settings_in_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(found)


def failure(*arguments: str, **environ: str) -> str:
    """The one line that a failing command tells on stderr, without what is secret."""
    done = commands.run(*arguments, **environ)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert SECRET not in done.stderr and "Traceback" not in done.stderr
    return done.stderr


@uses_database
def test_an_unreachable_postgresql_is_named_with_the_reason_in_one_line(
    command: tuple[str, ...],
) -> None:
    told = failure(*command, "--database-url", DATABASE)
    last = told.splitlines()[-1]
    assert last.startswith("Error: postgres is unavailable: ")
    assert "127.0.0.1" in last and "refused" in last
    assert told.splitlines() == [last]


@uses_keys
def test_an_unreachable_redis_is_named_with_the_reason_in_one_line(
    command: tuple[str, ...],
) -> None:
    told = failure(*command, "--redis-url", REDIS)
    last = told.splitlines()[-1]
    assert last.startswith("Error: redis is unavailable: ")
    assert NOWHERE in last and "refused" in last
    assert told.splitlines() == [last]


def test_a_wrong_password_is_refused_and_not_repeated(database_url: str) -> None:
    user, _, rest = database_url.partition("@")
    wrong = f"{user.rpartition(':')[0]}:{SECRET}@{rest}"
    for command in (("db", "current"), ("purge",)):
        assert "password authentication failed" in failure(*command, "--database-url", wrong)


def test_one_server_away_does_not_hide_that_the_answer_is_not_whole(database_url: str) -> None:
    told = failure("keys", "list", "--database-url", database_url, "--redis-url", REDIS)
    assert "redis is unavailable" in told


@uses_database
def test_without_an_address_the_option_is_named(command: tuple[str, ...]) -> None:
    told = failure(*command)
    assert told.startswith("Error: idempotency_database_url: is not set")
    assert "--database-url" in told and len(told.splitlines()) == 1


@uses_database
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"mysql://me:{SECRET}@host/db", "postgresql://"),
        (f"postgresql://me:{SECRET}@host:port/db", "not a URL"),
        (f"postgresql://me:{SECRET}@[::1/db", "not a URL"),
        (SECRET, "postgresql://"),
    ],
)
def test_a_wrong_url_is_refused_by_the_name_of_its_setting(
    command: tuple[str, ...], url: str, problem: str
) -> None:
    done = commands.invoke(*command, "--database-url", url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: idempotency_database_url: ")
    assert problem in done.stderr and SECRET not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@uses_keys
@pytest.mark.parametrize("url", [f"http://:{SECRET}@host", f"redis://:{SECRET}@host:port"])
def test_a_wrong_redis_url_is_refused_by_the_name_of_its_setting(
    command: tuple[str, ...], url: str
) -> None:
    done = commands.invoke(*command, "--redis-url", url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: idempotency_redis_url: ") and SECRET not in done.stderr


def test_a_mistyped_variable_is_refused(database_url: str) -> None:
    told = failure("purge", "--database-url", database_url, IDEMWATCH_DATABSE_URL=DATABASE)
    assert "IDEMWATCH_DATABSE_URL" in told and "idempotency_database_url" in told


# -- where the addresses come from -----------------------------------------------------------------


def test_an_option_wins_over_the_environment_and_a_file_will_do(
    database_url: str, tmp_path: Path
) -> None:
    current = ("db", "current")
    commands.output(*current, IDEMWATCH_DATABASE_URL=database_url)
    commands.output(*current, "--database-url", database_url, IDEMWATCH_DATABASE_URL=DATABASE)
    (tmp_path / "url").write_text(f"{database_url}\n")
    commands.output(*current, IDEMWATCH_DATABASE_URL_FILE=str(tmp_path / "url"))


def test_with_an_app_its_addresses_are_used(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        postgres_subject(stack, database_url, "of-app").hold("in postgres")
        redis_subject(stack, redis_url).hold("of another namespace")
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\n"
        "app = Celery('proj')\n"
        f"app.conf.idempotency_database_url = {database_url!r}\n"
        f"app.conf.idempotency_redis_url = {redis_url!r}\n"
        "app.conf.idempotency_namespace = 'of-app'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "proj", "idemwatch", "keys", "list"],
        cwd=tmp_path,
        env=clean_environ(IDEMWATCH_DATABASE_URL=DATABASE),
        capture_output=True,
        text=True,
        timeout=commands.DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["in postgres"]


# -- without the extra -----------------------------------------------------------------------------


@pytest.fixture
def _without_alembic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(idemwatch.idempotency, "migrate", raising=False)
    monkeypatch.delitem(sys.modules, "idemwatch.idempotency.migrate", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "alembic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "alembic", None)


@pytest.mark.usefixtures("_without_alembic")
@pytest.mark.parametrize(
    "command",
    [("db", "history"), ("db", "sql"), ("db", "current"), ("db", "upgrade")],
    ids=" ".join,
)
def test_without_the_extra_a_migration_says_which_to_install(command: tuple[str, ...]) -> None:
    options = ("--database-url", DATABASE) if command[1] in ("current", "upgrade") else ()
    done = commands.invoke(*command, *options)
    assert (done.exit_code, done.stdout) == (1, "")
    assert 'pip install "idemwatch[server]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("_without_alembic")
def test_without_the_extra_keys_and_purge_work(database_url: str) -> None:
    for command in (("purge",), ("keys", "list")):
        assert commands.invoke(*command, "--database-url", database_url).exit_code == 0
