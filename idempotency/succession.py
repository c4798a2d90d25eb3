"""on_running="keep_last": one runs, one waits to succeed it, the newest. Pure decisions.

Each message of a key is work of its own, unless a newer one takes its place while it waits. Which
is newer, the store says: a message that is met for the first time is newer than all before it. Its
`since` is remembered twice, in the record and in the header of the copy that waits, so that a copy
keeps its place whatever became of the record. Invariant: a message is superseded only by one that
the record knows as newer, whose own delivery is not acknowledged before its copy is published.

The record's waiters hold, by task id, `token@since` of the copy that waits, `@since` of an id that
waits no more, since it runs, has died or was superseded, and `done@since` of one that is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import AuthorityMismatch
from .record import (
    MAX_WAITERS,
    NO_WAITERS,
    Answer,
    Claim,
    Outcome,
    Record,
    State,
    Verdict,
    Wait,
    Waiter,
    granted_again,
    is_gone,
    is_next_attempt,
    running,
)

_SEPARATOR: Final = "@"
_DONE: Final = "done"


def since_of(token: str) -> int | None:
    """When the message with this token was met first: 0 for one that began at once.

    None for a token that says nothing of it, as a plain task's.
    """
    _, separator, since = token.rpartition(_SEPARATOR)
    known = separator and since.isdecimal() and len(since) < 20  # a header may hold any text
    return int(since) if known else None


def judge_last(record: Record, claim: Claim, now_us: int) -> Verdict:
    """What `claim` may do with a key that has `record`; as `judge`, but the newest is kept.

    Arguments may differ: those of the newest are the point. Raises AuthorityMismatch.
    """
    if is_gone(record, now_us):
        return _grant(record._replace(waiters=NO_WAITERS), claim, now_us, Outcome.GRANTED)
    if record.authority != claim.authority:
        raise AuthorityMismatch(claim.key)
    if record.state is State.POISONED:
        return Verdict(Answer(Outcome.POISONED, record=record))
    if record.state is State.RUNNING and record.owner == claim.owner:
        return granted_again(record, claim, now_us)
    holder = record.task_id == claim.task_id
    if not holder and _since(record, claim, now_us) < _newest(record):
        return _superseded(record, claim)
    if record.state is State.DONE:
        return _judge_done(record, claim, now_us, holder=holder)
    retries = record.state is State.WAITING and is_next_attempt(record, claim, now_us)
    if record.due_us > now_us and not retries:
        return _turn_away(record, claim, now_us)
    if record.state is State.WAITING:
        return _grant(record, claim, now_us, Outcome.GRANTED)
    return _take_over(record, claim, now_us)


def _superseded(record: Record, claim: Claim) -> Verdict:
    """`running`; or `duplicate` of work whose result was given up for that of newer work."""
    known = record.waiters.get(claim.task_id)
    done = known is not None and known.token.startswith(f"{_DONE}{_SEPARATOR}")
    outcome = Outcome.DUPLICATE if done else Outcome.RUNNING
    return Verdict(Answer(outcome, record.fence, record, superseded=True))


def _judge_done(record: Record, claim: Claim, now_us: int, *, holder: bool) -> Verdict:
    """The very message that is finished is a duplicate; any other is new work."""
    if holder:
        left = record.due_us - now_us
        return Verdict(Answer(Outcome.DUPLICATE, record.fence, record, left))
    return _grant(record, claim, now_us, Outcome.GRANTED)


def _take_over(record: Record, claim: Claim, now_us: int) -> Verdict:
    if record.crashes + 1 > claim.max_crashes:
        poisoned = record._replace(state=State.POISONED, due_us=0, waiters=NO_WAITERS)
        return Verdict(Answer(Outcome.POISONED, record=poisoned), poisoned)
    return _grant(record, claim, now_us, Outcome.TAKEN_OVER, record.crashes + 1)


def _newest(record: Record) -> int:
    return max(map(_since_of, record.waiters.values()), default=0)


def _since_of(waiter: Waiter) -> int:
    return since_of(waiter.token) or 0


def _since(record: Record, claim: Claim, now_us: int) -> int:
    """When this message was met first: now, unless the record or its own header knows it."""
    known = record.waiters.get(claim.task_id)
    tokens = (known.token if known else "", claim.wait.presented if claim.wait else "")
    for since in map(since_of, tokens):
        if since is not None:
            return since
    if claim.task_id == record.task_id:
        return 0  # it began when nothing else was known
    return max(now_us, _newest(record) + 1)


def _grant(
    record: Record, claim: Claim, now_us: int, outcome: Outcome, crashes: int = 0
) -> Verdict:
    fence = max(record.fence + 1, now_us)
    created = record.created_us if record.state in (State.RUNNING, State.WAITING) else now_us
    since = _since(record, claim, now_us)
    waiters = _older(record, claim.task_id, since)
    if record.state is State.DONE:
        waiters[record.task_id] = past(_since_of(waiters[record.task_id]), _DONE)
    waiters[claim.task_id] = past(since)
    held = running(claim, fence=fence, now_us=now_us, created_us=created, crashes=crashes)
    held = held._replace(waiters=_trimmed(waiters, claim.task_id))
    return Verdict(Answer(outcome, fence, held), held)


def _turn_away(record: Record, claim: Claim, now_us: int) -> Verdict:
    """`running`; a message that is not the holder's is the newest now. One copy of it waits."""
    left, wait = record.due_us - now_us, claim.wait
    if wait is None:
        return Verdict(Answer(Outcome.RUNNING, record.fence, record, left))
    known = record.waiters.get(claim.task_id)
    if known is not None and known.due_us > now_us and not _may_publish(known, wait):
        return Verdict(Answer(Outcome.RUNNING, record.fence, record, left))
    delay = min(left, wait.max_delay_us)
    since = _since(record, claim, now_us)
    holder = record.task_id == claim.task_id
    waiters = dict(record.waiters) if holder else _older(record, claim.task_id, since)
    waiters[claim.task_id] = Waiter(f"{wait.token}{_SEPARATOR}{since}", now_us + delay)
    noted = record._replace(waiters=_trimmed(waiters, record.task_id))
    return Verdict(Answer(Outcome.RUNNING, record.fence, noted, left, delay), noted)


def _may_publish(known: Waiter, wait: Wait) -> bool:
    """Whether the copy that the record remembers is this message, or one that it never sent."""
    ours = known.token.partition(_SEPARATOR)[0] == wait.token  # a plain task's has no place
    return known.token == wait.presented or (wait.redelivered and ours)


def _older(record: Record, task_id: str, since: int) -> dict[str, Waiter]:
    """What is known, as `task_id` finds it: those before it wait no more."""
    waiters = {record.task_id: past(0), **record.waiters}
    for tid, one in waiters.items():
        done_with = one.due_us == 0 or tid in (task_id, record.task_id)
        if not done_with and _since_of(one) < since:
            waiters[tid] = past(_since_of(one))
    return waiters


def past(since: int, mark: str = "") -> Waiter:
    """What is remembered of a message that waits no more."""
    return Waiter(f"{mark}{_SEPARATOR}{since}", 0)


def _trimmed(waiters: Mapping[str, Waiter], holder: str) -> Mapping[str, Waiter]:
    """The newest of them, and the holder. What is left out keeps its place by its header."""
    if len(waiters) <= MAX_WAITERS:
        return waiters
    newest = sorted(waiters, key=lambda tid: _since_of(waiters[tid]))[1 - MAX_WAITERS :]
    return {tid: waiters[tid] for tid in waiters if tid == holder or tid in newest}
