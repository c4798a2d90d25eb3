"""A store under on_running="keep_last": what is known of the messages of a key stays in its record.

Every step reads the record and swaps exactly that one, so the steps of plain tasks stay as they
are. Redis as a cache of PostgreSQL is not asked: a finished record turns one message away only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .errors import StoreUnavailable
from .record import Answer, Claim, Completion, Outcome, Record, State
from .store import ATTEMPTS, Found, Held, Result, Store, SwapStore, done, unsure, waiting
from .succession import judge_last, past, since_of

_OPEN: Final = (State.RUNNING, State.WAITING)


class KeepLastStore(Store):
    """The store `inner`, for tasks that keep the last."""

    def __init__(self, inner: SwapStore) -> None:
        self.inner = inner
        self.name = inner.name

    def claim(self, claim: Claim) -> Answer:
        inner = self.inner
        for _ in range(ATTEMPTS):
            met = inner._insert(claim)
            if isinstance(met, int):
                self._place(claim, met)
                return Answer(Outcome.GRANTED, met)
            if met is None:
                continue
            verdict = judge_last(met.record, claim, met.now_us)
            if verdict.write is None or inner._swap(claim.key, met, verdict.write):
                return verdict.answer
            claim = unsure(claim)
        raise self._changing(claim.key)

    def _place(self, claim: Claim, fence: int) -> None:
        """A copy that waited, and found no record: those that came before it stay before it."""
        since = since_of(claim.wait.presented) if claim.wait else None
        if since is None:
            return

        def place(found: Found) -> Record:
            placed = {**found.record.waiters, claim.task_id: past(since)}
            return found.record._replace(waiters=placed)

        self._change(Held(claim=claim, fence=fence, created_us=fence), place)

    def _changing(self, key: str) -> StoreUnavailable:
        return StoreUnavailable(self.name, f"{key} changed {ATTEMPTS} times while it was read")

    def _change(self, held: Held, change: Callable[[Found], Record | None]) -> Found | None:
        """Swap what the holder has for what `change` makes of it; None if there is no record.

        `change` answers None where nothing is to be written. Returns what was found last.
        """
        for _ in range(ATTEMPTS):
            found = self.inner.find(held.key)
            if found is None:
                return None
            new = change(found) if _owns(held, found.record) else None
            if new is None or self.inner._swap(held.key, found, new):
                return found
        raise self._changing(held.key)

    def complete(self, held: Held, result: Result) -> Completion:
        def finish(found: Found) -> Record | None:
            if found.record.state not in _OPEN:
                return None  # finished: the reply was lost
            return done(held, result, found.now_us)._replace(waiters=found.record.waiters)

        found = self._change(held, finish)
        if found is None:
            return self.inner.complete(held, result)
        if _owns(held, found.record) and found.record.state in (*_OPEN, State.DONE):
            return Completion.STORED
        forgotten = found.record.state is State.FORGOTTEN
        return Completion.FORGOTTEN if forgotten else Completion.STALE

    def park(self, held: Held, *, fingerprint: str, open_after_us: int) -> bool:
        def wait(found: Found) -> Record | None:
            if found.record.state not in _OPEN:
                return None
            following = waiting(held, fingerprint=fingerprint, due_us=found.now_us + open_after_us)
            return following._replace(waiters=found.record.waiters)

        found = self._change(held, wait)
        if found is None:
            return self.inner.park(held, fingerprint=fingerprint, open_after_us=open_after_us)
        return _owns(held, found.record) and found.record.state in _OPEN

    def release(self, held: Held) -> bool:
        found = self._change(held, _opened)
        if found is None:
            return True
        if not _owns(held, found.record) or found.record.state not in _OPEN:
            return False
        if not found.record.waiters:  # only now: nobody is noted any more in what is open to all
            self.inner.release(held)
        return True

    def abandon(self, key: str, owner: str) -> bool:
        found = self.inner.find(key)
        if found is None or found.record.owner != owner:
            return self.inner.abandon(key, owner)
        claim = Claim(key=key, owner=owner, authority=found.record.authority)
        return self.release(Held(claim=claim, fence=found.record.fence, created_us=0))

    def renew(self, held: Sequence[Held]) -> set[str]:
        return self.inner.renew(held)

    def find(self, key: str) -> Found | None:
        return self.inner.find(key)

    def finished(self, key: str) -> Record | None:
        return self.inner.finished(key)

    def forget(self, key: str) -> Record | None:
        return self.inner.forget(key)

    def put_done(self, held: Held, result: Result) -> bool:
        return self.inner.put_done(held, result)

    def wait_released(self, key: str, timeout_seconds: float) -> None:
        self.inner.wait_released(key, timeout_seconds)

    def ping(self) -> None:
        self.inner.ping()

    def poisoned(self) -> Iterable[str]:
        return self.inner.poisoned()

    def close(self) -> None:
        """The inner store has the connections, and whoever made it closes it."""


def _owns(held: Held, record: Record) -> bool:
    return (record.owner, record.fence) == (held.claim.owner, held.fence)


def _opened(found: Found) -> Record | None:
    """Given back, open to all, with what is known of other messages."""
    record = found.record
    if record.state not in _OPEN:
        return None
    return record._replace(state=State.WAITING, due_us=found.now_us, crashes=0)
