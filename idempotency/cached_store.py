"""Authority `postgres` with Redis before it: Redis only answers what PostgreSQL has finished.

PostgreSQL decides every claim. A DONE record is put into Redis after its COMMIT has returned, so a
storm of duplicates never reaches PostgreSQL; with Redis away everything goes on, only slower.
"""

from __future__ import annotations

import time
from typing import Any, Final

from . import metrics
from .errors import AuthorityMismatch, StoreLeftOut, StoreUnavailable, UnreadableRecord
from .memory_store import wall_clock_us
from .postgres_store import PostgresStore
from .record import SECOND, TOMBSTONE_US, Answer, Claim, Completion, Outcome, Record, State
from .redis_link import RedisLink
from .store import Held, Result, done, tombstone
from .wire import decode, encode

LATEST_PUT_US: Final = 60 * SECOND
"""A writer that was frozen for longer puts nothing: a tombstone may have passed meanwhile."""


class DoneCache:
    """Finished records in Redis, behind its link's circuit breaker. Losing it costs only speed."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._head = f"{namespace}:{{"

    def get(self, key: str) -> Record | None:
        """The finished record of `key`, if Redis has it and answers."""
        try:
            return self.find(key)
        except UnreadableRecord:
            metrics.cache_skips("refused").inc()
            metrics.store_errors("redis", "check").inc()
        except StoreUnavailable as error:
            metrics.cache_skips("away").inc()
            _count(error, "check")
        return None

    def find(self, key: str) -> Record | None:
        """The same, for one who must know. Raises StoreUnavailable and UnreadableRecord."""
        raw = self._link.call("GET", self._head + key + "}")
        return None if raw is None else decode(raw, "redis", key)

    def put(self, key: str, record: Record, keep_us: int) -> None:
        """Keep a DONE record, never over another or over a tombstone."""
        if keep_us < 1000:
            return
        try:
            name = self._head + key + "}"
            self._link.call("SET", name, encode(record), "NX", "PX", keep_us // 1000)
        except StoreUnavailable as error:
            _count(error, "complete")

    def bury(self, key: str, stone: Record) -> None:
        """Put a tombstone. Raises StoreUnavailable: what may still answer is not forgotten."""
        self._link.call("SET", self._head + key + "}", encode(stone), "PX", TOMBSTONE_US // 1000)

    def remove(self, key: str) -> None:
        """Delete what stands there. Raises StoreUnavailable."""
        self._link.call("DEL", self._head + key + "}")

    def close(self) -> None:
        """Give back all connections."""
        self._link.close()


def _count(error: StoreUnavailable, operation: str) -> None:
    """Count a failure; a call that an open breaker kept back is none."""
    if not isinstance(error, StoreLeftOut):
        metrics.store_errors("redis", operation).inc()


class CachedStore(PostgresStore):
    """PostgreSQL, asked only about keys that Redis does not know to be finished."""

    def __init__(self, *args: Any, cache: DoneCache, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cache = cache

    def claim(self, claim: Claim) -> Answer:
        record = self.cache.get(claim.key)
        if record is not None and record.state is not State.FORGOTTEN:
            if record.authority != claim.authority:
                raise AuthorityMismatch(claim.key)
            if record.state is State.DONE:
                same = record.fingerprint == claim.fingerprint
                outcome = Outcome.DUPLICATE if same else Outcome.MISMATCH
                return Answer(outcome, record.fence, record)
        began = time.monotonic()
        answer = super().claim(claim)
        if answer.outcome is Outcome.DUPLICATE and answer.record is not None:
            self._put(claim.key, answer.record, answer.left_us, began)  # Redis had lost it
        return answer

    def complete(self, held: Held, result: Result) -> Completion:
        began = time.monotonic()
        completion = super().complete(held, result)
        if completion is Completion.STORED:
            record = done(held, result, wall_clock_us())  # told to people; Redis keeps the time
            self._put(held.key, record, result.ttl_us, began)
        return completion

    def _put(self, key: str, record: Record, left_us: int, began: float) -> None:
        spent_us = int((time.monotonic() - began) * SECOND)
        if spent_us < LATEST_PUT_US:
            self.cache.put(key, record, left_us - spent_us)

    def finished(self, key: str) -> Record | None:
        record = self.cache.get(key)
        if record is not None and record.state is State.DONE:
            return record
        return super().finished(key)

    def forget(self, key: str) -> Record | None:
        found = self.find(key)
        gone = found is None or found.record.state is State.FORGOTTEN
        record = self._only_cached(key) if gone or found is None else found.record
        if record is None or record.state is State.FORGOTTEN:
            return None
        self.cache.bury(key, tombstone(record, wall_clock_us()))
        return super().forget(key) or record  # PostgreSQL may have lost what Redis still had

    def _only_cached(self, key: str) -> Record | None:
        try:
            return self.cache.find(key)
        except UnreadableRecord:  # it has no writer that could come late
            self.cache.remove(key)
            return None

    def close(self) -> None:
        self.cache.close()
        super().close()
