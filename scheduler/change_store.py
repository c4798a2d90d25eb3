"""Changes of the table's schedules in a transaction of the caller's: made, noted, and put back.

What a schedule means is told from its row as it is locked, which others may have changed since it
was read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import psycopg
from idemwatch.idempotency.postgres_link import Connection

from . import schedule_sql as sql
from .changes import Change
from .errors import InvalidSchedule, ScheduleChanged, ScheduleConflict, UnknownChange
from .model import ACTIVE, Schedule
from .rows import NAMES, schedule_of_row, values_of
from .table_store import TAKE_TURNS, fetch_rows

log = logging.getLogger(__name__)

CHANGED: Final = ("cron_expression", "unmoved_expression", "status", "schedule_hash")
Row = Mapping[str, Any]
Written = tuple[int, str, str, str]
"""Schedule, reason, and the values of CHANGED before and after, as JSON."""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """Changes that were made together. `reverted_by`: the change that put them back."""

    change_id: int
    at: datetime
    by: str
    reverted_by: int | None
    changes: tuple[Change, ...]


def apply_changes(connection: Connection, changes: Sequence[Change], by: str) -> int:
    """Make the changes, all or none; their id. Raises ScheduleChanged, ScheduleConflict."""
    connection.execute(TAKE_TURNS)
    found = _locked(connection, [int(one.before.id) for one in changes])
    read = {one.before.id: _as_read(one.before, found.get(one.before.id)) for one in changes}
    if missed := tuple(name for name, one in read.items() if one is None):
        raise ScheduleChanged(missed)
    rows = [
        _written(one, found[name], now)
        for one in changes
        if (now := read[name := one.before.id]) is not None
    ]
    return _change(connection, rows, by, reverts=None)


def revert_change(connection: Connection, change_id: int, by: str) -> int:
    """Put back what a change changed, all or none; the id of that change.

    Raises UnknownChange, ScheduleChanged, ScheduleConflict.
    """
    connection.execute(TAKE_TURNS)
    noted = connection.execute(sql.NOTED, (change_id,)).fetchall()
    if not noted:
        raise UnknownChange(change_id, "there is none of this id")
    if noted[0][3]:
        raise UnknownChange(change_id, "it was reverted already")
    found = _locked(connection, [one for one, *_ in noted])
    rows = [
        (one, "revert", after, _put_back(found.get(str(one)), one, before))
        for one, before, after, _ in noted
    ]
    try:
        return _change(connection, rows, by, reverts=change_id)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name == "schedule_change_reverted_once":
            raise UnknownChange(change_id, "it was reverted already") from None
        raise


def records(rows: Iterable[Row]) -> list[ChangeRecord]:
    """The changes of HISTORY's rows."""
    found: dict[int, tuple[Row, list[Change]]] = {}
    for row in rows:
        made = found.setdefault(row["change_id"], (row, []))[1]
        try:
            before, after = (_at(row, row[name]) for name in ("was", "became"))
        except InvalidSchedule as error:
            log.warning("change %s of schedule %s: %s", row["change_id"], row["id"], error)
        else:
            made.append(Change(before, after, row["reason"]))
    return [
        ChangeRecord(
            change_id, row["changed_at"], row["changed_by"], row["reverted_by"], tuple(changes)
        )
        for change_id, (row, changes) in found.items()
    ]


def _locked(connection: Connection, ids: Sequence[int]) -> dict[str, Row]:
    """The rows of schedules by id, which stay as they are until the transaction ends."""
    rows = fetch_rows(connection, sql.LOCK, {"ids": ids})
    return {str(row["id"]): row for row in rows}


def _as_read(before: Schedule, row: Row | None) -> Schedule | None:
    """The schedule as it is; None if it has other times or another status than when it was read."""
    try:
        now = None if row is None else _at(row)
    except InvalidSchedule:
        return None
    same = now is not None and (now.timing, now.status) == (before.timing, before.status)
    return now if same else None


def _written(change: Change, row: Row, now: Schedule) -> Written:
    to = change.after
    after = values_of(replace(now, timing=to.timing, unmoved=to.unmoved, status=to.status))
    return int(change.before.id), change.reason, _noted(row), _noted(after)


def _put_back(row: Row | None, schedule_id: int, before: str) -> str:
    """What CHANGED shall be again. Raises ScheduleChanged for a row that cannot be read."""
    try:
        return _noted(values_of(_at(row or {}, json.loads(before))))
    except (InvalidSchedule, KeyError):
        raise ScheduleChanged((str(schedule_id),)) from None


def _noted(values: Row) -> str:
    return json.dumps({name: values[name] for name in CHANGED})


def _at(row: Row, other: Row | None = None) -> Schedule:
    """The schedule of a row, with `other` values of CHANGED. Raises InvalidSchedule."""
    values = {**row, **(other or {})}
    return schedule_of_row({name: values[name] for name in NAMES})


def _change(connection: Connection, rows: Sequence[Written], by: str, reverts: int | None) -> int:
    ids, reasons, before, after = (list(column) for column in zip(*rows, strict=True))
    row = connection.execute(sql.NEXT_CHANGE).fetchone()
    change_id = int(row[0]) if row else 0
    connection.execute(sql.SET_ASIDE, (ids,))
    _require_unique(connection, after)
    written = {"ids": ids, "before": before, "after": after}
    done = {one[0] for one in connection.execute(sql.CHANGE, written)}
    if missed := [str(one) for one in ids if one not in done]:
        raise ScheduleChanged(tuple(missed))
    noted = {"change": change_id, "by": by, "reverts": reverts, "reasons": reasons}
    connection.execute(sql.NOTE, {**written, **noted})
    return change_id


def _require_unique(connection: Connection, after: Sequence[str]) -> None:
    """Raise ScheduleConflict if a changed schedule would mean the same as another active one."""
    values = [json.loads(one) for one in after]
    hashes = [one["schedule_hash"] for one in values if one["status"] in ACTIVE]
    met = connection.execute(sql.IN_THE_WAY, (hashes,)).fetchone()
    if met is None and len(set(hashes)) == len(hashes):
        return
    number, name = met or ("", "one of the same change")
    detail = "after the change it would mean the same"
    raise ScheduleConflict("a changed schedule", str(number), name, "duplicate", detail)
