"""The checks that need nothing but the schedules: pure functions from a fleet to findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
from idemwatch.alerts.thresholds import HEALTH_ERROR, HEALTH_WARNING
from numpy.typing import NDArray

from .clock import zone_of
from .conflicts import shortest_gap
from .cron import Cron
from .findings import Finding, Severity, about, called
from .health import SLOT_MINUTES, Health
from .identity import schedule_hash
from .inventory import Inventory
from .lint import lint
from .model import Schedule
from .occurrences import Timing
from .starts import start_slots

MOST_OTHERS: Final = 20
"""Schedules on the same asset that one finding names."""
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Hotspot:
    """A half hour (0 to 47) over 70%. `starting`: ids of what starts in it on any day of the week;
    `busiest`: the minute (UTC) with the most `runs` at once.
    """

    slot: int
    load: float
    starting: tuple[str, ...]
    busiest: datetime
    runs: int

    @property
    def clock(self) -> str:
        """When it begins, as 08:30."""
        return clock_of(self.slot)


def clock_of(slot: int) -> str:
    """A half hour's beginning, as 08:30."""
    return f"{slot // 2:02}:{slot % 2 * SLOT_MINUTES:02}"


def hotspots_of(found: Health, schedules: Sequence[Schedule], zone: str) -> list[Hotspot]:
    """The hotspots of a fleet, in the order of the day."""
    hot = found.hotspots
    if not hot:
        return []
    starting: dict[int, list[str]] = defaultdict(list)
    for one, slots in zip(schedules, start_slots(schedules, found.load, zone), strict=True):
        for slot in slots:
            starting[slot].append(one.id)
    half_hours = found.load.half_hours(zone)
    return [_hotspot(slot, found, half_hours, starting[slot]) for slot in hot]


def _hotspot(
    slot: int, found: Health, half_hours: NDArray[np.int64], starting: Sequence[str]
) -> Hotspot:
    within = np.where(half_hours == slot, found.load.concurrency, -1.0)
    at = int(within.argmax())
    busiest = found.load.start + at * _MINUTE
    return Hotspot(slot, found.slots[slot], tuple(starting), busiest, int(within[at]))


def readable(inventory: Inventory) -> Iterator[Finding]:
    """Rows that are no schedule, and such as are another one than they seem."""
    for code, severity, told in (
        ("unreadable", Severity.ERROR, inventory.problems),
        ("doubtful_row", Severity.WARNING, inventory.doubts),
    ):
        for one in told:
            yield Finding(
                code=code,
                severity=severity,
                message=one.message,
                subject=one.schedule,
                schedules=(one.schedule,) if one.schedule else (),
                place=one.place,
            )


def duplicates(schedules: Sequence[Schedule]) -> Iterator[Finding]:
    """Each active schedule that means the same as an older one."""
    first: dict[str, Schedule] = {}
    for one in schedules:
        kept = first.setdefault(schedule_hash(one), one)
        if kept is not one:
            where = f" (line {kept.place.line})" if kept.place and kept.place.line else ""
            message = f"means the same as {called(kept)}{where}, which is older"
            yield about(one, "duplicate", message, others=(kept.id,))


def hotspots(found: Sequence[Hotspot], zone: str) -> Iterator[Finding]:
    """Half hours over 70%."""
    tz = zone_of(zone)
    for one in found:
        tasks, runs = counted(len(one.starting), "task"), counted(one.runs, "run")
        when = f"{one.busiest.astimezone(tz):%a %d %b %H:%M}"
        yield Finding(
            code="hotspot",
            severity=Severity.WARNING,
            message=f"{tasks} ({one.load:.0%} load), {runs} at once on {when}",
            subject=one.clock,
            schedules=one.starting,
        )


def counted(number: int, noun: str) -> str:
    """`1 task`, `12 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def overlaps(found: Health, schedules: Sequence[Schedule], today: date) -> Iterator[Finding]:
    """Schedules that meet themselves, and those that meet another on the same asset."""
    by_id = {one.id: one for one in schedules}
    for one in map(by_id.__getitem__, found.overrunning):
        gap = shortest_gap(one.timing, today)
        message = f"runs for {span(one.duration)}, its next start comes after {span(gap)}"
        yield about(one, "overrunning", message)
    meeting = [by_id[name] for name in found.contending]
    met: dict[tuple[str | None, str | None], list[str]] = defaultdict(list)
    for one in meeting:
        met[one.asset_id, one.client_id].append(one.id)
    for one in meeting:
        same = met[one.asset_id, one.client_id]
        others = [other for other in same[: MOST_OTHERS + 1] if other != one.id][:MOST_OTHERS]
        named = _named(others, len(same) - 1)
        message = f"runs while another does on asset {one.asset_id}: {named}"
        yield about(one, "contending", message, others=others)


def _named(ids: Sequence[str], number: int, most: int = 3) -> str:
    more = f" and {number - most:,} more" if number > most else ""
    return ", ".join(ids[:most]) + more


def span(duration: timedelta | None) -> str:
    """A duration as people say it: `90 s`, `15 min`, `2 h`, `1 d`."""
    if duration is None:
        return "never"
    seconds = duration.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:g} s"


def expressions(schedules: Sequence[Schedule], now: datetime) -> Iterator[Finding]:
    """What is allowed in an expression and surely not meant."""
    known: dict[tuple[Timing, str], list[tuple[str, str]]] = {}
    for one in schedules:
        key = (one.timing, one.zone)
        if key not in known:
            known[key] = [*lint(one.timing, zone_of(one.zone), now)]
        for code, message in known[key]:
            shown = f"{one.timing.expression!r}: " if isinstance(one.timing, Cron) else ""
            yield about(one, code, shown + message)


def healthy(found: Health) -> Iterator[Finding]:
    """The score, where it is low."""
    if found.score >= HEALTH_WARNING:
        return
    bad = found.score < HEALTH_ERROR
    yield Finding(
        code="health",
        severity=Severity.ERROR if bad else Severity.WARNING,
        message=f"Schedule health score is low: {found.score}/100 (grade {found.grade})",
    )
