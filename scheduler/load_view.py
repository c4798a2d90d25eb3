"""The day of a fleet as text: a bar for each half hour, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .bars import axis_for, bar, colour_of, percent, ruler
from .capacity import Capacity
from .health import Health
from .terminal import Screen

_RIGHT: Final = 15
"""Columns right of a bar."""
GRADES: Final = {"A": "green", "B": "green", "C": "yellow", "D": "yellow", "F": "red"}


@dataclass(frozen=True, slots=True)
class Day:
    """The health of a fleet, half hours in `zone`; `starts`: schedules that start in each."""

    health: Health
    starts: Sequence[int]
    capacity: Capacity
    zone: str


def time_of(slot: int) -> str:
    """When a half hour begins."""
    return f"{slot // 2:02}:{slot % 2 * 30:02}"


def load_chart(day: Day, on: Screen) -> list[str]:
    """A title for the columns, and a line for each half hour."""
    loads = list(day.health.slots)
    axis = axis_for(loads, on.width - _RIGHT - len("00:00 "))
    lines = [on.styled(f"      {ruler(axis)}   load  starts", dim=True)]
    for slot, (load, starts) in enumerate(zip(loads, day.starts, strict=True)):
        share = on.styled(f"{percent(load):>7}", colour_of(load) if load else None)
        lines.append(f"{time_of(slot)} {bar(load, axis, on)}{share}{starts or '':>8}")
    return lines


def load_summary(day: Day, on: Screen) -> list[str]:
    """What the chart comes to."""
    found, (slots, source) = day.health, day.capacity
    highest = max(found.slots)
    runs = round(highest * slots)
    at = f" at {time_of(found.slots.index(highest))}, {runs:,} at once" if highest else ""
    grade = on.styled(f"{found.score} of 100, grade {found.grade}", GRADES[found.grade])
    return [
        f"highest load  {highest:.0%}{at}",
        f"mean load     {found.load.load.mean():.0%}",
        f"capacity      {slots:,.9g} at once ({capacity_source(source)})",
        f"health        {grade}",
        f"              {', '.join(_parts(found))}",
    ]


def capacity_source(source: str) -> str:
    """Who said how much the workers take."""
    known = {
        "option": "from --capacity",
        "workers": "the live workers",
        "setting": "from idempotency_schedule_capacity",
        "default": "assumed: --capacity says better",
    }
    return known.get(source, source)


def _parts(found: Health) -> list[str]:
    return [
        counted(len(found.hotspots), "hot half hour"),
        counted(len(found.conflicts), "schedule", "in conflict"),
        counted(found.unbalanced_hours, "other hour", "over 50%"),
    ]


def counted(count: int, noun: str, rest: str = "") -> str:
    """`1 hour`, `2 hours`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'} {rest}".rstrip()


def load_json(day: Day) -> dict[str, Any]:
    """The same for programs."""
    found = day.health
    return {
        "at": found.load.start.isoformat(),
        "timezone": day.zone,
        "capacity": {"slots": day.capacity.slots, "source": day.capacity.source},
        "schedules": found.schedules,
        "highest_load": max(found.slots),
        "mean_load": float(found.load.load.mean()),
        "score": found.score,
        "raw_score": found.raw_score,
        "grade": found.grade,
        "hotspots": len(found.hotspots),
        "conflicts": len(found.conflicts),
        "unbalanced_hours": found.unbalanced_hours,
        "half_hours": [
            {"time": time_of(slot), "load": load, "starts": starts}
            for slot, (load, starts) in enumerate(zip(found.slots, day.starts, strict=True))
        ],
    }
