"""Connections: what callers do to them, demoted masters, and that renewals always find one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
import redis
from idemwatch.demo.servers import RedisServer
from idemwatch.idempotency import (
    AlreadyRunning,
    IdempotencyService,
    InvalidKey,
    Settings,
    StoreUnavailable,
)
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.postgres_link import POOL_SIZE
from idemwatch.idempotency.record import Claim
from psycopg.rows import dict_row
from support.stores import DEADLINE_SECONDS, wait_until


@pytest.fixture
def service(database_url: str) -> Iterator[IdempotencyService]:
    yield IdempotencyService(Settings(database_url=database_url, lease=timedelta(seconds=1)))
    close_engines()


def do(service: IdempotencyService, key: str) -> None:
    with service.once(key) as work:
        assert not work.duplicate


# -- callers' transactions -------------------------------------------------------------------------


def test_what_a_caller_sets_ends_with_its_transaction(service: IdempotencyService) -> None:
    with service.transaction("first") as tx:
        tx.connection.row_factory = dict_row
        tx.connection.execute("SET statement_timeout = '1234ms'; SET work_mem = '1MB'")
    do(service, "second")
    with service.transaction("third") as tx:
        names = ("statement_timeout", "work_mem")
        shown = [tx.connection.execute(f"SHOW {name}") for name in names]
        assert [cursor.fetchone() for cursor in shown] == [("0",), ("4MB",)]


def test_open_transactions_leave_connections_for_leases(service: IdempotencyService) -> None:
    entered, leave = threading.Barrier(POOL_SIZE + 1), threading.Event()

    def stay(number: int) -> None:
        with service.transaction(f"long {number}"):
            entered.wait(DEADLINE_SECONDS)
            assert leave.wait(DEADLINE_SECONDS)

    with ThreadPoolExecutor(POOL_SIZE) as pool:
        staying = [pool.submit(stay, number) for number in range(POOL_SIZE)]
        entered.wait(DEADLINE_SECONDS)
        with service.once("held") as work:
            lease = work.lease
            assert lease is not None
            renewed = lease.renewed_at
            wait_until(lambda: lease.renewed_at > renewed)
            with pytest.raises(AlreadyRunning):
                do(service, "held")
            leave.set()
        for one in staying:
            one.result(DEADLINE_SECONDS)


# -- a master that was demoted ---------------------------------------------------------------------


def test_a_connection_to_a_standby_is_left(service: IdempotencyService, database_url: str) -> None:
    """A role that was read-only while a connection was made stands for a server that was."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        setting = "ALTER ROLE CURRENT_USER {} default_transaction_read_only"
        admin.execute(setting.format("SET") + " = on")
        try:
            assert service.check_duplicate("before") is None
        finally:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(setting.format("RESET"))
    do(service, "after")
    with service.transaction("after too") as tx:
        assert not tx.duplicate


@pytest.fixture
def replicated(new_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """A master, and a server that is to follow another."""
    return new_redis(), new_redis()


def answers(service: IdempotencyService) -> bool:
    try:
        service.store.ping()
    except StoreUnavailable:
        return False
    return True


def test_a_demoted_redis_is_left_and_asked_anew(
    replicated: tuple[RedisServer, RedisServer],
) -> None:
    server, other = replicated
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(server.url))
        stack.callback(close_engines)
        service = IdempotencyService(Settings(redis_url=server.url, authority="redis"))
        do(service, "before")
        link = service.store._link  # type: ignore[attr-defined]
        client.replicaof("127.0.0.1", str(other.port))
        wait_until(lambda: client.info("replication").get("master_link_status") == "up")
        for refused in (
            lambda: service.store.claim(Claim(key="k", owner="o", authority="redis")),
            lambda: link.call_many([("SET", "x", "1")]),
        ):
            with pytest.raises(StoreUnavailable):
                refused()
            assert not link._idle
            wait_until(lambda: answers(service))  # by a new connection, which reads may use
        client.replicaof("NO", "ONE")
        do(service, "after")


# -- what no store can hold ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a b", "x\ny", "-", "ü", "\ud800", "%2D"])
def test_any_fingerprint_may_be_given(redis_url: str, text: str) -> None:
    service = IdempotencyService(Settings(redis_url=redis_url, authority="redis"))
    for duplicate in (False, True):
        with service.once("k", fingerprint=text) as work:
            assert work.duplicate is duplicate
    close_engines()


def test_a_value_that_postgresql_refuses_is_no_outage(service: IdempotencyService) -> None:
    with pytest.raises(InvalidKey, match="refuses a value"):
        service.store.find("nul\0")
    do(service, "fine")
