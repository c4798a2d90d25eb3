"""What must hold so that a due time that is published twice runs once, and none is swallowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from idemwatch.alerts.thresholds import DUPLICATES_PER_HOUR

from .checks import span
from .conflicts import shortest_gap
from .findings import RULES, Finding, Severity, about
from .model import Overlap, Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFact:
    """What an app says of the messages of a schedule.

    `one_key`: two firings in a row have one key, which lives for `ttl`; `doubt`: why it may be
    otherwise. `error`: why there is no key.
    """

    registered: bool = True
    idempotent: bool = False
    one_key: bool = False
    doubt: str = ""
    ttl: timedelta = timedelta(0)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What others gathered: duplicates of the last hour by task, facts by schedule id.

    None: nobody was asked; `unasked` says why.
    """

    duplicates: Mapping[str, int] | None = None
    calls: Mapping[str, CallFact] | None = None
    unasked: tuple[str, ...] = ()


def idempotency(
    schedules: Sequence[Schedule], evidence: Evidence, today: date
) -> Iterator[Finding]:
    """Findings about tasks, then about schedules."""
    by_task: dict[str, list[Schedule]] = defaultdict(list)
    for one in schedules:
        by_task[one.task].append(one)
    yield from _repeated(evidence.duplicates or {}, by_task)
    if evidence.calls is not None:
        yield from _tasks(evidence.calls, by_task)
        for one in schedules:
            yield from _schedule(one, evidence.calls[one.id], today)


def _repeated(
    duplicates: Mapping[str, int], by_task: Mapping[str, Sequence[Schedule]]
) -> Iterator[Finding]:
    for task, number in sorted(duplicates.items(), key=lambda one: (-one[1], one[0])):
        if number > DUPLICATES_PER_HOUR:
            message = f"{number:,} duplicates in last hour"
            yield _of_task("many_duplicates", task, message, by_task.get(task, ()))


def _of_task(code: str, task: str, message: str, schedules: Sequence[Schedule]) -> Finding:
    return Finding(
        code=code,
        severity=RULES[code].severity,
        message=message,
        subject=task,
        schedules=tuple(one.id for one in schedules),
        place=schedules[0].place if schedules else None,
    )


def _tasks(
    calls: Mapping[str, CallFact], by_task: Mapping[str, Sequence[Schedule]]
) -> Iterator[Finding]:
    """Once for each task that is not what a scheduled one should be."""
    for task, schedules in by_task.items():
        fact = calls[schedules[0].id]
        if not fact.registered:
            yield _of_task("unregistered", task, "the app knows no such task", schedules)
        elif not fact.idempotent:
            message = "it is no IdempotentTask, or turned off: a due time may run twice"
            yield _of_task("not_idempotent", task, message, schedules)


def _schedule(one: Schedule, fact: CallFact, today: date) -> Iterator[Finding]:
    if fact.registered and not fact.idempotent and one.overlap is not Overlap.ALLOW:
        message = f"overlap is {one.overlap.value}, but no lease tells that {one.task} runs"
        yield about(one, "blind_overlap", message)
    if fact.error:
        yield about(one, "no_key", fact.error)
    gap = shortest_gap(one.timing, today) if fact.one_key else None
    if gap is not None and fact.ttl > gap:
        severity = Severity.WARNING if fact.doubt else Severity.ERROR
        message = (
            f"two firings in a row have one key{', ' if fact.doubt else ''}{fact.doubt}; it lives "
            f"for {span(fact.ttl)}, while the next is due after {span(gap)}: all but the first "
            "are turned away"
        )
        yield about(one, "swallowed", message, severity=severity)
