"""The directory of workers: the clock of Redis, one entry a node, and nothing taken on trust."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from idemwatch.exporter.worker_collector import LIVE_SECONDS, STALE_SECONDS, WorkerCollector
from idemwatch.exporter.worker_directory_store import (
    KEPT_SECONDS,
    MOST_WORKERS,
    Facts,
    Listed,
    WorkerDirectory,
    is_target,
    listed_of,
)
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_link import RedisLink
from support.promtool import faults, told
from support.stores import NAMESPACE

FACTS, SEEN = f"{NAMESPACE}:{{workers}}:facts", f"{NAMESPACE}:{{workers}}:seen"
ONE = Facts("celery@one", "one:9912", "http", 4, "i1")
TWO = Facts("celery@two", "[::1]:9913", "https", 8, "i2")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def directory(redis_url: str) -> Iterator[WorkerDirectory]:
    directory = WorkerDirectory(RedisLink.from_url(redis_url), NAMESPACE)
    yield directory
    directory.close()


def age(client: redis.Redis, facts: Facts, seconds: float) -> None:
    """As if it had been seen so long ago."""
    client.zincrby(SEEN, -seconds * 1_000_000, facts.node)


def test_a_registered_worker_is_listed_with_its_facts(directory: WorkerDirectory) -> None:
    assert directory.workers() == []
    directory.register(ONE)
    directory.register(TWO)
    two, one = directory.workers()
    assert (one.node, one.target, one.scheme, one.concurrency) == (
        "celery@one", "one:9912", "http", 4
    )  # fmt: skip
    assert (two.target, two.scheme) == ("[::1]:9913", "https")
    assert 0 <= two.ago_seconds <= one.ago_seconds < 30


def test_a_node_has_one_entry_and_the_last_word_counts(directory: WorkerDirectory) -> None:
    directory.register(ONE)
    directory.register(replace(ONE, target=None, concurrency=5, instance="i9"))
    (one,) = directory.workers()
    assert (one.target, one.concurrency) == (None, 5)


def test_the_time_is_that_of_redis(directory: WorkerDirectory, client: redis.Redis) -> None:
    directory.register(ONE)
    seconds, microseconds = client.time()
    ago = seconds + microseconds / 1e6 - (client.zscore(SEEN, ONE.node) or 0) / 1e6
    assert 0 <= ago < 30
    age(client, ONE, 100)
    assert directory.workers()[0].ago_seconds == pytest.approx(100, abs=30)


def test_a_worker_that_does_not_come_any_more_is_forgotten(
    directory: WorkerDirectory, client: redis.Redis
) -> None:
    directory.register(ONE)
    age(client, ONE, KEPT_SECONDS - 60)
    assert [one.node for one in directory.workers()] == [ONE.node], "its `up == 0` can alert"
    age(client, ONE, 61)
    assert directory.workers() == []
    directory.register(TWO)
    assert client.hkeys(FACTS) == client.zrange(SEEN, 0, -1) == [TWO.node]


def test_what_is_not_refreshed_goes_away_by_itself(
    directory: WorkerDirectory, client: redis.Redis
) -> None:
    directory.register(ONE)
    for key in (FACTS, SEEN):
        assert 0 < client.ttl(key) <= KEPT_SECONDS


def test_an_end_in_order_takes_the_worker_out(
    directory: WorkerDirectory, client: redis.Redis
) -> None:
    directory.register(ONE)
    directory.register(TWO)
    assert directory.remove(replace(ONE, concurrency=99)), "its pool may have grown since"
    assert [one.node for one in directory.workers()] == [TWO.node]
    assert not directory.remove(ONE)
    assert client.hkeys(FACTS) == [TWO.node]


def test_an_old_worker_does_not_take_its_successor_out(directory: WorkerDirectory) -> None:
    directory.register(ONE)
    directory.register(replace(ONE, instance="successor"))
    assert not directory.remove(ONE)
    assert len(directory.workers()) == 1


def test_namespaces_do_not_see_each_other(redis_url: str, directory: WorkerDirectory) -> None:
    other = WorkerDirectory(RedisLink.from_url(redis_url), "other")
    other.register(ONE)
    assert directory.workers() == []
    other.close()


def test_both_keys_are_in_one_slot(directory: WorkerDirectory) -> None:
    first, second = (key[key.index("{") : key.index("}")] for key in (FACTS, SEEN))
    assert first == second
    assert directory._keys == (FACTS, SEEN)


# -- what is read back is anyone's -----------------------------------------------------------------

GOOD = {"target": "web-1:9912", "scheme": "http", "concurrency": 4, "instance": "i"}


def row(node: Any = b"celery@one", ago: Any = b"0", **changed: Any) -> list[Any]:
    return [node, json.dumps({**GOOD, **changed}).encode(), ago]


def test_a_right_row_is_taken() -> None:
    assert listed_of(row()) == Listed("celery@one", "web-1:9912", "http", 4, 0.0)
    assert listed_of(row(target=None)) == Listed("celery@one", None, "http", 4, 0.0)
    assert listed_of(row(ago=b"-5")) == Listed("celery@one", "web-1:9912", "http", 4, 0.0)


WRONG: dict[str, list[Any]] = {
    "no facts": [b"n", None, b"0"],
    "no JSON": [b"n", b"{", b"0"],
    "no object": [b"n", b"[]", b"0"],
    "a number": [b"n", b"7", b"0"],
    "not UTF-8": [b"n", b"\xff", b"0"],
    "very deep": [b"n", b"[" * 1990, b"0"],
    "a node not UTF-8": row(node=b"\xff"),
    "no node": row(node=b""),
    "a long node": row(node=b"x" * 201),
    "a node with a line": row(node=b"a\nb"),
    "no time": row(ago=b"inf"),
    "a time to come": row(ago=str(-901 * 1_000_000).encode()),
    "another scheme": row(scheme="file"),
    "a scheme of another type": row(scheme=["http"]),
    "a count of another type": row(concurrency="4"),
    "a flag for a count": row(concurrency=True),
    "a count below 0": row(concurrency=-1),
    "a huge count": row(concurrency=10**9),
    **{f"the target {target!r}": row(target=target) for target in (
        "", "host", "host:", ":80", "host:0", "host:65536", "host:99999", "http://host:80",
        "host:80/path", "user@host:80", "host name:80", "a,b:80", "host:80\n", "::1:80",
        "[::1]", "[zz]:80", "[1.2.3.4]:80", "[::1%eth0]:80", "x" * 300 + ":80", "a..b:80",
        f"{'x' * 64}:80", "host:\u0668\u0660", 80, ["host:80"], {"a": 1}, True,
        "169.254.169.254:80", "169.254.169.254.:80", "2852039166:80", "0xA9FEA9FE:80",
        "0251.0376.0251.0376:80", "169.254.43518:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80",
        "0.0.0.0:80", "0:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80",
    )},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_row_is_left_out(what: str) -> None:
    assert listed_of(WRONG[what]) is None


@pytest.mark.parametrize(
    "target",
    [
        "a:1",
        "web-1.example.org:9912",
        "10.0.0.5:65535",
        "[2001:db8::1]:80",
        "under_s:1",
        "482910384756:1",
    ],
)  # fmt: skip
def test_a_target_is_a_host_and_a_port(target: str) -> None:
    assert is_target(target)


def test_wrong_entries_are_left_out_with_one_warning(
    directory: WorkerDirectory, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    directory.register(ONE)
    now = client.zscore(SEEN, ONE.node) or 0
    client.hset(FACTS, mapping={"evil": "{}", "huge": "x" * 10_000})
    client.zadd(SEEN, {"evil": now, "huge": now, "without": now, "ever": float("inf")})
    for _ in range(3):
        assert [one.node for one in directory.workers()] == [ONE.node]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING and "4 entries of the workers'" in warning.message
    client.zrem(SEEN, "evil", "huge", "without", "ever")
    directory.workers()
    client.zadd(SEEN, {"again": now})
    directory.workers()
    assert len(caplog.records) == 2, "it was right in between"


def test_at_most_a_thousand_are_listed(
    directory: WorkerDirectory, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    directory.register(ONE)
    now = client.zscore(SEEN, ONE.node) or 0
    nodes = [f"n{number}" for number in range(MOST_WORKERS + 200)]
    client.hset(FACTS, mapping={node: ONE.encoded() for node in nodes})
    client.zadd(SEEN, {node: now - 1 - number for number, node in enumerate(nodes)})
    found = directory.workers()
    assert len(found) == MOST_WORKERS and found[0].node == ONE.node
    assert "over 1000" in caplog.text


def test_keys_of_another_type_are_an_error(directory: WorkerDirectory, client: redis.Redis) -> None:
    client.set(SEEN, "text")
    with pytest.raises(StoreUnavailable):
        directory.workers()


# -- the collector ---------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def counts(collector: WorkerCollector) -> tuple[float, float]:
    found = told(collector.collect())
    return found["workers"][()], found["workers_expected"][()]


def test_workers_that_stay_away_are_expected_still(
    directory: WorkerDirectory, client: redis.Redis
) -> None:
    collector = WorkerCollector(directory)
    assert counts(collector) == (0, 0)
    directory.register(ONE)
    directory.register(replace(TWO, target=None))
    assert counts(collector) == (2, 2), "a worker without an address counts"
    age(client, ONE, LIVE_SECONDS)
    assert counts(collector) == (1, 2)
    directory.remove(TWO)
    assert counts(collector) == (0, 1)
    age(client, ONE, KEPT_SECONDS)
    assert counts(collector) == (0, 0)
    collector.close()


def test_the_list_is_of_the_last_good_refresh(directory: WorkerDirectory) -> None:
    clock = Clock()
    collector = WorkerCollector(directory, clock=clock)
    assert collector.listed() is None
    directory.register(ONE)
    assert collector.listed() is None, "nothing is asked"
    collector.collect()
    directory.register(TWO)
    assert [one.node for one in collector.listed() or ()] == [ONE.node]
    clock.now += STALE_SECONDS
    assert collector.listed() is not None
    clock.now += 0.1
    assert collector.listed() is None


def test_promtool_finds_no_fault(directory: WorkerDirectory) -> None:
    assert faults(WorkerCollector(directory).collect()) == ""


def test_a_redis_that_is_away_is_an_error_and_the_list_stays(directory: WorkerDirectory) -> None:
    directory.register(ONE)
    collector = WorkerCollector(directory)
    collector.collect()
    away = WorkerDirectory(RedisLink.from_url("redis://127.0.0.1:1"), NAMESPACE)
    collector._directory = away
    with pytest.raises(StoreUnavailable):
        collector.collect()
    assert len(collector.listed() or ()) == 1 and list(collector.failed()) == []
    collector.close()
