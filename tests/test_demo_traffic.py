"""The traffic: what is published, and the process that does it by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import psycopg
import pytest
import redis
from idemwatch.demo.app import CLOSE
from idemwatch.demo.ledger import Ledger
from idemwatch.demo.traffic import LANE, PATTERNS, Pattern, Work
from support.stores import wait_until

COMMAND = (sys.executable, "-m", "idemwatch.demo.traffic_command")


def works(pattern: Pattern, unsettled: frozenset[str] = frozenset()) -> Iterator[Work]:
    """Tick after tick, as if each piece of work had its effect at once."""
    while True:
        yield from pattern.next(set(unsettled))


@pytest.mark.parametrize("name", PATTERNS)
def test_two_processes_of_traffic_never_name_the_same_work(name: str) -> None:
    one, other = (
        {work.name for work in islice(works(PATTERNS[name](lane)), 500)} for lane in (1, 2)
    )
    assert len(one) == len(other) == 500
    assert not one & other


@pytest.mark.parametrize("name", PATTERNS)
def test_a_slow_worker_gets_no_endless_backlog(name: str) -> None:
    pattern, unsettled = PATTERNS[name](1), set[str]()
    for _ in range(500):
        unsettled |= {work.name for work in pattern.next(unsettled)}
    assert len(unsettled) <= 110


def test_calm_is_one_duplicate_in_a_hundred() -> None:
    assert Counter(work.messages for work in islice(works(PATTERNS["calm"](1)), 1000)) == {
        1: 990,
        2: 10,
    }


def test_a_storm_is_all_duplicates() -> None:
    assert {work.messages for work in islice(works(PATTERNS["duplicates"](1)), 100)} == {4}


def test_the_first_number_of_a_lane_is_far_from_the_numbers_of_schedules() -> None:
    work = next(work for work in works(PATTERNS["calm"](3)) if work.task == CLOSE)
    assert work.args[0] == 3 * LANE + 1


def test_by_itself_it_publishes_until_it_is_told_to_end(database_url: str, redis_url: str) -> None:
    env = {
        **os.environ,
        "IDEMWATCH_DATABASE_URL": database_url,
        "IDEMWATCH_NAMESPACE": "traffic",
        "CELERY_BROKER_URL": redis_url,
    }
    ledger = Ledger(database_url)
    with subprocess.Popen(COMMAND, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: ledger.published().traffic_messages > 0)
            wait_until(lambda: _waiting(redis_url) > 0)
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    published = ledger.published().traffic_messages
    ledger.close()
    assert process.returncode == 0, err
    assert _waiting(redis_url) == published


def _waiting(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("traffic:traffic"))


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ((), {}, "idempotency_database_url"),
        (("--pattern", "wild"), {}, "'mixed', 'calm', 'duplicates'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tables_may_be_made_by_many_at_once(database_url: str) -> None:
    first = Ledger(database_url)
    second = Ledger(database_url)
    assert first.new_lane() != second.new_lane()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO effect (work, task_id) VALUES ('a', '1'), ('a', '2')")
    assert first.effects() == {"a": 2}
    assert second.happened(["a", "b"]) == {"a"}
    first.close()
    second.close()
