"""Hits on their way to PostgreSQL: gathered, written in batches, and dropped without harm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from idemwatch.idempotency import AlreadyRunning, IdempotencyService, Settings
from idemwatch.idempotency import statistics_store as module
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from idemwatch.idempotency.statistics_store import MOST_KEYS, Statistics
from support.proxy import TcpProxy
from support.services import counted
from support.stores import DEADLINE_SECONDS, wait_until

NAMESPACE = "idemwatch"


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def service(database_url: str) -> Iterator[IdempotencyService]:
    yield IdempotencyService(Settings(database_url=database_url))
    close_engines()


@pytest.fixture
def link(database_url: str) -> Iterator[PostgresLink]:
    link = PostgresLink(database_url)
    yield link
    link.close()


class Unhurried(Statistics):
    """Statistics without a thread: the test writes. `writes` counts the batches."""

    def __init__(self, link: PostgresLink) -> None:
        super().__init__(link, NAMESPACE)
        self.writes = 0

    def _awaken(self) -> None:
        """The test writes."""

    def _write(self, connection: Connection, batch: Any) -> None:
        self.writes += 1
        super()._write(connection, batch)


@pytest.fixture
def statistics(link: PostgresLink) -> Unhurried:
    return Unhurried(link)


def rows(database: psycopg.Connection[Any], columns: str, table: str) -> list[tuple[Any, ...]]:
    statement = f"SELECT {columns} FROM {table} ORDER BY 1, 2"
    return database.execute(statement.encode()).fetchall()


def stats(database: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return rows(database, "endpoint, scope, records, hits, max_hit_count", "endpoint_stats")


def buckets(database: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return rows(database, "endpoint, scope, checks, hits", "endpoint_bucket")


def hit_counts(database: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return rows(database, "key, hit_count", "idempotency_record")


def finish(service: IdempotencyService, key: str) -> None:
    with service.once(key):
        pass


# -- what is written -------------------------------------------------------------------------------


def test_checks_and_hits_reach_record_totals_and_hour(
    service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    for key in ("a", "a", "a", "b", "b", "c"):
        finish(service, key)
    statistics = service.engine.statistics
    assert statistics is not None
    wait_until(lambda: sum(hits for *_, hits in buckets(database)) == 3)
    assert stats(database) == [("service", "global", 3, 3, 2)]
    assert buckets(database) == [("service", "global", 6, 3)]
    assert hit_counts(database) == [("idemwatch:a", 2), ("idemwatch:b", 1), ("idemwatch:c", 0)]


def test_a_message_that_met_a_holder_is_a_hit(
    service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    with service.once("a"), pytest.raises(AlreadyRunning), service.once("a"):
        pytest.fail("a held key was granted")
    close_engines()
    assert hit_counts(database) == [("idemwatch:a", 1)]
    assert buckets(database) == [("service", "global", 2, 1)]


def test_the_times_of_hits_are_kept(
    statistics: Unhurried, service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    def times() -> list[Any]:
        found = rows(database, "first_hit_at, last_hit_at", "idempotency_record")
        return [*found[0], *rows(database, "first_seen, last_hit", "endpoint_stats")[0]]

    service.store_result("a", 1)
    statistics.checked("service", "global", new=True)
    statistics.flush()
    assert times()[:2] == [None, None] and times()[3] is None and times()[2] is not None
    seen = times()[2]
    statistics.hit("a", "service", "global")
    statistics.flush()
    first, last = times()[0], times()[3]
    assert first is not None and times()[1] == first and last is not None and last >= seen
    statistics.hit("a", "service", "global")
    statistics.flush()
    assert times()[0] == first and times()[1] > first
    assert times()[2] == seen and times()[3] > last


def test_the_maximum_is_that_of_one_record_and_never_falls(
    statistics: Unhurried, service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    for key in ("a", "b"):
        service.store_result(key, 1)
    for key in ("a", "a", "a", "b"):
        statistics.hit(key, "service", "global")
    statistics.checked("service", "global", new=True)
    statistics.flush()
    assert stats(database)[0][4] == 3
    statistics.hit("b", "service", "global")
    statistics.flush()
    assert stats(database) == [("service", "global", 1, 5, 3)]


def test_endpoints_and_scopes_are_told_apart(
    statistics: Unhurried, database: psycopg.Connection[Any]
) -> None:
    for endpoint, scope in (("b", "user"), ("a", "user"), ("a", "global"), ("a", "user")):
        statistics.checked(endpoint, scope, new=endpoint == "a")
    statistics.flush()
    assert stats(database) == [
        ("a", "global", 1, 0, 0),
        ("a", "user", 2, 0, 0),
        ("b", "user", 0, 0, 0),
    ]
    assert [row[2] for row in buckets(database)] == [1, 2, 1]


def test_a_hit_on_a_record_that_is_gone_still_counts_for_its_endpoint(
    statistics: Unhurried, database: psycopg.Connection[Any]
) -> None:
    statistics.hit("gone", "service", "global")
    statistics.flush()
    assert stats(database) == [("service", "global", 0, 1, 0)]


# -- how it is written -----------------------------------------------------------------------------


def test_many_hits_are_one_batch(
    statistics: Unhurried, service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    service.store_result("a", 1)
    for _ in range(1000):
        statistics.hit("a", "service", "global")
    for _ in range(3):
        statistics.flush()
    assert statistics.writes == 1
    assert hit_counts(database) == [("idemwatch:a", 1000)]


def test_the_keys_of_a_batch_are_bounded_and_all_hits_counted(
    statistics: Unhurried, database: psycopg.Connection[Any]
) -> None:
    for number in range(MOST_KEYS + 5):
        statistics.hit(f"key{number}", "service", "global")
    statistics.hit("key0", "service", "global")
    assert len(statistics._batch.key_hits) == MOST_KEYS and statistics._batch.key_hits["key0"] == 2
    statistics.flush()
    assert stats(database) == [("service", "global", 0, MOST_KEYS + 6, 0)]


def test_batches_of_many_processes_add_up_and_do_not_deadlock(
    link: PostgresLink, service: IdempotencyService, database: psycopg.Connection[Any]
) -> None:
    keys = [f"key{number}" for number in range(20)]
    for key in keys:
        service.store_result(key, 1)
    together = threading.Barrier(4)

    def process(number: int) -> None:
        own = Unhurried(link)
        for _ in range(10):
            for key in keys if number % 2 else reversed(keys):
                own.hit(key, f"task{number % 3}", "global")
            together.wait(DEADLINE_SECONDS)
            own.flush()

    dropped = counted("writebehind_dropped_total")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(process, range(4)))
    assert [hits for _, hits in hit_counts(database)] == [40] * 20
    assert sum(row[3] for row in buckets(database)) == 800
    assert counted("writebehind_dropped_total") == dropped


def test_a_batch_that_postgresql_refuses_is_dropped_and_counted(
    database_url: str, database: psycopg.Connection[Any], tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(database_url)
    link = PostgresLink(proxy.url(database_url))
    statistics, dropped = Unhurried(link), counted("writebehind_dropped_total")
    statistics.checked("before", "global", new=True)
    statistics.flush()
    proxy.refuse()
    statistics.checked("lost", "global", new=True)
    statistics.flush()
    assert counted("writebehind_dropped_total") == dropped + 1
    assert counted("writebehind_pending") == 0
    proxy.heal()

    def written() -> bool:
        statistics.checked("after", "global", new=True)
        statistics.flush()
        return len(stats(database)) == 2

    wait_until(written)
    assert [row[0] for row in stats(database)] == ["after", "before"]
    link.close()


def test_half_a_batch_is_never_written(
    statistics: Unhurried, database: psycopg.Connection[Any]
) -> None:
    database.execute("ALTER TABLE endpoint_bucket ADD CONSTRAINT none CHECK (checks < 0)")
    statistics.checked("a", "global", new=True)
    statistics.flush()
    assert stats(database) == buckets(database) == []


# -- the thread ------------------------------------------------------------------------------------


def names() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "idemwatch-statistics"]


def test_the_thread_starts_with_the_first_check_and_stop_writes_what_is_left(
    link: PostgresLink, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 60.0)
    already, statistics = len(names()), Statistics(link, NAMESPACE)
    assert len(names()) == already
    for _ in range(3):
        statistics.checked("a", "global", new=True)
    assert len(names()) == already + 1
    statistics.stop()
    assert stats(database) == [("a", "global", 3, 0, 0)]
    assert len(names()) == already


def test_without_postgresql_nothing_is_gathered(redis_url: str) -> None:
    service = IdempotencyService(Settings(redis_url=redis_url, authority="redis"))
    finish(service, "a")
    finish(service, "a")
    assert service.engine.statistics is None
    close_engines()
