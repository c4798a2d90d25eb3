"""Stores as the tests of the core use them: short ways to claim, hold and lose a record."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import redis
from idemwatch.idempotency.cached_store import CachedStore, DoneCache
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.postgres_store import PostgresStore
from idemwatch.idempotency.record import SECOND, Answer, Claim, Completion, Record
from idemwatch.idempotency.redis_link import CACHE_TIMEOUT_SECONDS, RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.store import Held, Result, SwapStore

DEADLINE_SECONDS = 30.0
NAMESPACE = "test"
KEY = "work:1"
HOUR_US = 3600 * SECOND
ENDED_US = 1
"""A lease that has run out when the next statement comes."""

_owners = itertools.count(1)


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Ask until it holds, for no longer than the deadline."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not hold in {seconds} s"
        pause.wait(0.005)


def result(data: bytes | None = b'{"b":1,"a":2}', ttl_us: int = HOUR_US) -> Result:
    """A JSON result."""
    return Result(data=data, content_type="application/json" if data else "", ttl_us=ttl_us)


@dataclass
class Subject:
    """A store under test. `lose` removes a record as eviction or a flush would."""

    store: SwapStore
    authority: str
    lose: Callable[[str], object]

    def claim(self, key: str = KEY, **changed: Any) -> Claim:
        """A claim by a new owner."""
        given = {"owner": f"owner{next(_owners)}", "authority": self.authority, **changed}
        return Claim(key=key, **given)

    def ask(self, key: str = KEY, **changed: Any) -> Answer:
        """The answer to a claim by a new owner."""
        return self.store.claim(self.claim(key, **changed))

    def hold(self, key: str = KEY, **changed: Any) -> Held:
        """A key held by a new owner."""
        return self.held(self.claim(key, **changed))

    def held(self, claim: Claim) -> Held:
        """What a claim that must be granted holds."""
        answer = self.store.claim(claim)
        assert answer.granted, answer
        created = answer.fence if answer.record is None else answer.record.created_us
        return Held(claim=claim, fence=answer.fence, created_us=created)

    def finish(self, key: str = KEY, data: bytes | None = b"1", **changed: Any) -> Held:
        """A key that was held, and is finished."""
        held = self.hold(key, **changed)
        assert self.store.complete(held, result(data)) == "stored"
        return held

    def record(self, key: str = KEY) -> Record:
        """The record of a key, which must be there."""
        found = self.store.find(key)
        assert found is not None
        return found.record

    def poison(self, key: str = KEY) -> Record:
        """A key whose only holder died, once too often."""
        self.hold(key, lease_us=ENDED_US)
        self.hold(key, lease_us=ENDED_US)
        assert self.ask(key, max_crashes=1).outcome == "poisoned"
        return self.record(key)


def memory_subject(stack: ExitStack) -> Subject:
    """The store that is a dict."""
    store = MemoryStore()
    return Subject(store, "postgres", lambda key: store._records.pop(key, None))


def redis_subject(stack: ExitStack, url: str) -> Subject:
    """The store of authority redis, over a server."""
    store = RedisStore(RedisLink.from_url(url), NAMESPACE)
    stack.callback(store.close)
    return Subject(store, "redis", lambda key: delete_in_redis(url, store.redis_key(key)))


def several_subject(stack: ExitStack, url: str, namespace: str) -> Subject:
    """The same over Sentinels or a Cluster, which other tests use too."""
    link = RedisLink.from_url(url)
    store = RedisStore(link, namespace)
    stack.callback(store.close)
    return Subject(store, "redis", lambda key: link.call("DEL", store.redis_key(key)))


def postgres_subject(stack: ExitStack, url: str, namespace: str = NAMESPACE) -> Subject:
    """The store of authority postgres, without a cache."""
    store = PostgresStore(PostgresLink(url), namespace, "here")
    stack.callback(store.close)
    return Subject(store, "postgres", lambda key: delete_in_postgres(url, store.row_key(key)))


def cached_subject(
    stack: ExitStack, database_url: str, redis_url: str, namespace: str = NAMESPACE
) -> Subject:
    """The store of authority postgres, with Redis before it."""
    link = RedisLink.from_url(redis_url, timeout_seconds=CACHE_TIMEOUT_SECONDS)
    cache = DoneCache(link, namespace)
    store = CachedStore(PostgresLink(database_url), namespace, "here", cache=cache)
    stack.callback(store.close)

    def lose(key: str) -> None:
        delete_in_redis(redis_url, f"{namespace}:{{{key}}}")
        delete_in_postgres(database_url, store.row_key(key))

    return Subject(store, "postgres", lose)


def delete_in_redis(url: str, name: str) -> None:
    """Take a key away behind the store's back."""
    with redis.Redis.from_url(url) as client:
        client.delete(name)


def delete_in_postgres(url: str, row_key: str) -> None:
    """Take a row away behind the store's back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM idempotency_record WHERE key = %s", (row_key,))


LATE_STEPS: dict[str, Callable[[Subject, Held], object]] = {
    "complete": lambda s, held: s.store.complete(held, result(b"late")) is Completion.STORED,
    "park": lambda s, held: s.store.park(held, fingerprint="late", open_after_us=HOUR_US),
    "release": lambda s, held: s.store.release(held),
    "abandon": lambda s, held: s.store.abandon(held.key, held.claim.owner),
    "renew": lambda s, held: bool(s.store.renew([held])),
}
late_step = pytest.mark.parametrize("step", LATE_STEPS.values(), ids=LATE_STEPS)
