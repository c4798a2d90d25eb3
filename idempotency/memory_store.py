"""A store in this process's memory: for a user's own unit tests, and as the model of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Condition

from .record import RETENTION_US, Claim, Completion, Record, State, is_gone, running
from .store import Found, Held, Result, SwapStore, done, unclaimed, waiting


def wall_clock_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class MemoryStore(SwapStore):
    """Records in a dict under one lock. `clock` returns microseconds."""

    name = "memory"

    def __init__(self, clock: Callable[[], int] = wall_clock_us) -> None:
        self._records: dict[str, Record] = {}
        self._changed = Condition()
        self._clock = clock

    def _insert(self, claim: Claim) -> int | Found | None:
        with self._changed:
            now = self._clock()
            record = self._live(claim.key, now)
            if record is not None:
                return Found(record, now, record)
            self._records[claim.key] = running(claim, fence=now, now_us=now, created_us=now)
            return now

    def _live(self, key: str, now_us: int) -> Record | None:
        record = self._records.get(key)
        kept = 0 if record and record.state in (State.DONE, State.FORGOTTEN) else RETENTION_US
        if record and record.due_us + kept <= now_us and record.state is not State.POISONED:
            del self._records[key]
            return None
        return record

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        with self._changed:
            if self._records.get(key) is not found.version:
                return False
            self._records[key] = new
            return True

    def _owned(self, held: Held) -> Record | None:
        record = self._records.get(held.key)
        if record and (record.owner, record.fence) == (held.claim.owner, held.fence):
            return record
        return None

    def complete(self, held: Held, result: Result) -> Completion:
        with self._changed:
            now = self._clock()
            met = self._live(held.key, now)
            if met is not None and self._owned(held) is None:
                forgotten = met.state is State.FORGOTTEN
                return Completion.FORGOTTEN if forgotten else Completion.STALE
            self._records[held.key] = done(held, result, now)
            self._changed.notify_all()
            return Completion.STORED

    def park(self, held: Held, *, fingerprint: str, open_after_us: int) -> bool:
        with self._changed:
            now = self._clock()
            if self._live(held.key, now) is not None and not _is_open(self._owned(held)):
                return False
            due = now + open_after_us
            self._records[held.key] = waiting(held, fingerprint=fingerprint, due_us=due)
            return True

    def release(self, held: Held) -> bool:
        with self._changed:
            if self._live(held.key, self._clock()) is None:
                return True
            if not _is_open(self._owned(held)):
                return False
            del self._records[held.key]
            self._changed.notify_all()
            return True

    def abandon(self, key: str, owner: str) -> bool:
        with self._changed:
            record = self._records.get(key)
            if record is None:
                return True
            if record.owner != owner or not _is_open(record):
                return False
            del self._records[key]
            self._changed.notify_all()
            return True

    def renew(self, held: Sequence[Held]) -> set[str]:
        with self._changed:
            return {one.claim.owner for one in held if self._renew(one)}

    def _renew(self, held: Held) -> bool:
        record = self._owned(held)
        if record is None or record.state is not State.RUNNING:
            return False
        due = self._clock() + held.claim.lease_us
        self._records[held.key] = record._replace(due_us=due)
        return True

    def find(self, key: str) -> Found | None:
        with self._changed:
            now = self._clock()
            record = self._live(key, now)
            return None if record is None else Found(record, now, record)

    def put_done(self, held: Held, result: Result) -> bool:
        with self._changed:
            now = self._clock()
            met = self._live(held.key, now)
            if met is not None and not is_gone(met, now):
                return False
            own = unclaimed(held, None if met is None else Found(met, now), now)
            self._records[held.key] = done(own, result, now)
            return True

    def wait_released(self, key: str, timeout_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._live(key, self._clock()) is None, timeout_seconds)

    def ping(self) -> None:
        """Memory always answers."""

    def poisoned(self) -> Iterable[str]:
        with self._changed:
            return [k for k, r in self._records.items() if r.state is State.POISONED]

    def clear(self) -> None:
        """Forget everything, tombstones too."""
        with self._changed:
            self._records.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing to give back: the records stay."""


def _is_open(record: Record | None) -> bool:
    """Whether its owner may still give it back: not finished, not poisoned."""
    return record is not None and record.state in (State.RUNNING, State.WAITING)
