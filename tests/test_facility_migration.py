"""The branch of the facility application beside the trunk: never by accident, never in the way."""

from __future__ import annotations

import subprocess

import psycopg
import pytest
from idemwatch.demo.servers import postgres_bindir
from idemwatch.idempotency import IdempotencyService, Settings, migrate
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.errors import SchemaMismatch
from idemwatch.idempotency.schema import REQUIRED_REVISION, VERSION_TABLE
from support import commands

NEWEST = migrate.history(migrate.FACILITY)[-1].revision
BOTH = f"{REQUIRED_REVISION} + {NEWEST}"
TABLES = """
SELECT table_name, column_name, data_type, column_default, is_nullable
  FROM information_schema.columns WHERE table_schema = '{schema}'
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = '{schema}'"


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str, schema: str = "facility") -> list[tuple[object, ...]]:
    """What stands in a schema; nothing when it is not there."""
    return sorted(execute(url, TABLES.format(schema=schema)), key=repr)


def versions(url: str) -> set[object]:
    return {row[0] for row in execute(url, f"SELECT version_num FROM {VERSION_TABLE}")}


def db(url: str, *arguments: str) -> str:
    return commands.output("db", *arguments, "--database-url", url)


def usable(url: str) -> bool:
    """Whether a worker would take the database."""
    service = IdempotencyService(Settings(database_url=url))
    try:
        return service.check_duplicate("key") is None
    finally:
        close_engines()


def test_an_upgrade_makes_no_tables_of_the_demo(empty_database_url: str) -> None:
    assert db(empty_database_url, "upgrade") == f"empty -> {REQUIRED_REVISION}\n"
    assert tables(empty_database_url) == []
    assert versions(empty_database_url) == {REQUIRED_REVISION}


def test_the_branch_brings_the_trunk_with_it_and_workers_take_the_database(
    empty_database_url: str,
) -> None:
    assert db(empty_database_url, "upgrade", "facility") == f"empty -> {BOTH}\n"
    assert len({row[0] for row in tables(empty_database_url)}) == 7
    assert versions(empty_database_url) == {REQUIRED_REVISION, NEWEST}
    assert usable(empty_database_url)
    assert db(empty_database_url, "upgrade", "facility") == f"already at {BOTH}\n"
    assert db(empty_database_url, "upgrade") == f"already at {BOTH}\n"
    assert db(empty_database_url, "current") == (
        f"database: {REQUIRED_REVISION}, this code needs: {REQUIRED_REVISION}\n"
    )


def test_the_trunk_goes_up_beside_a_branch_that_is_there(empty_database_url: str) -> None:
    db(empty_database_url, "upgrade", "facility")
    before = tables(empty_database_url)
    assert db(empty_database_url, "downgrade", "--yes", "0002") == f"{BOTH} -> 0002 + {NEWEST}\n"
    with pytest.raises(SchemaMismatch, match=f"it has 0002, this code needs {REQUIRED_REVISION}"):
        usable(empty_database_url)
    assert db(empty_database_url, "upgrade") == f"0002 + {NEWEST} -> {BOTH}\n"
    assert tables(empty_database_url) == before
    assert usable(empty_database_url)


def test_a_branch_alone_is_no_migrated_database(empty_database_url: str) -> None:
    db(empty_database_url, "upgrade", "facility")
    execute(empty_database_url, f"DELETE FROM {VERSION_TABLE} WHERE version_num <> '{NEWEST}'")
    with pytest.raises(SchemaMismatch, match="it has nothing"):
        usable(empty_database_url)


def test_the_branch_can_be_removed_alone_and_goes_with_the_rest(empty_database_url: str) -> None:
    db(empty_database_url, "upgrade", "facility")
    assert db(empty_database_url, "downgrade", "--yes", "facility@base") == (
        f"{BOTH} -> {REQUIRED_REVISION}\n"
    )
    assert tables(empty_database_url) == []
    assert usable(empty_database_url)
    db(empty_database_url, "upgrade", NEWEST)
    assert db(empty_database_url, "downgrade", "--yes", "base") == f"{BOTH} -> empty\n"
    assert tables(empty_database_url) == tables(empty_database_url, "public") == []


def by_psql(url: str, script: str) -> None:
    command = [str(postgres_bindir() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", url]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_sql_does_what_its_step_does(database_url: str, empty_database_url: str) -> None:
    db(database_url, "upgrade", "facility")
    by_psql(empty_database_url, commands.output("db", "sql", "facility"))
    for schema in ("facility", "public"):
        assert tables(empty_database_url, schema) == tables(database_url, schema)
        statement = INDEXES.format(schema=schema)
        assert sorted(execute(empty_database_url, statement)) == sorted(
            execute(database_url, statement)
        )
    assert versions(empty_database_url) == {REQUIRED_REVISION, NEWEST}
    back = commands.output("db", "sql", "facility@base", "--from", "facility")
    by_psql(empty_database_url, back)
    assert tables(empty_database_url) == []
    assert versions(empty_database_url) == {REQUIRED_REVISION}
    by_psql(empty_database_url, commands.output("db", "sql", NEWEST, "--from", "facility@base"))
    assert tables(empty_database_url) == tables(database_url)
    assert versions(empty_database_url) == {REQUIRED_REVISION, NEWEST}


@pytest.mark.parametrize(
    "arguments",
    [("head", "--from", "facility"), ("facility@base", "--from", "0001")],
    ids=" ".join,
)
def test_sql_from_one_line_back_to_another_is_refused(arguments: tuple[str, ...]) -> None:
    done = commands.invoke("db", "sql", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not on the line" in done.stderr


def test_another_schema_may_hold_the_tables(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACILITY_SCHEMA", "buildings")
    db(empty_database_url, "upgrade", "facility")
    assert tables(empty_database_url) == []
    assert len({row[0] for row in tables(empty_database_url, "buildings")}) == 7
    db(empty_database_url, "downgrade", "--yes", "facility@base")
    assert tables(empty_database_url, "buildings") == []


def test_a_schema_that_is_no_plain_name_reaches_no_statement(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACILITY_SCHEMA", "x; DROP SCHEMA public CASCADE")
    done = commands.run("db", "upgrade", "facility", "--database-url", empty_database_url)
    assert done.returncode == 1
    assert "FACILITY_SCHEMA" in done.stderr and "Traceback" not in done.stderr
