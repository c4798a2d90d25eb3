"""What a store must do, and the algorithm that all stores share.

A store owns the records of one authority. Each change is one conditional write, and its report is
looked at: `claim` inserts, or judges the record it met and swaps exactly that record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from .errors import StoreUnavailable
from .record import (
    NO_WAITERS,
    RETENTION_US,
    TOMBSTONE_US,
    Answer,
    Claim,
    Completion,
    Outcome,
    Record,
    State,
    is_gone,
    judge,
    record_of,
)

ATTEMPTS: Final = 20


class Found(NamedTuple):
    """A record as it was read. `version` lets a swap fail when the record has changed since."""

    record: Record
    now_us: int
    version: object = None


class Held(NamedTuple):
    """A key held by a claim: what every later write names."""

    claim: Claim
    fence: int
    created_us: int

    @property
    def key(self) -> str:
        return self.claim.key


class Result(NamedTuple):
    """An encoded result. `data` None: the work is done, its result is not kept."""

    ttl_us: int
    data: bytes | None = None
    content_type: str = ""


class Store(Protocol):
    """Where records live. Every method may raise StoreUnavailable; nothing was decided then,
    or the reply was lost, and calling again with the same owner is safe."""

    name: str

    def claim(self, claim: Claim) -> Answer:
        """Claim a key in one atomic step. Never answers `unavailable`: it raises."""

    def complete(self, held: Held, result: Result) -> Completion:
        """RUNNING -> DONE. An absent record is written again, unless it was forgotten."""

    def park(self, held: Held, *, fingerprint: str, open_after_us: int) -> bool:
        """RUNNING -> WAITING for the next attempt; False if the claim is stale."""

    def release(self, held: Held) -> bool:
        """RUNNING -> absent; False if the claim is stale."""

    def abandon(self, key: str, owner: str) -> bool:
        """Release whatever `owner` holds of `key`: for a claim whose reply never came."""

    def renew(self, held: Sequence[Held]) -> set[str]:
        """Extend the leases in one batch; returns the owners that still hold theirs."""

    def find(self, key: str) -> Found | None:
        """The record of `key`, as it stands."""

    def finished(self, key: str) -> Record | None:
        """The DONE record of `key`, unless it has expired."""

    def forget(self, key: str) -> Record | None:
        """Replace the record with a tombstone; returns what was there."""

    def put_done(self, held: Held, result: Result) -> bool:
        """Store a result without a claim, never over a live record; False if there is one."""

    def wait_released(self, key: str, timeout_seconds: float) -> None:
        """Return when `key` may have been released, or after the timeout; never spins."""

    def ping(self) -> None:
        """Raise StoreUnavailable unless the store answers."""

    def poisoned(self) -> Iterable[str]:
        """The keys that wait for an operator."""

    def close(self) -> None:
        """Give back all connections."""


class SwapStore(Store, Protocol):
    """The shared algorithm, over two atomic primitives."""

    def _insert(self, claim: Claim) -> int | Found | None:
        """The fence if the key was absent and is ours now, else the record met.

        None: somebody else's change was in the way; ask again.
        """

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        """Replace the record, if it still is the one found."""

    def claim(self, claim: Claim) -> Answer:
        for _ in range(ATTEMPTS):
            met = self._insert(claim)
            if isinstance(met, int):
                return Answer(Outcome.GRANTED, met)
            if met is None:
                continue
            verdict = judge(met.record, claim, met.now_us)
            if verdict.write is None or self._swap(claim.key, met, verdict.write):
                return verdict.answer
            claim = unsure(claim)
        raise StoreUnavailable(self.name, f"{claim.key} changed {ATTEMPTS} times while it was read")

    def finished(self, key: str) -> Record | None:
        found = self.find(key)
        if found is None or is_gone(found.record, found.now_us):
            return None
        return found.record if found.record.state is State.DONE else None

    def forget(self, key: str) -> Record | None:
        seen: Record | None = None
        for _ in range(ATTEMPTS):
            found = self.find(key)
            if found is None:
                return None
            if found.record.state is State.FORGOTTEN:
                return seen  # by us, and the reply was lost
            if self._swap(key, found, tombstone(found.record, found.now_us)):
                return found.record
            seen = found.record
        raise StoreUnavailable(self.name, f"{key} changed {ATTEMPTS} times while it was read")


def unsure(claim: Claim) -> Claim:
    """A claim whose swap was refused: it may be its own note, whose reply was lost, that it meets.

    A copy too many beats a lost message.
    """
    wait = claim.wait
    return claim if wait is None else claim._replace(wait=wait._replace(redelivered=True))


def tombstone(record: Record, now_us: int) -> Record:
    """What `forget` leaves, so that a late writer cannot bring the record back.

    Whoever holds the key may work on for hours, and must not find nothing when it ends.
    """
    kept = TOMBSTONE_US if record.state is State.DONE else RETENTION_US
    return record._replace(
        state=State.FORGOTTEN,
        owner="-",
        due_us=now_us + kept,
        fingerprint="",
        waiters=NO_WAITERS,
        result_type="",
        result=None,
    )


def unclaimed(held: Held, found: Found | None, now_us: int) -> Held:
    """A result without a claim, dated, and with a fence above that of the record it replaces."""
    fence = now_us if found is None else max(found.record.fence + 1, now_us)
    return held._replace(fence=fence, created_us=now_us)


def done(held: Held, result: Result, now_us: int) -> Record:
    """The DONE record of a completed claim."""
    return record_of(
        held.claim,
        State.DONE,
        fence=held.fence,
        due_us=now_us + result.ttl_us,
        created_us=held.created_us,
        result_type=result.content_type,
        result=result.data,
    )


def waiting(held: Held, *, fingerprint: str, due_us: int) -> Record:
    """The WAITING record of a claim that retries: open to the next attempt of its task id."""
    following = held.claim._replace(attempt=held.claim.attempt + 1, fingerprint=fingerprint)
    return record_of(
        following, State.WAITING, fence=held.fence, due_us=due_us, created_us=held.created_us
    )
