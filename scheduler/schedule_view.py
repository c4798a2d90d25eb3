"""A fleet as a table or as JSON: what runs when next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from .clock import zone_of
from .cron import Cron
from .model import Schedule
from .occurrences import Timing, occurrences, timing_text
from .terminal import Screen
from .text_table import Column, table

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_INSTANT: Final = timedelta(microseconds=1)
STATUSES: Final = {"IN_PROGRESS": "green", "PAUSED": "yellow", "CANCELLED": "bright_black"}


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A schedule and its next run; None if there is none."""

    schedule: Schedule
    next_run: datetime | None


def upcoming(schedules: Iterable[Schedule], now: datetime) -> list[Upcoming]:
    """Schedules with their next runs after `now` (aware), the soonest first."""
    known: dict[tuple[Timing, str, datetime], datetime | None] = {}
    found = [Upcoming(one, _next_run(one, now, known)) for one in schedules]
    return sorted(found, key=lambda one: (one.next_run or _NEVER, one.schedule.label))


def _next_run(
    one: Schedule, now: datetime, known: dict[tuple[Timing, str, datetime], datetime | None]
) -> datetime | None:
    if not one.active:
        return None
    after = now if one.fromdate is None else max(now, one.fromdate - _INSTANT)
    alike = (one.timing, one.zone, after)
    if alike not in known:
        known[alike] = next(occurrences(one.timing, zone_of(one.zone), after), None)
    found = known[alike]
    ended = found is not None and one.uptodate is not None and found >= one.uptodate
    return None if ended else found


def chosen(
    schedules: Iterable[Schedule], *, status: str | None, task: str | None
) -> list[Schedule]:
    """Those of a status (`active`: those that fire), and of a task, in which `*` is anything."""
    return [
        one
        for one in schedules
        if (status is None or one.status.lower() == status or (status == "active" and one.active))
        and (task is None or fnmatchcase(one.task, task))
    ]


def schedule_table(found: Sequence[Upcoming], zone: str, on: Screen) -> list[str]:
    """A line for each schedule."""
    columns = (
        Column("NAME", least=10),
        Column("TASK", least=10),
        Column("EXPRESSION", least=12),
        Column("ZONE", least=8),
        Column("STATUS", colours=STATUSES),
        Column(f"NEXT RUN ({zone})", least=19),
        Column("TAKES", right=True),
    )
    return table(columns, [_row(one, zone) for one in found], on)


def _row(one: Upcoming, zone: str) -> list[str]:
    schedule = one.schedule
    run = one.next_run
    return [
        schedule.label,
        schedule.task,
        timing_text(schedule.timing),
        schedule.zone,
        schedule.status,
        _moment(run.astimezone(zone_of(zone))) if run else "never",
        duration_text(schedule.duration),
    ]


def _moment(run: datetime) -> str:
    return f"{run:%Y-%m-%d %H:%M:%S}" if run.second else f"{run:%Y-%m-%d %H:%M}"


def duration_text(duration: timedelta) -> str:
    """`45s`, `2m30s`, `1h05m`."""
    seconds = round(duration.total_seconds())
    if seconds < 60:
        return f"{duration.total_seconds():.3g}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s".removesuffix("00s")
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}m".removesuffix("00m")


def schedule_json(one: Upcoming, zone: str) -> dict[str, Any]:
    """The same for programs."""
    schedule = one.schedule
    run = one.next_run
    return {
        "id": schedule.id,
        "name": schedule.label,
        "task": schedule.task,
        "expression": timing_text(schedule.timing),
        "dialect": schedule.timing.dialect if isinstance(schedule.timing, Cron) else None,
        "timezone": schedule.zone,
        "status": schedule.status.value,
        "next_run": run.astimezone(zone_of(zone)).isoformat() if run else None,
        "duration_seconds": schedule.duration.total_seconds(),
        "place": str(schedule.place) if schedule.place else None,
    }
