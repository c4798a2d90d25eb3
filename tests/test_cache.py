"""Redis before PostgreSQL: it answers only what PostgreSQL has finished; nothing waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import redis
from idemwatch.idempotency import cached_store
from idemwatch.idempotency.errors import AuthorityMismatch, StoreUnavailable
from idemwatch.idempotency.record import Completion, Outcome, State
from support.proxy import TcpProxy
from support.stores import (
    HOUR_US,
    KEY,
    NAMESPACE,
    Subject,
    cached_subject,
    delete_in_postgres,
    postgres_subject,
    redis_subject,
    result,
    wait_until,
)

NAME = f"{NAMESPACE}:{{{KEY}}}"


class Cached:
    """The cached store with a proxy before each of its servers."""

    def __init__(self, subject: Subject, postgres: TcpProxy, cache: TcpProxy, url: str) -> None:
        self.subject, self.postgres, self.cache, self.redis_url = subject, postgres, cache, url
        self.client = redis.Redis.from_url(url)


@pytest.fixture
def cached(
    database_url: str, redis_url: str, tcp_proxy: Callable[[str], TcpProxy]
) -> Iterator[Cached]:
    postgres, cache = tcp_proxy(database_url), tcp_proxy(redis_url)
    with ExitStack() as stack:
        subject = cached_subject(stack, postgres.url(database_url), cache.url(redis_url))
        subject.lose = lambda key: None  # noqa: ARG005
        found = Cached(subject, postgres, cache, redis_url)
        stack.callback(found.client.close)
        yield found


def test_a_duplicate_never_reaches_postgresql(cached: Cached) -> None:
    cached.subject.finish(data=b"7")
    cached.postgres.refuse()
    for _ in range(50):
        answer = cached.subject.ask()
        assert answer.outcome is Outcome.DUPLICATE and answer.record is not None
        assert answer.record.result == b"7"


def test_a_mismatch_is_found_without_postgresql(cached: Cached) -> None:
    cached.subject.finish(fingerprint="aaaa")
    cached.postgres.refuse()
    assert cached.subject.ask(fingerprint="bbbb").outcome is Outcome.MISMATCH


def test_a_running_record_is_not_in_the_cache(cached: Cached) -> None:
    cached.subject.hold()
    assert cached.client.get(NAME) is None


def test_a_cache_that_was_emptied_is_filled_by_the_next_duplicate(cached: Cached) -> None:
    cached.subject.finish()
    cached.client.flushdb()
    assert cached.subject.ask().outcome is Outcome.DUPLICATE
    cached.postgres.refuse()
    assert cached.subject.ask().outcome is Outcome.DUPLICATE


def test_a_cached_result_expires_with_its_record(cached: Cached) -> None:
    held = cached.subject.hold()
    cached.subject.store.complete(held, result(ttl_us=60_000_000))
    left_ms = cached.client.pttl(NAME)
    assert isinstance(left_ms, int) and 50_000 < left_ms <= 60_000
    cached.client.flushdb()
    cached.subject.ask()
    assert 0 < int(cached.client.pttl(NAME)) <= left_ms


def test_an_expired_result_is_answered_by_neither(cached: Cached) -> None:
    cached.subject.store.complete(cached.subject.hold(), result(ttl_us=80_000))
    wait_until(lambda: cached.subject.ask().granted)


def test_forget_leaves_a_tombstone_that_no_late_writer_passes(cached: Cached) -> None:
    held = cached.subject.finish()
    cached.subject.store.forget(KEY)
    left_ms = cached.client.pttl(NAME)
    assert isinstance(left_ms, int) and 590_000 < left_ms <= 600_000
    assert cached.subject.store.complete(held, result()) is Completion.FORGOTTEN
    raw = cached.client.get(NAME)
    assert isinstance(raw, bytes) and b" forgotten " in raw
    successor = cached.subject.hold()
    assert cached.subject.store.complete(successor, result(b"new")) is Completion.STORED
    assert cached.client.get(NAME) == raw
    answer = cached.subject.ask()
    assert answer.record is not None and answer.record.result == b"new"


def test_a_put_never_takes_the_place_of_another_record(cached: Cached) -> None:
    cached.client.set(NAME, "a stranger's")
    cached.subject.finish()
    assert cached.client.get(NAME) == b"a stranger's"
    assert cached.subject.ask().outcome is Outcome.DUPLICATE


def test_forget_fails_while_redis_may_still_answer(cached: Cached) -> None:
    cached.subject.finish()
    cached.cache.refuse()
    with pytest.raises(StoreUnavailable, match="redis"):
        cached.subject.store.forget(KEY)
    assert cached.subject.record().state is State.DONE


def test_forget_reaches_a_result_that_only_the_cache_still_has(
    cached: Cached, database_url: str
) -> None:
    cached.subject.finish()
    delete_in_postgres(database_url, f"{NAMESPACE}:{KEY}")
    assert cached.subject.ask().outcome is Outcome.DUPLICATE
    cached.subject.store.forget(KEY)
    assert cached.subject.ask().outcome is Outcome.GRANTED


def test_two_authorities_refuse_each_others_records(cached: Cached) -> None:
    cached.subject.finish()
    with ExitStack() as stack:
        other = redis_subject(stack, cached.redis_url)
        with pytest.raises(AuthorityMismatch, match="drain the queue"):
            other.ask()
        other.hold("theirs")
        with pytest.raises(AuthorityMismatch, match="drain the queue"):
            cached.subject.ask("theirs")


@pytest.mark.parametrize("raw", [b"garbage", b"iw2 of the future", None])
def test_postgresql_decides_where_the_cache_cannot_be_read(
    cached: Cached, raw: bytes | None
) -> None:
    cached.subject.finish()
    cached.client.delete(NAME)
    if raw is None:
        cached.client.rpush(NAME, "x")
    else:
        cached.client.set(NAME, raw)
    assert cached.subject.ask().outcome is Outcome.DUPLICATE


def test_a_claim_is_fast_while_redis_is_a_closed_port(cached: Cached) -> None:
    cached.cache.refuse()
    cached.subject.ask("opens the breaker")
    spent = []
    for number in range(20):
        began = time.perf_counter()
        assert cached.subject.ask(f"key{number}").granted
        spent.append(time.perf_counter() - began)
    assert sorted(spent)[10] < 0.05, spent


def test_work_goes_on_through_a_blackholed_redis(cached: Cached) -> None:
    cached.subject.hold("first connections")
    cached.cache.blackhole()
    held = cached.subject.hold()
    assert cached.subject.store.complete(held, result()) is Completion.STORED
    assert cached.subject.ask().outcome is Outcome.DUPLICATE
    cached.cache.heal()
    wait_until(lambda: cached.subject.ask().granted is False and bool(cached.client.exists(NAME)))


def sets(client: redis.Redis) -> int:
    """How many SET commands the server has run."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return stats["cmdstat_set"]["calls"]


def test_a_put_that_lands_late_does_not_pass_a_tombstone(cached: Cached) -> None:
    held = cached.subject.hold()
    cached.cache.hold_requests()
    assert cached.subject.store.complete(held, result()) is Completion.STORED
    with ExitStack() as stack:
        other = redis_subject(stack, cached.redis_url)
        other.store.claim(other.claim()._replace(lease_us=HOUR_US))
        other.store.forget(KEY)
    before = sets(cached.client)
    cached.cache.heal()
    wait_until(lambda: sets(cached.client) > before)
    raw = cached.client.get(NAME)
    assert isinstance(raw, bytes) and b" forgotten " in raw


def test_forget_reaches_a_cache_that_an_earlier_one_did_not_ask(
    cached: Cached, database_url: str
) -> None:
    cached.subject.finish()
    with ExitStack() as stack:
        alone = postgres_subject(stack, database_url)
        assert alone.store.forget(KEY) is not None
    assert cached.subject.store.finished(KEY) is not None, "the cache was not asked"
    assert cached.subject.store.forget(KEY) is not None
    assert cached.subject.store.finished(KEY) is None
    assert cached.subject.ask().granted


def test_a_reader_that_was_frozen_puts_nothing_into_the_cache(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.subject.finish()
    cached.client.flushdb()
    times = iter([0.0, 61.0])
    monkeypatch.setattr(cached_store, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert cached.subject.ask().outcome is Outcome.DUPLICATE
    assert cached.client.get(NAME) is None
