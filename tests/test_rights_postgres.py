"""docs/rights/*.sql: each role of PostgreSQL can do its work, and the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.exporter.doctor_postgres_store import BEAT_RIGHTS, WORKER_RIGHTS
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency import IdempotencyService, Settings
from idemwatch.idempotency.migrate import upgrade
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.postgres_store import PostgresStore
from idemwatch.idempotency.purge_store import purge
from support.commands import invoke
from support.desk import Desk
from support.fleet import Fleet
from support.publishers import Desk as Publishers
from support.rights import ROLES, drop_roles, grant, granted, login_url, make_roles
from support.stores import HOUR_US, Subject, result
from support.table import Table

OF_A_RIGHT = {
    "SELECT": "SELECT {column} FROM {table} LIMIT 1",
    "INSERT": "INSERT INTO {table} DEFAULT VALUES",
    "UPDATE": "UPDATE {table} SET {column} = {column} WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
    "TRUNCATE": "TRUNCATE {table}",
    "DROP": "DROP TABLE {table}",
    "ALTER": "ALTER TABLE {table} ADD COLUMN mine text",
}
COLUMNS = {
    "idempotency_record": "result", "endpoint_stats": "hits", "endpoint_bucket": "hits",
    "schedule": "task", "schedule_firing": "message", "schedule_change": "reason",
    "schedule_beat": "name", "idemwatch_alembic_version": "version_num",
}  # fmt: skip
"""Each table, and the column that is worth most to an attacker."""
OF_THE_SERVER = (
    "CREATE TABLE mine (x int)", "CREATE ROLE mine", "SET ROLE idemwatch_owner",
    "COPY idempotency_record TO PROGRAM 'true'", "SELECT pg_read_file('PG_VERSION')",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE SCHEMA mine",
    "ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()",
)  # fmt: skip
SERVING = [role for role in ROLES if role != "owner"]


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database that was made as the page says: roles, migration by the owner, grants."""
    made = postgres_server.create_database("rights")
    make_roles(made)
    try:
        upgrade(login_url(made, "owner"))
        grant(made)
        yield made
    finally:
        drop_roles(made)
        postgres_server.drop_database("rights")


# -- what each does --------------------------------------------------------------------------------


def test_the_owner_migrates_and_says_the_grants_again(url: str) -> None:
    owners = Table(url).execute(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    )
    assert owners == [("idemwatch_owner",)]
    grant(url)
    done = invoke("db", "current", "--database-url", login_url(url, "owner"))
    assert done.exit_code == 0, done.output


def test_a_worker_claims_finishes_locks_and_counts(url: str) -> None:
    service = IdempotencyService(Settings(database_url=login_url(url, "worker")))
    store, statistics = service.store, service.engine.statistics
    assert isinstance(store, PostgresStore) and statistics is not None
    subject = Subject(store, "postgres", lose=id)
    subject.finish("done")
    held = subject.hold("held")
    assert store.renew([held])
    assert store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert store.release(subject.hold("released"))
    subject.poison("poisoned")
    assert store.forget("poisoned")
    store.put_done(subject.held(subject.claim("put"))._replace(fence=0), result())
    with service.lock("stock", timeout=timedelta(seconds=5)):
        pass
    with service.transaction("tx") as tx:
        tx.result = 1
    statistics.flush()
    service.engine.close()
    assert Table(url).execute("SELECT count(*) > 0 FROM endpoint_bucket") == [(True,)]


@pytest.mark.worker
def test_a_real_worker_does_its_tasks(url: str, new_fleet: Callable[..., Fleet]) -> None:
    fleet = new_fleet("postgres", database_url=login_url(url, "worker"))
    label = fleet.label()
    for name, *more in (("work",), ("work",), ("retrying", 2), ("keeps_last", 1)):
        fleet.result(fleet.send(name, label, *more))
    assert fleet.events(label).count("start") >= 1


def test_a_publisher_with_its_notes_in_redis_reads_records_only(url: str, redis_url: str) -> None:
    desk = Publishers(redis_url, {
        "idempotency_database_url": login_url(url, "publisher"),
        "idempotency_redis_url": redis_url,
    })  # fmt: skip
    first = desk.task.delay(1)
    assert desk.task.delay(1).id == first.id and desk.messages == 1
    desk.close()


def test_a_beat_fires_its_schedules(url: str, redis_url: str) -> None:
    desk = Desk(redis_url, login_url(url, "beat"))
    one = desk.add("every 60s")
    desk.due(one)
    desk.tick()
    assert desk.outcomes(one) == ["fired"]
    desk.close()


def test_an_exporter_collects_all_that_it_has(url: str) -> None:
    state = State(Settings(database_url=login_url(url, "exporter")), Options(broker_url=None))
    for one in state.collectors:
        list(one.collect())
        one.close()


def test_a_purge_deletes_records_and_firings(url: str) -> None:
    table = Table(url)
    table.add(3)
    table.execute(
        "INSERT INTO schedule_firing (schedule_id, due_at, publish_until, outcome, beat)"
        " SELECT id, now() - interval '90 days', now(), 'fired', 'b' FROM schedule LIMIT 1"
    )
    link = PostgresLink(login_url(url, "purge"))
    assert sum(purge(link)) >= 3
    link.close()
    assert table.left() == 0


def _crontab(folder: Path) -> Path:
    file = folder / "crontab"
    file.write_text("".join(f"0 4 * * * job{n}\n" for n in range(5)))
    return file


def test_an_operator_looks_forgets_and_moves(url: str, tmp_path: Path) -> None:
    worker = IdempotencyService(Settings(database_url=login_url(url, "worker")))
    with worker.once("mistaken") as work:
        work.result = 1
    worker.engine.close()
    at = ("--database-url", login_url(url, "operator"))
    for words in (
        ("keys", "list"), ("keys", "show", "mistaken"), ("keys", "forget", "--yes", "mistaken"),
        ("purge", "--dry-run"), ("db", "current"), ("schedules", "list", "--source", "table"),
        ("schedules", "import", "--yes", "--source", f"crontab:{_crontab(tmp_path)}"),
        ("schedules", "apply", "--yes", "--capacity", "1"), ("schedules", "revert", "--yes", "1"),
    ):  # fmt: skip
        done = invoke(*words, *at)
        assert done.exit_code == 0, (words, done.output)
    found = json.loads(invoke("doctor", "--format", "json", *at).stdout)["findings"]
    assert "permission denied" not in json.dumps(found)


# -- what each may not -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", SERVING)
def test_the_rest_is_refused(url: str, role: str) -> None:
    given = granted(role)
    assert given["idemwatch_alembic_version"] == {"SELECT"}
    refused = 0
    with psycopg.connect(login_url(url, role), autocommit=True) as connection:
        for table, column in COLUMNS.items():
            for right, statement in OF_A_RIGHT.items():
                if right in given.get(table, ()):
                    continue
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.format(table=table, column=column).encode())
                    pytest.fail(f"{role} may {right} {table}", pytrace=False)
                refused += 1
        for statement in OF_THE_SERVER:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
                pytest.fail(f"{role} may {statement}", pytrace=False)
    assert refused >= 30


def test_what_the_doctor_asks_for_is_what_the_file_gives(url: str) -> None:
    asked = {"worker": WORKER_RIGHTS, "beat": BEAT_RIGHTS}
    for role, rights in asked.items():
        given = granted(role)
        for table, words in rights.items():
            assert given[table] == set(words.split(",")), (role, table)
