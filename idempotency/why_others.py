"""Sentences on records that are no call's: locks, and the notes of publishers.

Invariant: no message is turned away by one of these, and that is what is told.
"""

from __future__ import annotations

from typing import Final

from .record import Record, State, is_gone
from .why import Why, moment, seconds

LOCK: Final = "lock"
NOTE: Final = "publish:"
"""How the keys of notes begin, see publishing.py."""


def of_other(key: str, record: Record, now_us: int, place: str) -> Why | None:
    """What a record stands for that is no call's; None for a call's."""
    if record.endpoint == LOCK and key.startswith(f"{LOCK}:"):
        verdict, told, advice = _lock(key, record, now_us)
    elif is_note(key, record):
        verdict, told, advice = _note(key, record, now_us)
    else:
        return None
    return Why(verdict=verdict, told=told, advice=advice, place=place, record=record)


def is_note(key: str, record: Record) -> bool:
    """Whether a publisher wrote it: the record of a call has the id of its message."""
    return key.startswith(NOTE) and not record.task_id and record.endpoint not in ("", LOCK)


Told = tuple[str, tuple[str, ...], tuple[str, ...]]


def _lock(key: str, record: Record, now_us: int) -> Told:
    name = key.removeprefix(f"{LOCK}:")
    left = record.due_us - now_us
    if is_gone(record, now_us) or record.state is not State.RUNNING or left <= 0:
        return "free", (f"the lock {name!r} is free: whoever asks for it gets it",), ()
    told = (
        f"the lock {name!r} is held by owner {record.owner[:8]}; its lease runs out in "
        f"{seconds(left)} unless it is renewed",
        "whoever else asks for it waits as long as its timeout says, then raises LockTimeout",
    )
    advice = (
        "a live holder renews every third of a lease, and one that died loses it when the lease "
        "runs out: look again in a while",
        f"if its process hangs, end that process; only then: idemwatch keys forget {key}",
    )
    return "held", told, advice


def _note(key: str, record: Record, now_us: int) -> Told:
    call = key.removeprefix(NOTE)
    if is_gone(record, now_us) or record.due_us <= now_us:
        return "over", (f"the note of a publisher is over: {call} would be published again",), ()
    until = moment(record.due_us, now_us)
    if record.state is not State.DONE:
        return (
            "publishing",
            (
                f"somebody is just publishing {call}; others wait for half a second, then publish",
                f"without a word of success it is over {until}",
            ),
            (),
        )
    sent = (record.result or b"").decode("ascii", "replace")
    told = (
        f"{call} was published as task id {sent} (idempotency_at_publish): until {until} another "
        "apply_async of the call gets that one's AsyncResult, and publishes nothing",
        "no message is turned away by this: the worker decides by the record of the call",
    )
    advice = (
        f"what became of the call: idemwatch keys why {call}",
        f"if its message was lost, to have it published again: idemwatch keys forget {key}",
    )
    return "published", told, advice
