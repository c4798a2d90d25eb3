"""Checks of work: what was done, how often, and what was answered for it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Final

from .breach import (
    CACHE,
    COUNTERS,
    FAILURES,
    FORGET,
    MISMATCH,
    NEVER_LOST,
    NOT_AGAIN,
    ONCE,
    SUCCESSOR,
    Breach,
)
from .history import Counted, History, Left
from .ledger import Event
from .plan import Message

OVERDUE_SECONDS: Final = 0.5
LOUD: Final = ("PoisonedKey", "WorkerLostError")


def finished_once(history: History) -> Iterator[Breach]:
    """After a result was stored nobody is granted the key."""
    for key, holdings in history.holdings.items():
        stored = [
            (h, e) for h in holdings for e in h.said("complete") if e.data["said"] == "stored"
        ]
        for first, event in stored:
            for second in holdings:
                if second.granted <= event.mono:
                    continue
                began = event.data["began"]
                if not history.severed(key, first.authority, began, second.granted):
                    told = f"{second.owner[:6]} does again what {first.owner[:6]} has finished"
                    yield Breach(NOT_AGAIN, key, told)


def replays_are_right(history: History) -> Iterator[Breach]:
    """A duplicate is answered with a result of its key, that was completed and not forgotten."""
    for event in history.events:
        if event.kind != "claim" or event.data["outcome"] != "duplicate":
            continue
        result = event.data.get("result")
        completions = _completions(history, event.key, result)
        if not completions:
            told = f"answered with {result}, which nobody has completed"
            yield Breach(NEVER_LOST, event.key, told)
        elif all(one.mono > event.mono for one in completions):
            yield Breach(CACHE, event.key, f"answered with {result} before it was completed")
        elif forgotten := _forgotten(history, event, completions):
            yield Breach(FORGET, event.key, f"answered with {result}: {forgotten}")


def _completions(history: History, key: str, result: Any) -> list[Event]:
    """What was sent to a store to complete a key with this result."""
    return [
        one
        for one in history.by_key[key]
        if one.kind == "ending" and one.data["what"] == "complete" and one.data["result"] == result
    ]


def _forgotten(history: History, answered: Event, completions: list[Event]) -> str:
    """Why the result must not be known any more, "" when it may be."""
    newest = max(one.data["began"] for one in completions)
    for span in history.forgets:
        carried_out = span.kind == "forget" and span.about == answered.key
        between = newest < span.began and span.ended < answered.data["began"]
        # Redis that is emptied loses the tombstone too.
        lost = any(one.meets(span.began, answered.mono) for one in history.losses)
        if carried_out and between and not lost:
            return f"it was forgotten {answered.data['began'] - span.ended:.3f} s before"
    return ""


def answers_are_right(history: History) -> Iterator[Breach]:
    """Each message has the answer that its task gives, or was refused loudly."""
    for message in {one.task_id: one for one in history.plan.messages}.values():
        answer = history.answers.get(message.task_id)
        if answer is None:
            yield Breach(NEVER_LOST, message.key, f"{message.task_id} has no answer at the end")
        elif answer.status == "SUCCESS":
            yield from _success(history, message, answer.result)
        else:
            yield from _failure(history, message, answer.result)


def _success(history: History, message: Message, result: Any) -> Iterator[Breach]:
    key, disturbed = message.key, _disturbed(history, message)
    if message.kind == "failing":
        yield Breach(FAILURES, key, f"{message.task_id} is answered with {result!r}")
    elif message.spec.get("other") and not disturbed:
        yield Breach(MISMATCH, key, f"{message.task_id} is answered with {result!r}")
    elif not isinstance(result, dict) or result.get("key") != key:
        yield Breach(NEVER_LOST, key, f"{message.task_id} is answered with {result!r}")
    elif message.kind == "commit":
        if (key, result["owner"]) not in history.effects:
            told = f"{message.task_id} is answered with {result}, whose effect is not there"
            yield Breach(ONCE, key, told)
    elif not disturbed:
        yield from _stored(history, message, result)


def _stored(history: History, message: Message, result: Any) -> Iterator[Breach]:
    """What a caller is told is what the store has taken."""
    said = [
        one.data["said"]
        for one in history.by_key[message.key]
        if one.kind == "ended" and one.data["what"] == "complete" and one.data["result"] == result
    ]
    sent = len(_completions(history, message.key, result))
    if said and set(said) == {"stale"} and sent == len(said):
        told = f"{message.task_id} is answered with {result}, which the store refused"
        yield Breach(SUCCESSOR, message.key, told)


def _failure(history: History, message: Message, result: Any) -> Iterator[Breach]:
    kind = result.get("exc_type") if isinstance(result, dict) else str(result)
    expected = ["ArgumentMismatch"] if message.spec.get("other") else list(LOUD)
    if message.kind in ("failing", "unlucky"):
        expected.append("Failed")
    if kind not in expected:
        told = f"{message.task_id} failed with {result}, expected {' or '.join(expected)}"
        yield Breach(NEVER_LOST, message.key, told)


def _disturbed(history: History, message: Message) -> bool:
    return history.severed(message.key, message.authority, 0.0, float("inf"))


def effects_once(history: History) -> Iterator[Breach]:
    """What commits with its record is there once; what a target takes is not lost."""
    times = Counter(key for key, _ in history.effects)
    for key, messages in history.messages.items():
        if messages[0].kind == "commit" and times[key] != 1:
            yield Breach(ONCE, key, f"its effect was committed {times[key]} times")
        if messages[0].kind == "fenced" and _answered(history, messages):
            if key not in dict(history.once):
                yield Breach(ONCE, key, "its effect is lost")
            elif key not in {one for one, _, _ in history.target}:
                yield Breach(ONCE, key, "the target with a fence took nothing")


def _answered(history: History, messages: list[Message]) -> bool:
    answers = [history.answers.get(one.task_id) for one in messages]
    return any(one is not None and one.status == "SUCCESS" for one in answers)


def nothing_is_stuck(history: History) -> Iterator[Breach]:
    """The broker is empty, and no living process has a lease that has run out."""
    if history.broker_left:
        left = ", ".join(history.broker_left)
        yield Breach(NEVER_LOST, "", f"the broker still has {left}")
    for record in history.records:
        if record.state != "running" or record.due_in > -OVERDUE_SECONDS:
            continue
        if not _owner_died(history, record) and not _release_was_lost(history, record):
            told = f"{record.owner[:6]} is RUNNING, its lease ran out {-record.due_in:.1f} s ago"
            yield Breach(NEVER_LOST, record.key, told)


def _owner_died(history: History, record: Left) -> bool:
    """Whether its process is dead, or has never said a word of it."""
    pids = {e.pid for e in history.by_key.get(record.key, ()) if e.owner == record.owner}
    return not pids or pids <= history.dead


def _release_was_lost(history: History, record: Left) -> bool:
    """Whether Redis decides, and may have lost what the owner has written last."""
    messages = history.messages.get(record.key)
    authority = messages[0].authority if messages else ""
    sent = [e.mono for e in history.by_key.get(record.key, ()) if e.owner == record.owner]
    return bool(sent) and history.severed(record.key, authority, min(sent), float("inf"))


def cache_tells_the_truth(history: History) -> Iterator[Breach]:
    """What Redis says is finished, PostgreSQL has finished."""
    decided = {record.key: record for record in history.records}
    for cached in history.cached:
        if cached.state != "done":
            continue
        record = decided.get(cached.key)
        if record is None or (record.state, record.owner) != ("done", cached.owner):
            known = "nothing" if record is None else f"{record.state} of {record.owner[:6]}"
            if any(one.about == cached.key for one in history.forgets) and history.losses:
                continue
            told = f"Redis has a result of {cached.owner[:6]}, PostgreSQL has {known}"
            yield Breach(CACHE, cached.key, told)


def the_broker_loses_little(history: History) -> Iterator[Breach]:
    """A worker that dies takes one message with it at most, the one that its client has popped."""
    if len(history.lost) > history.killed:
        lost = ", ".join(history.lost)
        told = f"{history.killed} workers were killed, and {lost} had no answer"
        yield Breach(NEVER_LOST, "", told)


def metrics_are_exact(history: History) -> Iterator[Breach]:
    """What a worker has counted is what it was answered.

    A process that is killed between the ledger and the counter misses one; none counts too much.
    """
    told = _told(history)
    for worker, counted in history.counted.items():
        pids = {event.pid for event in history.events if event.worker == worker}
        most = len(pids & history.dead)
        for label in sorted({*counted, *told[worker]}):
            missing = told[worker][label] - counted.get(label, 0.0)
            compared = label[2] not in ("too_large", "unencodable")
            if compared and not 0 <= missing <= most:
                seen = f"{worker} counted {counted.get(label, 0):g} {label}"
                yield Breach(COUNTERS, "", f"{seen}, of {told[worker][label]}")


def _told(history: History) -> dict[str, Counter[Counted]]:
    """What each worker should have counted."""
    told: dict[str, Counter[Counted]] = defaultdict(Counter)
    for event in history.events:
        if event.kind == "counted":
            told[event.worker]["claims", event.data["task"], event.data["outcome"]] += 1
        elif event.kind == "ended" and event.data["what"] == "complete":
            result = "stored" if event.data["said"] == "stored" else "stale"
            told[event.worker]["completions", history.messages[event.key][0].task, result] += 1
    return told
