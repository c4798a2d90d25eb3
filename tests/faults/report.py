"""What a run tells people: the round, the sentence that is broken, and the history of the key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from .breach import Breach
from .history import History
from .ledger import Event

SHOWN: int = 5
"""How many breaches of a round are told in full."""


def told(history: History, found: list[Breach]) -> str:
    """The breaches of a round, each with the history of its key."""
    plan = history.plan
    again = f"make faults SEED={plan.seed} ROUND={plan.number} SCENE={plan.scene}"
    lines = [
        f"BREACH in {plan.title}",
        f"again: {again if plan.forced else again[: again.rfind(' ')]}",
    ]
    for breach in found[:SHOWN]:
        lines += ["", f"  the guarantee: {breach.sentence}", f"  key {breach.key or '(all)'}"]
        lines += [f"  seen: {breach.told}", *_history(history, breach.key)]
    if len(found) > SHOWN:
        lines += ["", f"  and {len(found) - SHOWN} more"]
    return "\n".join(lines)


def seen(history: History) -> Counter[str]:
    """What has happened in a round, counted: whether the faults did anything."""
    counted: Counter[str] = Counter()
    for event in history.events:
        if event.kind == "claim":
            counted[event.data["outcome"]] += 1
        elif event.kind == "ended" and event.data["said"] in ("stale", "forgotten", "False"):
            counted["refused endings"] += 1
        elif event.kind == "wrote" and not event.data["taken"]:
            counted["late writes refused"] += 1
        elif event.kind in ("begin", "stall"):
            counted[{"begin": "effects begun", "stall": "stalls"}[event.kind]] += 1
    counted["messages lost by workers that died"] = len(history.lost)
    return +counted


def _history(history: History, key: str) -> Iterator[str]:
    start = history.events[0].mono if history.events else 0.0
    moments: list[tuple[float, str]] = []
    for span in (*history.faults, *history.losses):
        where = f"{span.kind} {span.about}".strip()
        moments += [(span.began, f"FAULT {where}"), (span.ended, f"HEALED {where}")]
    for span in history.forgets:
        if span.about == key:
            moments += [(span.began, "FORGET sent"), (span.ended, f"FORGET {span.kind}")]
    moments += [(e.mono, _event(e, start)) for e in history.by_key.get(key, ()) if key]
    for moment, what in sorted(moments):
        yield f"    {moment - start:8.3f}  {what}"
    for message in history.messages.get(key, ()):
        answer = history.answers.get(message.task_id)
        shown = "none" if answer is None else f"{answer.status} {answer.result}"
        yield f"    answer of {message.task_id} ({message.task} {message.spec}): {shown}"
    for record in (*history.records, *history.cached):
        if record.key == key:
            yield f"    record: {record.state} of {record.owner[:6]}, due in {record.due_in:.1f} s"


def _event(event: Event, start: float) -> str:
    data = {
        name: round(value - start, 3) if name in ("began", "granted") else value
        for name, value in event.data.items()
        if value not in (None, "")
    }
    who = f"{event.worker} {event.pid} {event.owner[:6]:6} {event.task_id}"
    return f"{event.kind:8} {who} {json.dumps(data) if data else ''}"
