"""Reads of the exporter: of one moment, changing nothing, and ended in time by the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from idemwatch.exporter.read_only_store import read
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from support.stores import wait_until

COUNT = "SELECT count(*) FROM endpoint_stats"
ADD = "INSERT INTO endpoint_stats (endpoint, scope, records, hits) VALUES ('t', 'global', 1, 0)"


def counted(connection: Connection) -> int:
    row = connection.execute(COUNT).fetchone()
    assert row is not None
    return int(row[0])


def test_all_of_a_read_is_of_one_moment(link: PostgresLink, database_url: str) -> None:
    def twice(connection: Connection) -> tuple[int, int]:
        before = counted(connection)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(ADD)
        return before, counted(connection)

    assert read(link, twice) == (0, 0)
    assert read(link, counted) == 1


def test_a_read_changes_nothing(link: PostgresLink) -> None:
    with pytest.raises(StoreUnavailable, match="read-only"):
        read(link, lambda connection: connection.execute(ADD))
    assert read(link, counted) == 0


def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_asked_once(
    link: PostgresLink, database_url: str
) -> None:
    asked = []

    def sleep(connection: Connection) -> None:
        asked.append(1)
        connection.execute("SELECT pg_sleep(60)")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"longer than 0\.2 s"):
        read(link, sleep, timeout=0.2)
    assert time.monotonic() - began < 10
    assert len(asked) == 1
    assert not link.breaker.is_open
    assert read(link, counted) == 0, "the connection serves on"


def test_what_a_read_sets_ends_with_it(link: PostgresLink) -> None:
    assert read(link, lambda c: c.execute("SHOW statement_timeout").fetchone()) == ("10s",)
    assert link.run(lambda c: c.execute("SHOW statement_timeout").fetchone()) == ("0",)
    assert link.run(lambda c: c.execute("SHOW transaction_read_only").fetchone()) == ("off",)


# -- a server that does not answer -----------------------------------------------------------------


@pytest.fixture
def bounded(database_url: str) -> Iterator[PostgresLink]:
    link = PostgresLink(database_url, answer_seconds=0.3)
    yield link
    link.close()


def test_what_the_server_does_not_end_is_ended_here(bounded: PostgresLink) -> None:
    asked = []

    def sleep(connection: Connection) -> None:
        asked.append(1)
        connection.execute("SELECT pg_sleep(20)")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        bounded.run(sleep)
    assert time.monotonic() - began < 10
    assert len(asked) == 2, "once more, on another connection"
    assert bounded.run(counted) == 0, "the next one finds its way"


def test_a_read_that_ends_in_time_keeps_its_connection(bounded: PostgresLink) -> None:
    def pid(connection: Connection) -> int:
        return connection.info.backend_pid

    first = bounded.run(pid)
    threading.Event().wait(0.5)  # longer than an answer may take
    assert bounded.run(pid) == first


def test_the_guard_ends_with_its_link(bounded: PostgresLink) -> None:
    bounded.run(counted)
    guards = [one for one in threading.enumerate() if one.name == "idemwatch-answers"]
    bounded.close()
    wait_until(lambda: not any(one.is_alive() for one in guards))
    assert guards
