"""Servers that freeze, die and come back, and clients that do harm, under a running exporter."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.exporter import refresh, state
from idemwatch.exporter.connections import MAX_CONNECTIONS
from idemwatch.exporter.state import Options
from idemwatch.idempotency.settings import Settings
from support.exporters import Client, open_exporter, value
from support.proxy import TcpProxy
from support.stores import wait_until

OF_POSTGRES = {"postgres", "records", "beats", "schedules"}
OF_REDIS = {"redis", "redis_records", "workers"}


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source hangs after a second, so that nobody waits for half a minute."""
    monkeypatch.setattr(refresh, "LEAST_DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(state, "DEADLINE_SECONDS", 1.0)


@pytest.fixture
def postgres(
    new_postgres: Callable[..., PostgresServer], migrate: Callable[[str], None]
) -> PostgresServer:
    server = new_postgres()
    migrate(server.url)
    return server


@pytest.fixture
def client(postgres: PostgresServer, redis_url: str) -> Iterator[Client]:
    settings = Settings(redis_url=redis_url, database_url=postgres.url)
    options = Options(refresh_seconds=1, broker_url=redis_url)
    with open_exporter(settings, options) as running:
        wait_until(running.healthy)
        yield running


def failing(client: Client) -> set[str]:
    return {name for name, number in client.success().items() if not number}


def timed(client: Client) -> float:
    began = time.monotonic()
    status, _ = client.get()
    assert status == 200
    return time.monotonic() - began


def test_a_frozen_postgresql_costs_its_own_collectors_and_no_time(
    client: Client, postgres: PostgresServer
) -> None:
    postgres.freeze()
    spent: list[float] = []

    def all_hang() -> bool:
        spent.append(timed(client))
        return failing(client) >= OF_POSTGRES

    wait_until(all_hang)
    assert failing(client) == OF_POSTGRES
    assert max(spent) < 1.0
    assert statistics.median(spent) < 0.1, "milliseconds"
    found = client.series()
    assert value(found, "store_up", store="postgres") == 0
    assert value(found, "store_up", store="redis") == 1
    assert value(found, "endpoints") is not None, "what was told last is told on"
    status, text = client.get("/-/ready")
    assert status == 503
    assert {line.partition(":")[0] for line in text.splitlines()} == OF_POSTGRES
    assert client.get("/-/healthy")[0] == 200
    postgres.thaw()
    wait_until(client.healthy)
    assert value(client.series(), "store_up", store="postgres") == 1
    wait_until(lambda: client.get("/-/ready")[0] == 200)


def test_a_store_that_does_not_answer_is_down_sooner_than_a_long_read_has_failed(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "LEAST_DEADLINE_SECONDS", 30.0)
    with open_exporter(Settings(database_url=postgres.url)) as client:
        wait_until(client.healthy)
        postgres.freeze()
        wait_until(lambda: failing(client) == {"postgres"})
        postgres.thaw()
        wait_until(client.healthy)


def test_what_never_answers_again_is_left_for_another_connection(
    postgres: PostgresServer,
    tcp_proxy: Callable[[str], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tunnel that lost what it had: its connections stay open, and no reply ever comes."""
    monkeypatch.setattr(state, "ANSWER_SECONDS", 2.0)
    proxy = tcp_proxy(postgres.url)
    with open_exporter(Settings(database_url=proxy.url(postgres.url))) as client:
        wait_until(client.healthy)
        proxy.blackhole()
        wait_until(lambda: failing(client) == OF_POSTGRES)
        proxy.heal()
        wait_until(client.healthy)


def test_a_locked_table_costs_its_own_collectors(client: Client, postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("LOCK TABLE schedule IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: failing(client) >= {"beats", "schedules"})
        assert failing(client) == {"beats", "schedules"}
    wait_until(client.healthy)


def test_a_killed_postgresql_comes_back(client: Client, postgres: PostgresServer) -> None:
    postgres.kill()
    wait_until(lambda: failing(client) == OF_POSTGRES)
    assert value(client.series(), "store_up", store="postgres") == 0
    postgres.restart()
    wait_until(client.healthy)


def test_a_killed_redis_comes_back(
    new_redis: Callable[..., RedisServer], database_url: str, redis_url: str
) -> None:
    server = new_redis()
    settings = Settings(redis_url=server.url, database_url=database_url)
    options = Options(refresh_seconds=1, broker_url=redis_url)
    with open_exporter(settings, options) as client:
        wait_until(client.healthy)
        server.kill()
        wait_until(lambda: failing(client) == OF_REDIS)
        assert value(client.series(), "store_up", store="redis") == 0
        assert value(client.series(), "store_up", store="broker") == 1
        assert timed(client) < 1.0
        server.restart()
        wait_until(client.healthy)
        assert value(client.series(), "store_up", store="redis") == 1


def test_a_frozen_redis_costs_no_time(
    new_redis: Callable[..., RedisServer], database_url: str
) -> None:
    server = new_redis()
    settings = Settings(redis_url=server.url, database_url=database_url)
    options = Options(refresh_seconds=1, broker_url=server.url)
    with open_exporter(settings, options) as client:
        wait_until(client.healthy)
        server.freeze()
        wait_until(lambda: failing(client) == OF_REDIS | {"broker", "queues"})
        assert timed(client) < 1.0
        server.thaw()
        wait_until(client.healthy)


def test_servers_that_are_away_at_start_are_waited_for(
    postgres: PostgresServer, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    postgres.kill()
    server.kill()
    settings = Settings(redis_url=server.url, database_url=postgres.url)
    with open_exporter(settings) as client:
        wait_until(lambda: value(client.series(), "store_up", store="postgres") == 0)
        wait_until(lambda: value(client.series(), "store_up", store="redis") == 0)
        assert failing(client) == OF_POSTGRES | OF_REDIS
        assert value(client.series(), "threshold", name="health") == 70
        postgres.restart()
        server.restart()
        wait_until(client.healthy)


def test_fifty_scrapes_at_once_are_all_answered(client: Client) -> None:
    with ThreadPoolExecutor(50) as pool:
        began = time.monotonic()
        spent = list(pool.map(lambda _: timed(client), range(50)))
    assert len(spent) == 50
    assert time.monotonic() - began < 10


def test_clients_that_drip_their_requests_hold_up_nobody(client: Client) -> None:
    parts = urlsplit(client.url)
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            slow = stack.enter_context(socket.create_connection((parts.hostname, parts.port)))
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost")
        assert timed(client) < 2.0
        assert timed(client) < 2.0


def test_all_connections_to_the_database_are_given_back_and_few(
    postgres: PostgresServer, redis_url: str
) -> None:
    counted = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idemwatch' "
        "AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        settings = Settings(redis_url=redis_url, database_url=postgres.url)
        with open_exporter(settings) as client:
            wait_until(client.healthy)
            row = connection.execute(counted).fetchone()
            assert row is not None and 1 <= row[0] <= len(OF_POSTGRES)
        wait_until(lambda: connection.execute(counted).fetchone() == (0,))
