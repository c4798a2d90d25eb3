"""The stores as others set them up: roles with few rights and odd defaults, schemas that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.settings import Settings
from support.exporters import Client, open_exporter, value
from support.stores import wait_until
from support.table import Table

ROLE = "idemwatch_exporter"
READ = (
    "idemwatch_alembic_version", "idempotency_record", "endpoint_stats", "schedule",
    "schedule_firing", "schedule_beat",
)  # fmt: skip
"""All that the exporter reads; of some, docs/rights grants it columns only."""
CALLED_OF_BROKER = ("ping", "multi", "exec", "llen")
"""All that the exporter sends to a broker that is a Redis."""
OF_POSTGRES = {"postgres", "records", "beats", "schedules"}


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


@pytest.fixture
def role_url(database_url: str, table: Table) -> Iterator[str]:
    """The database as a role sees it that may log in, and nothing else."""
    table.execute("REVOKE ALL ON SCHEMA public FROM public")
    table.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'p'")
    parts = urlsplit(database_url)
    yield parts._replace(netloc=f"{ROLE}:p@{parts.hostname}:{parts.port}").geturl()
    table.execute(f"DROP OWNED BY {ROLE}")
    table.execute(f"DROP ROLE {ROLE}")


def grant(table: Table) -> None:
    table.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    table.execute(f"GRANT SELECT ON {', '.join(READ)} TO {ROLE}")


def failing(
    url: str | None = None, redis_url: str | None = None, broker_url: str | None = None
) -> dict[str, str]:
    """What each collector that fails says, asked once."""
    settings = Settings(database_url=url, redis_url=redis_url)
    state = State(settings, Options(broker_url=broker_url))
    found = {}
    for one in state.collectors:
        try:
            list(one.collect())
        except StoreUnavailable as error:
            found[one.name] = str(error)
        finally:
            one.close()
    return found


@pytest.mark.parametrize(
    "default",
    [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_read_only = on",
        "default_transaction_deferrable = on",
        "statement_timeout = '50ms'",
        "lock_timeout = '50ms'",
        "idle_in_transaction_session_timeout = '50ms'",
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -15",
    ],
)
def test_defaults_of_the_role_change_nothing(role_url: str, table: Table, default: str) -> None:
    grant(table)
    table.execute(f"ALTER ROLE {ROLE} SET {default}")
    assert failing(role_url) == {}


@pytest.fixture
def unmigrated(empty_database_url: str) -> Iterator[Client]:
    with open_exporter(Settings(database_url=empty_database_url)) as client:
        yield client


def broken(client: Client) -> set[str]:
    return {name for name, number in client.success().items() if not number}


def test_a_database_that_is_migrated_later_is_taken_up(
    unmigrated: Client, empty_database_url: str, migrate: Callable[[str], None]
) -> None:
    wait_until(lambda: broken(unmigrated) == OF_POSTGRES - {"postgres"})
    assert value(unmigrated.series(), "store_up", store="postgres") == 1
    migrate(empty_database_url)
    wait_until(unmigrated.healthy)


def test_a_database_that_is_made_anew_is_taken_up(
    postgres_server: PostgresServer, migrated_template: str
) -> None:
    url = postgres_server.create_database("made_anew", template=migrated_template)
    try:
        with open_exporter(Settings(database_url=url)) as client:
            wait_until(client.healthy)
            postgres_server.drop_database("made_anew")
            wait_until(lambda: broken(client) == OF_POSTGRES)
            postgres_server.create_database("made_anew", template=migrated_template)
            wait_until(client.healthy)
    finally:
        postgres_server.drop_database("made_anew")


def test_a_schema_that_becomes_newer_does_not_end_what_still_can_be_read(
    database_url: str, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    with open_exporter(Settings(database_url=database_url)) as client:
        wait_until(client.healthy)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE idemwatch_alembic_version SET version_num = '9999'")
        wait_until(lambda: "the database is newer (9999)" in caplog.text)
        assert client.healthy()


def test_to_call_few_commands_is_all_the_right_it_needs_at_the_broker(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    url = server.url.replace("redis://", "redis://broker:p@")
    with redis.Redis.from_url(server.url) as client:
        client.lpush("celery", "message")
        for missing in (None, *CALLED_OF_BROKER):
            client.acl_setuser(
                "broker", enabled=True, reset=True, passwords=["+p"], keys=["celery*"],
                commands=[f"+{one}" for one in CALLED_OF_BROKER if one != missing],
            )  # fmt: skip
            assert bool(failing(broker_url=url)) == (missing is not None), missing
