"""The real stores against a model in plain Python, by random steps of several processes.

A failure prints the steps, and the line that repeats them (`@reproduce_failure`). In CI they are
always the same steps; at home each run takes others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from idemwatch.idempotency.cached_store import CachedStore
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import NO_WAITERS, Completion, Record, running
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.store import Found, Held, Result, done
from model.lossy import LossyLinks
from model.machine import StoreMachine, System
from support.stores import (
    NAMESPACE,
    cached_subject,
    delete_in_redis,
    memory_subject,
    postgres_subject,
    redis_subject,
)

PROCESSES = 3


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def check(system: System, examples: int, *, steps: int = 40, shrink: bool = True) -> None:
    """Run so many random histories of so many steps."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=bool(os.environ.get("CI")) or not shrink,
        database=None,
        deadline=None,
        phases=phases,
        print_blob=shrink,
        suppress_health_check=list(HealthCheck),
    )
    machine: Any = partial(StoreMachine, system)  # as run_state_machine_as_test takes it, too
    run_state_machine_as_test(machine, settings=chosen)


# -- the stores ------------------------------------------------------------------------------------


def test_memory_does_as_the_model(stack: ExitStack) -> None:
    subject = memory_subject(stack)
    check(System([subject.store], "postgres", subject.lose), 200)


def test_redis_does_as_the_model(stack: ExitStack, redis_url: str) -> None:
    subjects = [redis_subject(stack, redis_url) for _ in range(PROCESSES)]
    check(System([one.store for one in subjects], "redis", subjects[0].lose), 100)


def test_fakeredis_does_as_the_model(stack: ExitStack) -> None:
    client = stack.enter_context(fakeredis.FakeStrictRedis())
    stores = [RedisStore(RedisLink(client.connection_pool), NAMESPACE) for _ in range(PROCESSES)]
    check(System(stores, "redis", lambda key: client.delete(stores[0].redis_key(key))), 30)


def test_postgresql_does_as_the_model(stack: ExitStack, database_url: str) -> None:
    subjects = [postgres_subject(stack, database_url) for _ in range(PROCESSES)]
    check(System([one.store for one in subjects], "postgres", subjects[0].lose), 60)


def test_postgresql_behind_its_cache_does_as_the_model(
    stack: ExitStack, database_url: str, redis_url: str
) -> None:
    check(cached_system(stack, database_url, redis_url), 50)


def test_a_lost_reply_changes_no_answer(
    stack: ExitStack, database_url: str, redis_url: str
) -> None:
    subject, cached = redis_subject(stack, redis_url), cached_system(stack, database_url, redis_url)
    lossy = [LossyLinks(subject.store)]
    check(System([subject.store], "redis", subject.lose, links=lossy), 40)
    check(replace(cached, links=[LossyLinks(store) for store in cached.stores]), 30)


def cached_system(stack: ExitStack, database_url: str, redis_url: str) -> System:
    """Processes with a cache, and one that has none, as after a change of its settings."""
    subjects = [cached_subject(stack, database_url, redis_url) for _ in range(PROCESSES)]

    def lose_cache(key: str) -> None:
        delete_in_redis(redis_url, f"{NAMESPACE}:{{{key}}}")

    stores = [one.store for one in subjects]
    return System(stores, "postgres", subjects[0].lose, lose_cache)


# -- would it notice? ------------------------------------------------------------------------------


class NoOwnerCheck(MemoryStore):
    """Whoever asks may end what is there."""

    def _owned(self, held: Held) -> Record | None:
        return self._records.get(held.key)


class NoFenceCheck(MemoryStore):
    """An owner that was granted the key twice may end its second claim with its first."""

    def _owned(self, held: Held) -> Record | None:
        record = self._records.get(held.key)
        return record if record and record.owner == held.claim.owner else None


class SwapsBlindly(MemoryStore):
    """What was judged is written, whatever stands there by now."""

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        self._records[key] = new
        return True


class FencesStandStill(MemoryStore):
    """A new holder has the fence of the one before."""

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        return super()._swap(key, found, new._replace(fence=found.record.fence))


class RenewsWhatIsFinished(MemoryStore):
    """A heartbeat that comes late makes a finished record a running one."""

    def _renew(self, held: Held) -> bool:
        record = self._owned(held)
        if record is not None:
            due = self._clock() + held.claim.lease_us
            self._records[held.key] = running(
                held.claim, fence=held.fence, now_us=due, created_us=held.created_us
            )
        return record is not None


class RenewalForgetsWhoWaits(MemoryStore):
    """The waiting copies are lost with each heartbeat."""

    def _renew(self, held: Held) -> bool:
        kept = super()._renew(held)
        if kept:
            record = self._records[held.key]
            self._records[held.key] = record._replace(waiters=NO_WAITERS)
        return kept


class NoTombstone(MemoryStore):
    """A forgotten record is deleted, and a late writer brings it back."""

    def forget(self, key: str) -> Record | None:
        return self._records.pop(key, None)


class ReleasesWhatIsFinished(MemoryStore):
    """Giving back deletes a result."""

    def release(self, held: Held) -> bool:
        released = super().release(held)
        if not released and self._owned(held):
            del self._records[held.key]
        return released


class LosesResults(MemoryStore):
    """A completion whose record vanished is not written again."""

    def complete(self, held: Held, result: Result) -> Completion:
        if held.key not in self._records:
            return Completion.STORED
        return super().complete(held, result)


BROKEN: list[Callable[[], MemoryStore]] = [
    NoOwnerCheck, NoFenceCheck, SwapsBlindly, FencesStandStill, RenewsWhatIsFinished,
    RenewalForgetsWhoWaits, NoTombstone, ReleasesWhatIsFinished, LosesResults,
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_store_with_one_rule_left_out_is_caught(broken: Callable[[], MemoryStore]) -> None:
    store = broken()
    system = System([store], "postgres", lambda key: store._records.pop(key, None))
    with pytest.raises(AssertionError):
        check(system, 400, shrink=False)


class NoTombstoneInTheCache(CachedStore):
    """forget tells PostgreSQL alone."""

    def forget(self, key: str) -> Record | None:
        return super(CachedStore, self).forget(key)


class TellsTheCacheFirst(CachedStore):
    """What is not stored yet is answered already."""

    def complete(self, held: Held, result: Result) -> Completion:
        self._put(held.key, done(held, result, 1), result.ttl_us, time.monotonic())
        return super().complete(held, result)


@pytest.mark.parametrize("broken", [NoTombstoneInTheCache, TellsTheCacheFirst])
def test_a_cache_with_one_rule_left_out_is_caught(
    broken: type[CachedStore], stack: ExitStack, database_url: str, redis_url: str
) -> None:
    system = cached_system(stack, database_url, redis_url)
    for store in system.stores:
        store.__class__ = broken
    with pytest.raises(AssertionError):
        check(system, 100, shrink=False)
