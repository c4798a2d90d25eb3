"""The best time for a new schedule: a quiet minute that meets its constraints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

import numpy as np
from idemwatch.alerts.thresholds import QUIET

from .clock import offset, zone_of
from .errors import InvalidSchedule
from .load import DAY, Counts, LoadMap
from .shifts import skipped_minutes

STEP_MINUTES: Final = 5
BUSINESS_HOURS: Final = (time(9), time(17))
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
TASK_TYPES: Final = ("report", "maintenance", "critical")
PRIORITIES: Final = ("low", "medium", "high", "critical")
NOT_URGENT: Final = ("low", "medium")
_NIGHT: Final = range(1, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """When the schedule may run, in its own zone. `days`: 0 is Sunday; empty means every day."""

    zone: str = "UTC"
    not_before: time = time(0)
    not_after: time = time(23, 59)
    business_hours_only: bool = False
    days: tuple[int, ...] = ()
    avoid_dst: bool = True


@dataclass(frozen=True, slots=True)
class Slot:
    """A minute of the day, its expression, and the highest load while a run would last."""

    minute: int
    expression: str
    load: float


def best_slots(
    load: LoadMap,
    duration: timedelta,
    constraints: Constraints,
    *,
    priority: str = "medium",
    count: int = 3,
) -> list[Slot]:
    """The best slots, best first, no two within half an hour. Raises InvalidSchedule.

    Of those under 30% what is not urgent takes the night's first, and what is urgent the quietest;
    beyond the best there are only some under 30%.
    """
    allowed = _allowed(constraints, load.start)
    if not allowed:
        raise InvalidSchedule("", "constraints", "no time of the day meets all of them")
    costs = np.round(_costs(load, duration, constraints), 9)
    ranked = sorted(allowed, key=lambda minute: _rank(minute, float(costs[minute]), priority))
    found: list[Slot] = []
    for minute in ranked:
        if found and (len(found) == count or costs[minute] > QUIET):
            break
        if all(_apart(minute, one.minute) >= 30 for one in found):
            found.append(Slot(minute, _expression(minute, constraints.days), float(costs[minute])))
    return found


def _rank(minute: int, cost: float, priority: str) -> tuple[object, ...]:
    loud = cost if cost > QUIET else 0.0
    by_day = not loud and priority in NOT_URGENT and minute // 60 not in _NIGHT
    return loud, by_day, cost, minute % 60 == 0, minute


def _apart(one: int, other: int) -> int:
    return min(abs(one - other), DAY - abs(one - other))


def _allowed(constraints: Constraints, now: datetime) -> list[int]:
    first, last = constraints.not_before, constraints.not_after
    if constraints.business_hours_only:
        first, last = max(first, BUSINESS_HOURS[0]), min(last, BUSINESS_HOURS[1])
    minutes: Iterable[int] = range(0, DAY, STEP_MINUTES)
    skipped = skipped_minutes(constraints.zone, now) if constraints.avoid_dst else frozenset()
    return [
        minute
        for minute in minutes
        if first <= time(minute // 60, minute % 60) <= last and minute not in skipped
    ]


def _costs(load: LoadMap, duration: timedelta, constraints: Constraints) -> Counts:
    """The highest load over a run that starts in each minute of the zone's day, shape (1440,)."""
    length = min(max(1, -(-duration // timedelta(minutes=1))), len(load.load))
    ahead = offset(load.start.astimezone(zone_of(constraints.zone))) // timedelta(minutes=1)
    local = load.start.astimezone(UTC).replace(tzinfo=None) + timedelta(minutes=ahead)
    wrapped = np.concatenate((load.load, load.load[: length - 1]))
    runs = np.lib.stride_tricks.sliding_window_view(wrapped, length).max(axis=1)
    at = np.arange(len(runs)) + local.hour * 60 + local.minute
    weekday = (local.isoweekday() + at // DAY) % 7
    counted = np.isin(weekday, constraints.days or range(7))
    costs = np.zeros(DAY)
    np.maximum.at(costs, (at % DAY)[counted], runs[counted])
    return costs


def _expression(minute: int, days: tuple[int, ...]) -> str:
    return f"{minute % 60} {minute // 60} * * {','.join(map(str, sorted(days))) or '*'}"


def reasoning(slot: Slot, duration: timedelta, task_type: str) -> str:
    """Why a slot was chosen, in words."""
    share = f"{slot.load:.0%}"
    quiet = "Low load period" if slot.load <= QUIET else "The least loaded period that is allowed"
    hours = ", off-peak hours" if slot.minute // 60 in _NIGHT else ""
    minutes = max(1, -(-duration // timedelta(minutes=1)))
    length = f"{minutes:,} minute{'' if minutes == 1 else 's'}"
    return f"{quiet} ({share}){hours}, suitable for a {task_type} of {length}"
