"""A schedule as a row of the table `schedule`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .config import schedule_of
from .cron import Cron
from .dialects import VIXIE
from .errors import InvalidSchedule
from .identity import schedule_hash
from .model import Schedule
from .occurrences import Moments, Timing, timing_text
from .place import Place

TABLE: Final = Place("table")
# JSON is read as text: it stays as it was written, and need not be parsed twice.
COLUMNS: Final = (
    "id, identifier, task, args::text, kwargs::text, options::text, cron_expression, "
    "unmoved_expression, dialect, timezone, asset_id, client_id, status, is_recurring, fromdate, "
    "uptodate, priority, duration_estimate_seconds, movable, window_minutes, "
    "misfire_grace_seconds, catch_up, overlap"
)
NAMES: Final = tuple(one.strip().removesuffix("::text") for one in COLUMNS.split(","))
WRITTEN: Final = (*NAMES[1:], "schedule_hash")


def schedule_of_row(row: Mapping[str, Any]) -> Schedule:
    """The schedule of a row with `COLUMNS`. Raises InvalidSchedule for what others wrote there."""
    return schedule_of({**row, "id": str(row["id"])}, place=TABLE)


def values_of(schedule: Schedule) -> dict[str, Any]:
    """The values of `WRITTEN`. Raises InvalidSchedule for one that no expression tells."""
    timing = schedule.timing
    single = isinstance(timing, Moments)
    return {
        "identifier": schedule.label,
        "task": schedule.task,
        "args": schedule.args,
        "kwargs": schedule.kwargs,
        "options": schedule.options,
        "cron_expression": None if single else timing_text(timing),
        "unmoved_expression": None if schedule.unmoved is None else timing_text(schedule.unmoved),
        "dialect": timing.dialect if isinstance(timing, Cron) else VIXIE.name,
        "timezone": schedule.zone,
        "asset_id": schedule.asset_id,
        "client_id": schedule.client_id,
        "status": schedule.status.value,
        "is_recurring": not single,
        "fromdate": _single(schedule, timing) if single else schedule.fromdate,
        "uptodate": schedule.uptodate,
        "priority": schedule.priority,
        "duration_estimate_seconds": schedule.duration.total_seconds(),
        "movable": schedule.movable,
        "window_minutes": int(schedule.window.total_seconds()) // 60,
        "misfire_grace_seconds": int(schedule.misfire_grace.total_seconds()),
        "catch_up": schedule.catch_up.value,
        "overlap": schedule.overlap.value,
        "schedule_hash": schedule_hash(schedule),
    }


def _single(schedule: Schedule, timing: Timing) -> Any:
    if isinstance(timing, Moments) and len(timing.at) == 1:
        return timing.at[0]
    raise InvalidSchedule(
        schedule.label,
        timing_text(timing),
        "no expression tells when it runs, so no table keeps it",
    )
