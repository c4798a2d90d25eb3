"""The record of a key and its state machine: pure decisions on plain values.

Every store asks `judge` what a claim that meets a record may do, and then makes the change with one
conditional write that fails if the record is no longer the one judged.

    absent  -> RUNNING                  the first claim
    RUNNING -> DONE                     complete: the result is replayed until it expires
    RUNNING -> WAITING                  park: the task retries; open to its next attempt, then (that
                                        is overdue) to its task id, then to all
    RUNNING -> absent                   release: failed, ignored or replaced
    RUNNING -> RUNNING, crashes + 1     the lease ran out and another takes over
    RUNNING -> POISONED                 ... once too often; until an operator forgets it
    any     -> FORGOTTEN -> absent      forget: a tombstone against late writers

Times are microseconds since the epoch by the store's own clock. Values are named tuples: a frozen
dataclass takes two microseconds more to build, which a claim would pay several times.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from .errors import AuthorityMismatch

SECOND: Final = 1_000_000
RETENTION_US: Final = 24 * 3600 * SECOND
"""How far a RUNNING or WAITING record outlives its lease, so that a take-over is seen as one."""
TOMBSTONE_US: Final = 600 * SECOND
RETRY_GRACE_US: Final = 900 * SECOND
"""How long after its time a next attempt may come before the key opens to all."""
MAX_WAITERS: Final = 64


class State(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    POISONED = "poisoned"
    FORGOTTEN = "forgotten"


class Outcome(StrEnum):
    """What a check answered. The values are the label `outcome` of idemwatch_claims_total."""

    GRANTED = "granted"
    TAKEN_OVER = "taken_over"
    DUPLICATE = "duplicate"
    RUNNING = "running"
    MISMATCH = "mismatch"
    POISONED = "poisoned"
    UNAVAILABLE = "unavailable"
    BYPASSED = "bypassed"


class Completion(StrEnum):
    """What became of a result."""

    STORED = "stored"
    STALE = "stale"
    FORGOTTEN = "forgotten"
    DEFERRED = "deferred"
    """The store did not answer for the length of a lease: it is tried in the background."""


class Waiter(NamedTuple):
    """The one waiting copy of a task id: its token and when it is due."""

    token: str
    due_us: int


NO_WAITERS: Final[Mapping[str, Waiter]] = MappingProxyType({})


class Record(NamedTuple):
    """What a store holds of a key.

    `due_us` is the end of the lease (RUNNING), the time it opens to all (WAITING), the time it
    expires (DONE, FORGOTTEN), 0 (POISONED).
    """

    state: State
    owner: str
    fence: int
    due_us: int
    created_us: int
    attempt: int
    crashes: int
    authority: str
    fingerprint: str
    task_id: str
    endpoint: str
    scope: str
    user_id: str | None = None
    device_id: str | None = None
    waiters: Mapping[str, Waiter] = NO_WAITERS
    result_type: str = ""
    result: bytes | None = None


class Wait(NamedTuple):
    """A turned-away message that would be published again.

    `presented` is the token it carries, `token` that of its next copy: the same for each delivery
    of one message. `redelivered`: the delivery before may have died before it published.
    """

    token: str
    presented: str = ""
    redelivered: bool = False
    max_delay_us: int = 10 * SECOND


class Claim(NamedTuple):
    """A request for a key. `owner` is random per execution: the same owner is granted again."""

    key: str
    owner: str
    authority: str
    fingerprint: str = ""
    task_id: str = ""
    attempt: int = 0
    endpoint: str = "service"
    scope: str = "global"
    user_id: str | None = None
    device_id: str | None = None
    lease_us: int = 30 * SECOND
    max_crashes: int = 3
    wait: Wait | None = None
    grace_us: int = RETRY_GRACE_US


class Answer(NamedTuple):
    """The answer to a claim.

    `fence` and `record` belong to a granted claim or to the record met; `left_us` is the time until
    a `running` key may be free or a `duplicate` one expires; `delay_us` is set when this message
    shall wait that long and be published again, None when another copy of it waits already.
    `superseded`: a newer message has taken its place, see succession.py.
    """

    outcome: Outcome
    fence: int = 0
    record: Record | None = None
    left_us: int = 0
    delay_us: int | None = None
    superseded: bool = False

    @property
    def granted(self) -> bool:
        """Whether the work may be done now."""
        return self.outcome in _GRANTED


_GRANTED: Final = frozenset((Outcome.GRANTED, Outcome.TAKEN_OVER))


class Verdict(NamedTuple):
    """What `judge` decided: the answer, and the record to write first, if any."""

    answer: Answer
    write: Record | None = None


def running(claim: Claim, *, fence: int, now_us: int, created_us: int, crashes: int = 0) -> Record:
    """The RUNNING record of a granted claim."""
    due = now_us + claim.lease_us
    return record_of(
        claim, State.RUNNING, fence=fence, due_us=due, created_us=created_us, crashes=crashes
    )


def record_of(
    claim: Claim,
    state: State,
    *,
    fence: int,
    due_us: int,
    created_us: int,
    crashes: int = 0,
    result_type: str = "",
    result: bytes | None = None,
) -> Record:
    """The record of `claim` in a state."""
    return Record(
        state=state,
        owner=claim.owner,
        fence=fence,
        due_us=due_us,
        created_us=created_us,
        attempt=claim.attempt,
        crashes=crashes,
        authority=claim.authority,
        fingerprint=claim.fingerprint,
        task_id=claim.task_id,
        endpoint=claim.endpoint,
        scope=claim.scope,
        user_id=claim.user_id,
        device_id=claim.device_id,
        result_type=result_type,
        result=result,
    )


def is_gone(record: Record, now_us: int) -> bool:
    """Whether the record counts as absent: forgotten, or its result has expired."""
    if record.state is State.FORGOTTEN:
        return True
    return record.state is State.DONE and record.due_us <= now_us


def judge(record: Record, claim: Claim, now_us: int) -> Verdict:
    """What `claim` may do with a key that has `record`.

    Raises AuthorityMismatch when another authority decides about the key.
    """
    if is_gone(record, now_us):
        return _grant(record, claim, now_us)
    if record.authority != claim.authority:
        raise AuthorityMismatch(claim.key)
    if record.fingerprint != claim.fingerprint and record.owner != claim.owner:
        return Verdict(Answer(Outcome.MISMATCH, record=record))
    if record.state is State.DONE:
        left = record.due_us - now_us
        return Verdict(Answer(Outcome.DUPLICATE, record.fence, record, left))
    if record.state is State.POISONED:
        return Verdict(Answer(Outcome.POISONED, record=record))
    if record.state is State.WAITING:
        return _judge_waiting(record, claim, now_us)
    return _judge_running(record, claim, now_us)


def _judge_running(record: Record, claim: Claim, now_us: int) -> Verdict:
    if record.owner == claim.owner:
        return granted_again(record, claim, now_us)
    if record.due_us > now_us:
        return _turn_away(record, claim, now_us)
    if record.crashes + 1 > claim.max_crashes:
        poisoned = record._replace(state=State.POISONED, due_us=0, waiters=NO_WAITERS)
        return Verdict(Answer(Outcome.POISONED, record=poisoned), poisoned)
    return _grant(record, claim, now_us, Outcome.TAKEN_OVER, record.crashes + 1)


def granted_again(record: Record, claim: Claim, now_us: int) -> Verdict:
    """The answer whose reply was lost: a take-over is told, and counted, as one."""
    again = record._replace(due_us=now_us + claim.lease_us)
    outcome = Outcome.TAKEN_OVER if record.crashes else Outcome.GRANTED
    return Verdict(Answer(outcome, record.fence, again), again)


def _judge_waiting(record: Record, claim: Claim, now_us: int) -> Verdict:
    if record.due_us <= now_us or is_next_attempt(record, claim, now_us):
        return _grant(record, claim, now_us)
    return _turn_away(record, claim, now_us)


def is_next_attempt(record: Record, claim: Claim, now_us: int) -> bool:
    """Whether a claim is the one that a WAITING record is kept for.

    Also an attempt before it, once the retry is overdue by a lease: who kept the key died before
    it published. Should the retry come after all, it meets what this attempt does.
    """
    if claim.task_id != record.task_id:
        return False
    overdue = now_us >= record.due_us - claim.grace_us + claim.lease_us
    return overdue or claim.attempt >= record.attempt


def _grant(
    record: Record,
    claim: Claim,
    now_us: int,
    outcome: Outcome = Outcome.GRANTED,
    crashes: int = 0,
) -> Verdict:
    fence = max(record.fence + 1, now_us)
    created = now_us if is_gone(record, now_us) else record.created_us
    held = running(claim, fence=fence, now_us=now_us, created_us=created, crashes=crashes)
    return Verdict(Answer(outcome, fence, held), held)


def _may_publish(known: Waiter, wait: Wait) -> bool:
    """Whether the copy that the record remembers is this message, or one that it never sent.

    A surplus copy, of a delivery that did publish, presents an old token at its next turn.
    """
    if known.token == wait.presented:
        return True
    # A task that kept the last until now has noted its place in the row, too.
    return wait.redelivered and known.token.partition("@")[0] == wait.token


def _turn_away(record: Record, claim: Claim, now_us: int) -> Verdict:
    """`running`; and at most one copy of a task id waits, which the record remembers."""
    left = record.due_us - now_us
    wait = claim.wait
    if wait is None:
        return Verdict(Answer(Outcome.RUNNING, record.fence, record, left))
    known = record.waiters.get(claim.task_id)
    if known is not None and known.due_us > now_us and not _may_publish(known, wait):
        return Verdict(Answer(Outcome.RUNNING, record.fence, record, left))
    delay = min(left, wait.max_delay_us)
    answer = Answer(Outcome.RUNNING, record.fence, record, left, delay)
    waiters = {tid: w for tid, w in record.waiters.items() if w.due_us > now_us}
    waiters[claim.task_id] = Waiter(wait.token, now_us + delay)
    if len(waiters) > MAX_WAITERS:  # no room to remember it: a copy too many beats a lost message
        return Verdict(answer)
    return Verdict(answer, record._replace(waiters=waiters))
