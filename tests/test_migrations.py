"""Migrations on a real PostgreSQL: both ways, as SQL, at once, and broken off."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer, postgres_bindir
from idemwatch.idempotency import migrate
from idemwatch.idempotency.schema import REQUIRED_REVISION, VERSION_TABLE
from support import commands
from support.stores import wait_until

REVISIONS = [step.revision for step in migrate.history()]
STATES = ["base", *REVISIONS]
STEPS = list(itertools.pairwise(STATES))
BUILDS = pytest.mark.parametrize(
    "index",
    ["idempotency_record_expires_at", "idempotency_record_endpoint", "idempotency_record_poisoned"],
)
CATALOGUE = """
SELECT 'relation', c.relname, c.relkind::text, concat(c.reloptions, obj_description(c.oid))
  FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'column', a.attrelid::regclass::text, a.attnum || ' ' || a.attname,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
                 pg_get_expr(d.adbin, d.adrelid))
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid),
       concat(indisvalid, indisready, indislive)
  FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
 WHERE c.relnamespace = 'public'::regnamespace
"""
# Holds the build of one index before it begins, as long as the test holds the lock.
HOLD_BUILD = """
CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() LIKE '%CREATE INDEX%{index}%' THEN PERFORM pg_advisory_lock(1); END IF;
END $$;
CREATE EVENT TRIGGER hold ON ddl_command_start EXECUTE FUNCTION hold();
"""
UNHOLD_BUILD = "DROP EVENT TRIGGER hold; DROP FUNCTION hold()"
OURS = "datname = current_database() AND pid <> pg_backend_pid()"
# Upgrades that wait for their turn ask, commit, and ask again.
POLLING = f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND query LIKE 'COMMIT%'"
WRITE = """
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, expires_at)
VALUES ('test:written', 'e', 'global', '', 'postgres', 'done', '', '', 0, 1, now(), now())
"""

Schema = set[tuple[Any, ...]]


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def schema(url: str) -> Schema:
    return set(execute(url, CATALOGUE))


def beside_version(found: Schema) -> Schema:
    """A version left behind, or a step that was not finished, does not count."""
    return {row for row in found if VERSION_TABLE not in " ".join(row)}


@pytest.fixture
def step_schemas(empty_database_url: str) -> list[Schema]:
    """The schema of each state, as `migrate` makes it; the database is left at the newest."""
    found = [schema(empty_database_url)]
    for revision in REVISIONS:
        migrate.upgrade(empty_database_url, revision)
        found.append(schema(empty_database_url))
    return found


@pytest.fixture
def another_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One more empty database."""
    yield postgres_server.create_database("another")
    postgres_server.drop_database("another")


def test_the_history_is_one_line_that_ends_where_the_code_needs_it() -> None:
    assert [step.down_revision for step in migrate.history()] == [None, *REVISIONS[:-1]]
    assert REVISIONS[-1] == REQUIRED_REVISION
    assert sorted(REVISIONS) == REVISIONS, "the check of a schema compares revisions as texts"
    listed = commands.output("db", "history").splitlines()
    steps = [step for line in ("", *migrate.BRANCHES) for step in migrate.history(line)]
    assert listed == [f"{step.revision}  {step.summary}" for step in steps]
    assert all(step.summary.endswith(".") for step in migrate.history())


def test_going_back_and_up_again_gives_the_same_schema(
    empty_database_url: str, step_schemas: list[Schema]
) -> None:
    for number, (older, newer) in reversed(list(enumerate(STEPS))):
        migrate.downgrade(empty_database_url, older)
        assert schema(empty_database_url) == step_schemas[number]
        assert migrate.current(empty_database_url) == (None if older == "base" else older)
        migrate.upgrade(empty_database_url, newer)
        assert schema(empty_database_url) == step_schemas[number + 1]
        migrate.downgrade(empty_database_url, older)
    assert schema(empty_database_url) == set()
    run_by_psql(empty_database_url, commands.output("db", "sql"))
    assert schema(empty_database_url) == step_schemas[-1]
    migrate.downgrade(empty_database_url, "base")
    migrate.upgrade(empty_database_url)
    assert schema(empty_database_url) == step_schemas[-1]


def run_by_psql(url: str, script: str) -> None:
    done = subprocess.run(
        [str(postgres_bindir() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", url],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_sql_of_each_step_does_what_the_step_does(
    another_url: str, step_schemas: list[Schema]
) -> None:
    for older, newer in STEPS:
        run_by_psql(another_url, commands.output("db", "sql", newer, "--from", older))
        assert schema(another_url) == step_schemas[STATES.index(newer)]
        assert migrate.current(another_url) == newer
    for older, newer in reversed(STEPS):
        run_by_psql(another_url, commands.output("db", "sql", older, "--from", newer))
        expected = beside_version(step_schemas[STATES.index(older)])
        assert beside_version(schema(another_url)) == expected
    migrate.upgrade(another_url)
    assert schema(another_url) == step_schemas[-1]


def upgrade(url: str) -> commands.Running:
    return commands.Running("db", "upgrade", "--database-url", url)


def test_a_url_of_several_hosts_is_migrated_at_the_one_that_answers(another_url: str) -> None:
    login, _, place = another_url.partition("@")
    address, _, name = place.partition("/")
    several = f"{login}@127.0.0.1:1,{address}/{name}"
    assert commands.output("db", "upgrade", "--database-url", several) == "empty -> 0003\n"


def test_two_upgrades_at_once_take_turns(another_url: str, step_schemas: list[Schema]) -> None:
    with psycopg.connect(another_url, autocommit=True) as turn:
        turn.execute(f"SELECT pg_advisory_lock({migrate.LOCK})")
        with upgrade(another_url) as one, upgrade(another_url) as other:
            wait_until(lambda: execute(another_url, POLLING) == [(2,)])
            assert beside_version(schema(another_url)) == set()
            turn.execute("SELECT pg_advisory_unlock_all()")
            ends = [one.end(), other.end()]
    assert [(code, err) for code, _, err in ends] == [(0, "")] * 2
    assert schema(another_url) == step_schemas[-1]


def test_two_upgrades_that_do_not_wait_for_each_other_end_alike(
    another_url: str, step_schemas: list[Schema]
) -> None:
    with upgrade(another_url) as one, upgrade(another_url) as other:
        assert {one.end()[0], other.end()[0]} == {0}
    assert schema(another_url) == step_schemas[-1]


# -- broken off ------------------------------------------------------------------------------------


@contextmanager
def writing(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has written a record: each concurrent build waits for its end."""
    with psycopg.connect(url) as connection:
        connection.execute(WRITE)
        yield connection


def waiting_build(url: str) -> str | None:
    """The statement that waits for a lock, while an index is built."""
    rows = execute(
        url,
        f"SELECT query FROM pg_stat_activity WHERE {OURS} AND wait_event_type = 'Lock'"
        " AND query LIKE 'CREATE INDEX%'",
    )
    return rows[0][0] if rows else None


def end_builds(url: str) -> None:
    """A backend that waits for a lock does not see that its client has gone."""
    builds = f"FROM pg_stat_activity WHERE {OURS} AND query LIKE 'CREATE INDEX%'"
    execute(url, f"SELECT pg_terminate_backend(pid, 10000) {builds}")


def invalid(url: str) -> list[str]:
    rows = execute(url, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
    return [name for (name,) in rows]


@pytest.mark.parametrize(
    ("signalled", "ended", "told"),
    [(signal.SIGKILL, -signal.SIGKILL, ""), (signal.SIGINT, 130, "\ninterrupted\n")],
)
def test_an_upgrade_broken_off_in_a_build_is_repaired_by_the_next(
    another_url: str,
    step_schemas: list[Schema],
    signalled: signal.Signals,
    ended: int,
    told: str,
) -> None:
    migrate.upgrade(another_url, "0001")
    with writing(another_url) as writer:
        with upgrade(another_url) as broken:
            wait_until(lambda: waiting_build(another_url) is not None)
            broken.process.send_signal(signalled)
            assert broken.end() == (ended, "", told)
        end_builds(another_url)
        assert invalid(another_url) == ["idempotency_record_expires_at"]
        writer.rollback()
    assert migrate.current(another_url) == "0001"
    migrate.upgrade(another_url)
    assert schema(another_url) == step_schemas[-1]


@BUILDS
def test_an_upgrade_killed_between_two_builds_is_repaired_by_the_next(
    another_url: str, step_schemas: list[Schema], index: str
) -> None:
    migrate.upgrade(another_url, "0001")
    execute(another_url, HOLD_BUILD.format(index=index))
    with psycopg.connect(another_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        with upgrade(another_url) as killed:
            wait_until(lambda: index in (waiting_build(another_url) or ""))
            killed.process.kill()
        end_builds(another_url)
    execute(another_url, UNHOLD_BUILD)
    left = {row[1] for row in schema(another_url) if row[0] == "relation"}
    assert migrate.current(another_url) == "0001" and index not in left
    migrate.upgrade(another_url)
    assert schema(another_url) == step_schemas[-1]


def test_an_upgrade_waits_for_a_build_that_its_killed_client_left_behind(
    another_url: str, step_schemas: list[Schema]
) -> None:
    migrate.upgrade(another_url, "0001")
    with writing(another_url) as writer, upgrade(another_url) as killed:
        wait_until(lambda: waiting_build(another_url) is not None)
        killed.process.kill()
        with upgrade(another_url) as follower:
            wait_until(lambda: execute(another_url, POLLING) == [(1,)])
            writer.commit()
            assert follower.end() == (0, "0001 -> 0003\n", "")
    assert schema(another_url) == step_schemas[-1]
    assert execute(another_url, "SELECT key FROM idempotency_record") == [("test:written",)]
