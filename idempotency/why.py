"""Why a message is turned away: what its key's record makes of it now, told in sentences.

The verdict is that of `judge`, which the stores ask too, on the record as it was read; nothing is
written. Invariant: plain values in, sentences out; no result, owner's secret or argument is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from .errors import AuthorityMismatch
from .record import SECOND, Answer, Claim, Outcome, Record, State, is_gone, judge
from .store import Found
from .succession import judge_last

AUTHORITY: Final = "authority"
"""The verdict on a record of the other authority; all others are values of Outcome."""
KEEP_LAST: Final = "keep_last"
UNKNOWN: Final = "unknown"
"""The verdict when the deciding store could not be asked."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US: Final = 253_402_300_799_000_000
"""The end of 9999, the last time that a datetime holds."""
_GONE: Final = "the key is free, as if there had never been a record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The message that is asked about. None: as the record has it."""

    key: str
    authority: str | None = None
    fingerprint: str | None = None
    task_id: str = ""
    max_crashes: int = 3
    lease: timedelta = timedelta(seconds=30)
    on_duplicate: str = "replay"
    on_running: str = "wait"
    when_unavailable: str = "retry"
    enabled: bool = True


class Seen(NamedTuple):
    """What a place (`postgres`, `redis`) holds. `problem`: why that is not known."""

    place: str
    found: Found | None = None
    problem: str = ""
    unreadable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The verdict, why, and what to do. `place`: who gave it; `record`: the one it is about."""

    verdict: str
    told: tuple[str, ...]
    advice: tuple[str, ...] = ()
    place: str = ""
    record: Record | None = None


def explain(asked: Asked, seen: Sequence[Seen]) -> Why:
    """What a message would get now, by what the places hold."""
    if not asked.enabled:
        told = "the task's protection is turned off (idempotency_enabled): it runs, whatever stands"
        return Why(verdict=Outcome.BYPASSED, told=(told,))
    if asked.authority is None and (unread := _unread(seen)) is not None:
        return _doubted(unread)
    places = {one.place: one for one in seen}
    authority = asked.authority or _authority(seen)
    if authority == "redis":
        return _by(asked, authority, places.get("redis", _not_asked("redis")))
    cached = places.get("redis")
    if cached is not None and asked.on_running != KEEP_LAST and _answers(cached.found):
        answer = _by(asked, authority, cached)
        return replace(answer, told=(*answer.told, _of_cache(places.get("postgres"))))
    return _by(asked, authority, places.get("postgres", _not_asked("postgres")))


def _unread(seen: Sequence[Seen]) -> Seen | None:
    """The place that may have a record, when the others have none and nobody says who decides."""
    if any(one.found is not None for one in seen) or all(one.problem for one in seen):
        return None
    return next((one for one in seen if one.problem), None)


def _doubted(unread: Seen) -> Why:
    told = (
        f"not known: no other place has a record, and {unread.place}, which may decide about this "
        f"key, could not be read: {unread.problem}"
    )
    advice = (
        "a call of your app says who decides: celery -A proj idemwatch keys why --task NAME --args "
        "JSON"
    )
    return Why(verdict=UNKNOWN, told=(told,), advice=(advice,), place=unread.place)


def _authority(seen: Sequence[Seen]) -> str:
    found = [one.found.record for one in seen if one.found is not None]
    if found:
        return found[0].authority
    return "redis" if [one.place for one in seen] == ["redis"] else "postgres"


def _not_asked(place: str) -> Seen:
    setting = "idempotency_redis_url" if place == "redis" else "idempotency_database_url"
    return Seen(place, problem=f"{setting} is not set, and it decides about this key")


def _answers(found: Found | None) -> bool:
    """Whether a record in Redis is answered from before PostgreSQL is asked."""
    if found is None or is_gone(found.record, found.now_us):
        return False
    return found.record.state is State.DONE or found.record.authority == "redis"


def _of_cache(database: Seen | None) -> str:
    if database is None or database.problem:
        return "Redis, the cache, answers this; PostgreSQL was not read"
    if database.found is None or is_gone(database.found.record, database.found.now_us):
        return (
            "Redis, the cache, answers this; PostgreSQL has no such record any more: it was lost "
            "or deleted there, and only `idemwatch keys forget` clears both"
        )
    return "Redis, the cache, answers this before PostgreSQL is asked"


def _by(asked: Asked, authority: str, seen: Seen) -> Why:
    if seen.problem:
        return _not_read(asked, seen)
    if seen.found is None:
        return Why(
            verdict=Outcome.GRANTED, place=seen.place,
            told=("granted: there is no record, its work may be done",),
        )  # fmt: skip
    record, now_us = seen.found.record, seen.found.now_us
    claim = _claim(asked, authority, record)
    decide = judge_last if asked.on_running == KEEP_LAST else judge
    try:
        answer = decide(record, claim, now_us).answer
    except AuthorityMismatch:
        answer = None
    told, advice = _told(asked, authority, record, answer, now_us)
    verdict = AUTHORITY if answer is None else str(answer.outcome)
    return Why(verdict=verdict, told=told, advice=advice, place=seen.place, record=record)


def _claim(asked: Asked, authority: str, record: Record) -> Claim:
    """The claim of a new owner, which is none of the record's."""
    return Claim(
        key=asked.key,
        owner="",
        authority=authority,
        fingerprint=record.fingerprint if asked.fingerprint is None else asked.fingerprint,
        task_id=asked.task_id,
        max_crashes=asked.max_crashes,
    )


def _not_read(asked: Asked, seen: Seen) -> Why:
    if seen.unreadable:
        told = (f"unavailable: {seen.problem}", "the message waits and comes again: nothing is "
                "guessed, and the work is not done")  # fmt: skip
        return Why(verdict=Outcome.UNAVAILABLE, told=told, place=seen.place)
    runs = asked.when_unavailable == "run"
    then = "runs without protection (when_unavailable='run')" if runs else "waits and comes again"
    told = (
        f"not known: {seen.place} decides, and {seen.problem}",
        f"if workers cannot reach it either, a message {then}",
    )
    return Why(verdict=UNKNOWN, told=told, place=seen.place)


Sentences = tuple[tuple[str, ...], tuple[str, ...]]


def _told(
    asked: Asked, authority: str, record: Record, answer: Answer | None, now_us: int
) -> Sentences:
    if answer is None:
        return _of_authority(authority, record, asked.key)
    if is_gone(record, now_us):
        return _gone(record, now_us), ()
    if answer.superseded:
        return _superseded(answer.outcome), ()
    if answer.outcome is Outcome.DUPLICATE:
        return _duplicate(asked, record, now_us)
    if answer.outcome is Outcome.MISMATCH:
        return _mismatch(asked.key)
    if answer.outcome is Outcome.POISONED:
        return _poisoned(asked, record)
    if answer.outcome is Outcome.RUNNING:
        return _waiting(asked, record, now_us) if _parked(record) else _held(asked, record, now_us)
    return _free(record, now_us), ()


def _parked(record: Record) -> bool:
    return record.state is not State.RUNNING


def _of_authority(authority: str, record: Record, key: str) -> Sentences:
    told = (
        f"refused: the record was decided by authority {record.authority!r}, and the message's "
        f"task asks authority {authority!r}",
        "it raises AuthorityMismatch and nothing is run: two deciders would be two holders",
    )
    advice = (
        "let the queue drain before a task changes its idempotency_authority",
        f"if no worker holds it any more: idemwatch keys forget {key}",
    )
    return told, advice


def _gone(record: Record, now_us: int) -> tuple[str, ...]:
    if record.state is State.FORGOTTEN:
        return (
            f"granted: somebody forgot the key; {_GONE}",
            f"until {moment(record.due_us, now_us)} a tombstone refuses what its old holder "
            "would still write",
        )
    return (f"granted: the result expired {moment(record.due_us, now_us)}; {_GONE}",)


def _superseded(outcome: Outcome) -> tuple[str, ...]:
    told = "a newer message for the key is known, and the newest is kept (on_running='keep_last')"
    if outcome is Outcome.DUPLICATE:
        return (f"duplicate: its work was done, then that of a newer one; {told}",)
    return (f"dropped: {told}",)


def _duplicate(asked: Asked, record: Record, now_us: int) -> Sentences:
    done = f"finished by task id {record.task_id}" if record.task_id else "finished"
    until = moment(record.due_us, now_us)
    end = {
        "replay": f"duplicate: answered with the stored result until {until}",
        "skip": f"duplicate: ignored until {until}; within a chain or chord its result is replayed",
        "raise": f"duplicate: raises DuplicateTask until {until}",
    }[asked.on_duplicate]
    told = [end, f"the work is {done}"]
    if record.result is None:
        told.append(
            "its result was too large to be kept, or there was none: duplicates get it from "
            "Celery's result backend, else None"
        )
    again = f"to have the work done again: idemwatch keys forget {asked.key}"
    return tuple(told), (again,)


def _mismatch(key: str) -> Sentences:
    told = (
        "mismatch: the key was used before with other arguments, so it raises ArgumentMismatch "
        "and nothing is run",
    )
    advice = (
        "put what differs into the key, or name it in idempotency_ignore_args",
        f"if the record is the wrong one: idemwatch keys forget {key}",
    )
    return told, advice


def _poisoned(asked: Asked, record: Record) -> Sentences:
    if record.state is State.POISONED:
        head = f"poisoned: after {counted(record.crashes + 1, 'crash', 'crashes')} in a row"
    else:
        head = (
            f"poisoned by the next message: its lease ran out, the "
            f"{counted(record.crashes + 1, 'crash', 'crashes')} of a row, and {asked.max_crashes} "
            "are allowed"
        )
    told = (head, "each message raises PoisonedKey and nothing is run, until somebody forgets it")
    advice = (
        "look for the cause first: a worker that is killed (out of memory, hard time limit), or "
        "that loses its store",
        f"then: idemwatch keys forget {asked.key}",
    )
    return told, advice


def _held(asked: Asked, record: Record, now_us: int) -> Sentences:
    left = record.due_us - now_us
    who = f"task id {record.task_id}" if record.task_id else f"owner {record.owner[:8]}"
    told = [
        f"running: held by {who}{_renewed(asked.lease, left)}; its lease runs out in "
        f"{seconds(left)} unless it is renewed",
        *_meanwhile(asked, record),
    ]
    if record.crashes:
        told.append(
            f"it was taken over: {counted(record.crashes, 'holder', 'holders')} before it died"
        )
    advice = (
        "a live worker renews every third of a lease: look again in a while; if the lease ran out "
        "and nothing took it, no worker has a message for it",
        f"if its worker hangs, end that worker; only then: idemwatch keys forget {asked.key}",
    )
    return tuple(told), advice


def _renewed(lease: timedelta, left_us: int) -> str:
    """The lease is as long as the task says now; a longer one tells nothing."""
    ago = lease // timedelta(microseconds=1) - left_us
    return f", claimed or renewed {seconds(ago)} ago" if ago >= 0 else ""


def _waiting(asked: Asked, record: Record, now_us: int) -> Sentences:
    told = (
        f"running: task id {record.task_id} retries, and the key is kept for its attempt "
        f"{record.attempt}",
        f"it opens to all {moment(record.due_us, now_us)}",
        *_meanwhile(asked, record),
    )
    return told, (f"to let another go first: idemwatch keys forget {asked.key}",)


def _meanwhile(asked: Asked, record: Record) -> tuple[str, ...]:
    others = {
        "wait": "a message for it waits and comes again",
        "skip": "a message of another task id is dropped; one of the same id waits",
        "raise": "a message for it raises AlreadyRunning",
        "keep_last": "the newest message for it waits, older ones are dropped",
    }.get(asked.on_running, f"on_running={asked.on_running!r} says what a message for it does")
    if not (waiting := waits(record)):
        return (others,)
    number = counted(waiting, "message waits", "messages wait")
    return (others, f"{number} for it already, as far as the record remembers")


def waits(record: Record) -> int:
    """How many messages wait; keep_last remembers others too, without a time."""
    return sum(one.due_us > 0 for one in record.waiters.values())


def _free(record: Record, now_us: int) -> tuple[str, ...]:
    if record.state is State.WAITING:
        return ("granted: the next attempt that the key was kept for, or the wait for it is over",)
    if record.state is State.DONE:
        return ("granted: with on_running='keep_last' each message is work of its own, and the "
                f"one of task id {record.task_id or 'none'} is finished",)  # fmt: skip
    return (
        f"taken over by the next message: the lease ran out {moment(record.due_us, now_us)}, its "
        f"holder (task id {record.task_id or 'none'}) is taken for dead",
        "nothing was lost: the work is repeated when a message for it comes; the dead worker's own "
        "comes back after the broker's visibility timeout",
    )


def moment(us: int, now_us: int) -> str:
    """A time of day, and how far away it is."""
    left = us - now_us
    distance = f"in {seconds(left)}" if left > 0 else f"{seconds(-left)} ago"
    shown = min(max(us, 0), _LATEST_US)  # a record that a stranger wrote may say anything
    return f"{_EPOCH + timedelta(microseconds=shown):%Y-%m-%d %H:%M:%S} UTC ({distance})"


def seconds(us: int) -> str:
    """A duration for people."""
    whole = abs(us) / SECOND
    if whole < 10:
        return f"{whole:.1f} s"
    if whole < 180:
        return f"{whole:.0f} s"
    return f"{whole / 60:.0f} min" if whole < 3 * 3600 else f"{whole / 3600:.0f} h"


def counted(number: int, one: str, many: str) -> str:
    """A number with its word."""
    return f"{number} {one if number == 1 else many}"
