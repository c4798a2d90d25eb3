"""A schedule as a row of the table `schedule`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .config import schedule_of
from .cron import Cron
from .dialects import VIXIE
from .errors import InvalidSchedule
from .identity import schedule_hash
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import Schedule
from .occurrences import Moments, Timing, timing_text
from .place import Place

TABLE: Final = Place("table")
NAMES: Final = (
    "id", "identifier", "task", "args", "kwargs", "options", "cron_expression",
    "unmoved_expression", "dialect", "timezone", "asset_id", "client_id", "status", "is_recurring",
    "fromdate", "uptodate", "priority", "duration_estimate_seconds", "movable", "window_minutes",
    "misfire_grace_seconds", "catch_up", "overlap",
)  # fmt: skip
WRITTEN: Final = (*NAMES[1:], "schedule_hash")
# JSON is read as text: it stays as it was written, and need not be parsed twice. A date that Python
# has no value for, as 'infinity', is as good as the last or the first that it has.
_READ_AS: Final = {
    "args": "{t}.args::text",
    "kwargs": "{t}.kwargs::text",
    "options": "{t}.options::text",
    "fromdate": "CASE WHEN {t}.fromdate > '0002-01-01Z' THEN least({t}.fromdate, '9998-12-31Z') "
    "END AS fromdate",
    "uptodate": "CASE WHEN {t}.uptodate < '9998-12-31Z' THEN greatest({t}.uptodate, '0002-01-01Z') "
    "END AS uptodate",
}


def columns(table: str = "schedule") -> str:
    """What to SELECT of a table or its alias for `schedule_of_row`."""
    return ", ".join(_READ_AS.get(name, "{t}." + name).format(t=table) for name in NAMES)


def read_row(row: Mapping[str, Any]) -> Schedule | Problem:
    """The schedule of a row, or what keeps it from being read."""
    try:
        return schedule_of_row(row)
    except InvalidSchedule as error:
        return problem_of(error, TABLE, f"{row['id']} ({row['identifier']})")


def inventory_of_table(found: Iterable[Schedule | Problem]) -> Inventory:
    """All rows that were read, as one inventory."""
    rows = list(found)
    schedules = [one for one in rows if isinstance(one, Schedule)]
    return inventory_of(TABLE.source, schedules, [one for one in rows if isinstance(one, Problem)])


def schedule_of_row(row: Mapping[str, Any]) -> Schedule:
    """The schedule of a row with `columns()`. Raises InvalidSchedule for what others wrote."""
    return schedule_of({**row, "id": str(row["id"])}, place=TABLE)


def values_of(schedule: Schedule) -> dict[str, Any]:
    """The values of `WRITTEN`. Raises InvalidSchedule for one that no row can hold."""
    timing = schedule.timing
    single = isinstance(timing, Moments)
    values = {
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
    for name, value in values.items():
        if isinstance(value, str) and not storable(value):
            raise InvalidSchedule(schedule.label, name, "it has a character that no table keeps")
    return values


def storable(text: str) -> bool:
    """Whether PostgreSQL keeps a text: no NUL, and no half of a surrogate pair."""
    try:
        return "\0" not in text and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _single(schedule: Schedule, timing: Timing) -> Any:
    if isinstance(timing, Moments) and len(timing.at) == 1:
        return timing.at[0]
    raise InvalidSchedule(
        schedule.label,
        timing_text(timing),
        "no expression tells when it runs, so no table keeps it",
    )
