"""What `keys why` found, as text and as JSON. Invariant: no argument, user, result or fingerprint
is shown; the key is all that is told of the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .printing import printable
from .record import Record, State
from .why import Why, moment, seconds, waits

_WIDTH: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is told. `arguments`: what is known of those that differ; `worker`: who has the
    holder's message, None when nobody was asked."""

    key: str
    why: Why
    message: str = ""
    """Where the message is that was asked for, or how it ended."""
    now_us: int = 0
    arguments: tuple[str, ...] = ()
    worker: str | None = None
    hits: int | None = None
    region: str = ""
    others: tuple[str, ...] = ()
    """Places that could not be read."""


def text(report: Report) -> str:
    """For people."""
    why = report.why
    decides = f", by {why.place}" if why.place else ""
    parts = [
        ("key", [report.key]),
        ("message", [report.message] if report.message else []),
        ("now", [f"{why.verdict}{decides}"]),
        ("why", [*why.told]),
        ("arguments", [*report.arguments]),
        ("do", [*why.advice]),
        ("record", list(_record_lines(report))),
        ("beware", [*report.others]),
    ]
    return "".join(_lines(name, told) for name, told in parts if told)


def _lines(name: str, told: list[str]) -> str:
    first, *rest = told
    blank = " " * _WIDTH
    head = f"{name:<{_WIDTH}}{printable(first)}\n"
    return head + "".join(f"{blank}{printable(line)}\n" for line in rest)


def _record_lines(report: Report) -> Iterator[str]:
    record = report.why.record
    if record is None:
        return
    yield f"{record.state}, authority {record.authority}, of {record.endpoint}"
    names = f"task id {record.task_id or 'none'}, attempt {record.attempt}"
    yield f"{names}, crashes {record.crashes}, fence {record.fence}"
    if record.state is State.RUNNING:
        yield f"owner {record.owner[:8]}{_where(report)}, {_lease(record, report.now_us)}"
    yield f"created {moment(record.created_us, report.now_us)}"
    if report.hits is not None:
        yield f"turned away so far: {report.hits}, as far as statistics tell"


def _where(report: Report) -> str:
    region = f" in {report.region}" if report.region else ""
    if report.worker is None:
        return region
    if not report.worker:
        return f"{region}: no worker that answered has its message (dead, busy or cut off)"
    return f"{region}, on {report.worker}"


def _lease(record: Record, now_us: int) -> str:
    left = record.due_us - now_us
    return f"lease left {seconds(left)}" if left > 0 else f"lease ran out {seconds(-left)} ago"


def as_json(report: Report) -> dict[str, Any]:
    """For machines."""
    why = report.why
    return {
        "key": report.key,
        "message": report.message or None,
        "verdict": why.verdict,
        "decided_by": why.place or None,
        "told": list(why.told),
        "arguments": list(report.arguments),
        "advice": list(why.advice),
        "record": None if why.record is None else _record(report, why.record),
        "not_read": list(report.others),
    }


def _record(report: Report, record: Record) -> dict[str, Any]:
    held = record.state in (State.RUNNING, State.WAITING)
    left = (record.due_us - report.now_us) / 1e6
    return {
        "state": record.state,
        "authority": record.authority,
        "task": record.endpoint,
        "task_id": record.task_id or None,
        "owner": record.owner[:8],
        "worker": report.worker or None,
        "region": report.region or None,
        "attempt": record.attempt,
        "crashes": record.crashes,
        "fence": record.fence,
        "age_seconds": round((report.now_us - record.created_us) / 1e6, 3),
        "lease_left_seconds": round(left, 3) if held else None,
        "expires_in_seconds": round(left, 3) if record.state is State.DONE else None,
        "waiting_messages": waits(record),
        "hits": report.hits,
    }
