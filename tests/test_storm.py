"""A storm of copies of one message, through a real worker, while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from support.fleet import Fleet
from support.storm import Message

pytestmark = pytest.mark.worker

WHILE_IT_RUNS = 300
AFTERWARDS = 1700
TRANSACTIONS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


@pytest.fixture(scope="module")
def fleet(new_fleet: Callable[..., Fleet]) -> Fleet:
    """One worker, whose messages do not come again by themselves."""
    return new_fleet("postgres", idempotency_lease=6, broker_transport_options={})


@pytest.fixture
def broker(fleet: Fleet) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fleet.broker) as client:
        yield client


@pytest.fixture
def database(fleet: Fleet) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(fleet.conf["idempotency_database_url"], autocommit=True) as connection:
        yield connection


def transactions(database: psycopg.Connection[Any]) -> int:
    row = database.execute(TRANSACTIONS).fetchone()
    assert row is not None
    return int(row[0])


def counted(fleet: Fleet, outcome: str) -> int:
    return int(fleet.claims("work", outcome))


def test_of_the_copies_that_come_while_it_runs_one_waits_and_all_are_done_once(
    fleet: Fleet, broker: redis.Redis, database: psycopg.Connection[Any]
) -> None:
    label, gate = fleet.label(), fleet.label()
    message = Message(fleet.publisher, broker, "sheet.work", (label, gate))
    message.push(1)
    fleet.wait_for_event(label, "start")
    met = counted(fleet, "running")
    message.push(WHILE_IT_RUNS)
    all_met = met + WHILE_IT_RUNS
    fleet.wait(lambda: counted(fleet, "running") >= all_met, "all copies met the running one")
    fleet.wait(lambda: fleet.messages(message.id) == 2, "all but the holder and one were settled")
    fleet.open(gate)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    assert counted(fleet, "running") == all_met

    hits, before = counted(fleet, "duplicate"), transactions(database)
    message.push(AFTERWARDS)
    fleet.wait_for_idle()
    assert counted(fleet, "duplicate") - hits == AFTERWARDS
    assert fleet.events(label) == ["start", "end"]
    assert transactions(database) - before < AFTERWARDS / 20
    assert fleet.complaints("superuser") == []
