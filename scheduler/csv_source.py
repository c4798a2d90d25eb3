"""Schedules from CSV: a header line, and a row for each.

Columns: name, schedule (a cron expression, or `every 300s`), and if wanted dialect, timezone,
queue_or_task, and the keys of config.py. Where the dialect is celery or sidekiq, queue_or_task is
the task; elsewhere it may be a queue or a user, and the name tells what runs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

from .config import KEYS, schedule_of
from .errors import InvalidSchedule
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import Schedule
from .place import Place

REQUIRED: Final = ("name", "schedule")
OPTIONAL: Final = ("dialect", "timezone", "queue_or_task", "source")
NAMES_TASKS: Final = ("celery", "sidekiq")
_GIVEN: Final = KEYS - {"id", "identifier", "cron_expression", "is_recurring"}
SUSPENDED: Final = "(suspended)"
_BOM: Final = "\ufeff"


def read_csv(path: str, text: str) -> Inventory:
    """The schedules of a file's text, and the rows that are wrong. Raises InvalidSchedule."""
    rows = csv.reader(io.StringIO(text.removeprefix(_BOM), newline=""), strict=True)
    schedules: list[Schedule] = []
    problems: list[Problem] = []
    header: list[str] = []
    for line, row in _rows(rows):
        if isinstance(row, csv.Error):
            told = f"no CSV: {row}; a quote within quotes is doubled"
            problems.append(Problem(Place(path, line), told))
            if not header:
                break
        elif not header:
            header = _header(path, row)
        else:
            _add(Place(path, line), header, row, schedules, problems)
    if not header and not problems:
        _header(path, [])
    return inventory_of(path, schedules, problems)


def _rows(rows: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The rows with the lines they begin at; what is no CSV does not hide those after it."""
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
        else:
            if row:
                yield line, [value.strip() for value in row]


def _header(path: str, header: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        wanted = ", ".join((*REQUIRED, *OPTIONAL))
        raise InvalidSchedule(path, "header", f"it lacks {missing[0]!r}; columns: {wanted}")
    known = {*REQUIRED, *OPTIONAL, *_GIVEN}
    for name in header:
        if header.count(name) > 1:
            raise InvalidSchedule(path, "header", f"column {name!r} is given twice")
        if name not in known:
            raise InvalidSchedule(
                path, "header", f"no column {name!r}; known: {', '.join(sorted(known))}"
            )
    return header


def _add(
    place: Place,
    header: list[str],
    row: list[str],
    schedules: list[Schedule],
    problems: list[Problem],
) -> None:
    given = dict(zip(header, row, strict=False))
    name = given.get("name", "")
    if len(row) != len(header):
        problems.append(
            Problem(place, f"{len(row)} values for {len(header)} columns; quote commas", name)
        )
        return
    try:
        schedules.append(schedule_of(_config(given), place=place))
    except InvalidSchedule as error:
        problems.append(problem_of(error, place, name))


def _config(given: dict[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {key: given[key] for key in _GIVEN if given.get(key)}
    config["cron_expression"] = given["schedule"]
    config["identifier"] = given["name"]
    config["task"] = given.get("task") or _task(given)
    if given.get("queue_or_task", "").endswith(SUSPENDED):
        config.setdefault("status", "PAUSED")
    return config


def _task(given: dict[str, str]) -> str:
    label = given.get("queue_or_task", "")
    return label if label and given.get("dialect") in NAMES_TASKS else given["name"]
