"""The table of schedules: read, filled, changed and put back.

Every change names what it replaces, is written with its entry in `schedule_change` in one
transaction, and is refused as a whole when a schedule is no longer as it was read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from idemwatch.idempotency.postgres_link import Connection, PostgresLink, unavailable
from psycopg.rows import dict_row

from .changes import Change
from .errors import InvalidSchedule, ScheduleChanged, ScheduleConflict, UnknownChange
from .inventory import Inventory, Problem, inventory_of, problem_of
from .model import ACTIVE, Schedule
from .rows import COLUMNS, TABLE, WRITTEN, schedule_of_row, values_of

SELECT: Final = f"SELECT {COLUMNS} FROM schedule ORDER BY id"  # noqa: S608
ACTIVE_HASH: Final = "(schedule_hash) WHERE status IN ('PENDING', 'IN_PROGRESS')"
INSERT: Final = f"""
INSERT INTO schedule ({", ".join(WRITTEN)})
VALUES ({", ".join(f"%({name})s" for name in WRITTEN)})
ON CONFLICT {ACTIVE_HASH} DO NOTHING RETURNING id
"""  # noqa: S608
KNOWN: Final = "SELECT schedule_hash FROM schedule WHERE schedule_hash = ANY(%s)"

LOCK: Final = f"""
SELECT {COLUMNS}, schedule_hash FROM schedule WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
"""  # noqa: S608
CHANGED: Final = ("cron_expression", "unmoved_expression", "status", "schedule_hash")
# Two schedules may change places: neither has its new hash while the other has it still.
SET_ASIDE: Final = """
UPDATE schedule SET schedule_hash = schedule_hash || ':' || id WHERE id = ANY(%s)
"""
IN_THE_WAY: Final = """
SELECT id, identifier FROM schedule
 WHERE schedule_hash = ANY(%s) AND status IN ('PENDING', 'IN_PROGRESS') LIMIT 1
"""
CHANGE: Final = """
UPDATE schedule AS s
   SET cron_expression = after->>'cron_expression',
       unmoved_expression = after->>'unmoved_expression',
       status = after->>'status', schedule_hash = after->>'schedule_hash'
  FROM unnest(%(ids)s::bigint[], %(before)s::json[], %(after)s::json[]) AS g (id, before, after)
 WHERE s.id = g.id AND s.status = before->>'status'
   AND s.cron_expression IS NOT DISTINCT FROM before->>'cron_expression'
RETURNING s.id
"""
NOTE: Final = """
INSERT INTO schedule_change
    (change_id, schedule_id, changed_by, reason, before, after, reverts)
SELECT %(change)s, g.id, %(by)s, g.reason, g.before, g.after, %(reverts)s
  FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(before)s::json[], %(after)s::json[])
    AS g (id, reason, before, after)
"""
NEXT_CHANGE: Final = "SELECT nextval('schedule_change_id')"
NOTED: Final = """
SELECT schedule_id, reason, before::text, after::text,
       EXISTS (SELECT FROM schedule_change AS r WHERE r.reverts = c.change_id)
  FROM schedule_change AS c WHERE change_id = %s ORDER BY schedule_id
"""
HISTORY: Final = f"""
SELECT c.change_id, c.changed_at, c.changed_by, c.reason, c.before AS was, c.after AS became,
       (SELECT min(r.change_id) FROM schedule_change AS r WHERE r.reverts = c.change_id)
           AS reverted_by, {", ".join(f"s.{name}" for name in COLUMNS.split(", "))}
  FROM schedule_change AS c JOIN schedule AS s ON s.id = c.schedule_id
 WHERE c.change_id IN (
       SELECT DISTINCT change_id FROM schedule_change
        WHERE %(change)s::bigint IS NULL OR change_id = %(change)s
        ORDER BY change_id DESC LIMIT %(limit)s)
 ORDER BY c.change_id DESC, c.schedule_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """Changes that were made together. `reverted_by`: the change that put them back."""

    change_id: int
    at: datetime
    by: str
    reverted_by: int | None
    changes: tuple[Change, ...]


class ScheduleStore:
    """The table in one database. Every method may raise StoreUnavailable."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    def schedules(self) -> Inventory:
        """All schedules, the oldest first; rows that cannot be read are problems."""
        rows = self._link.run(lambda connection: fetch_rows(connection, SELECT))
        schedules: list[Schedule] = []
        problems: list[Problem] = []
        for row in rows:
            try:
                schedules.append(schedule_of_row(row))
            except InvalidSchedule as error:
                problems.append(problem_of(error, TABLE, f"{row['id']} ({row['identifier']})"))
        return inventory_of(TABLE.source, schedules, problems)

    def insert(self, schedules: Sequence[Schedule]) -> list[bool]:
        """Add those whose meaning is not in the table, in one transaction; True for each new one.

        Raises InvalidSchedule for one that no row can hold; nothing is written then.
        """
        given = [values_of(one) for one in schedules]
        with transaction(self._link) as connection:
            asked = [values["schedule_hash"] for values in given]
            known = {row[0] for row in connection.execute(KNOWN, (asked,))}
            chosen = _first_of_each(given, known)
            ids = _insert(connection, [given[number] for number in chosen])
        new = {number for number, found in zip(chosen, ids, strict=True) if found is not None}
        return [number in new for number in range(len(given))]

    def apply(self, changes: Sequence[Change], by: str) -> int:
        """Make the changes, all or none; the id that `revert` takes. Raises ScheduleChanged."""
        if not changes:
            raise ValueError("no change to apply")
        with transaction(self._link) as connection:
            found = _locked(connection, [int(one.before.id) for one in changes])
            missed = tuple(one.before.id for one in changes if not _is_as_read(one.before, found))
            if missed:
                raise ScheduleChanged(missed)
            rows = [_row(one, found[one.before.id]) for one in changes]
            return _change(connection, rows, by, reverts=None)

    def revert(self, change_id: int, by: str) -> int:
        """Put back what a change changed, all or none; the id of that change.

        Raises UnknownChange, and ScheduleChanged if a schedule was changed again since.
        """
        with transaction(self._link) as connection:
            noted = connection.execute(NOTED, (change_id,)).fetchall()
            if not noted:
                raise UnknownChange(change_id, "there is none of this id")
            if noted[0][4]:
                raise UnknownChange(change_id, "it was reverted already")
            rows = [(one, "revert", after, before) for one, _, before, after, _ in noted]
            try:
                return _change(connection, rows, by, reverts=change_id)
            except psycopg.errors.UniqueViolation as error:
                if error.diag.constraint_name == "schedule_change_reverted_once":
                    raise UnknownChange(change_id, "it was reverted already") from None
                raise

    def changes(self, change_id: int | None = None, limit: int = 20) -> list[ChangeRecord]:
        """The newest changes, or one of them."""
        asked = {"change": change_id, "limit": limit}
        rows = self._link.run(lambda connection: fetch_rows(connection, HISTORY, asked))
        return list(_records(rows))


@contextmanager
def transaction(link: PostgresLink) -> Iterator[Connection]:
    """A connection in a transaction of its own. Raises StoreUnavailable."""
    try:
        with link.connection() as connection, connection.transaction():
            yield connection
    except psycopg.errors.UniqueViolation as error:  # another transaction was first
        raise ScheduleConflict("a schedule", "", "", "duplicate", "added just now") from error
    except psycopg.Error as error:
        raise unavailable(error) from error


def fetch_rows(
    connection: Connection, statement: str, values: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The rows of a statement as dicts."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()


def _first_of_each(given: Sequence[dict[str, Any]], known: Iterable[str]) -> list[int]:
    seen = set(known)
    chosen = []
    for number, values in enumerate(given):
        if values["schedule_hash"] not in seen:
            seen.add(values["schedule_hash"])
            chosen.append(number)
    return chosen


def _insert(connection: Connection, given: Sequence[dict[str, Any]]) -> list[int | None]:
    """The ids of the new rows, None where another transaction was first."""
    if not given:
        return []
    with connection.cursor() as cursor:
        cursor.executemany(INSERT, given, returning=True)
        found: list[int | None] = []
        for _ in cursor.results():
            row = cursor.fetchone()
            found.append(row[0] if row else None)
        return found


def _locked(connection: Connection, ids: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The rows of schedules by id, which stay as they are until the transaction ends."""
    rows = fetch_rows(connection, LOCK, {"ids": ids})
    return {str(row["id"]): row for row in rows}


def _is_as_read(before: Schedule, found: Mapping[str, dict[str, Any]]) -> bool:
    row = found.get(before.id)
    if row is None:
        return False
    try:
        now = schedule_of_row({name: row[name] for name in row if name != "schedule_hash"})
    except InvalidSchedule:
        return False
    return (now.timing, now.status) == (before.timing, before.status)


def _row(change: Change, row: Mapping[str, Any]) -> tuple[int, str, str, str]:
    """A change with the values that it changes, before and after, as JSON."""
    before, after = (
        json.dumps({name: values[name] for name in CHANGED})
        for values in (row, values_of(change.after))
    )
    return int(change.before.id), change.reason, before, after


def _change(
    connection: Connection, rows: Sequence[tuple[int, str, str, str]], by: str, reverts: int | None
) -> int:
    """Make and note changes (schedule, reason, before, after) in the caller's transaction."""
    ids, reasons, before, after = (list(column) for column in zip(*rows, strict=True))
    row = connection.execute(NEXT_CHANGE).fetchone()
    change_id = int(row[0]) if row else 0
    connection.execute(SET_ASIDE, (ids,))
    _require_unique(connection, after)
    written = {"ids": ids, "before": before, "after": after}
    done = {one[0] for one in connection.execute(CHANGE, written)}
    if missed := [str(one) for one in ids if one not in done]:
        raise ScheduleChanged(tuple(missed))
    noted = {"change": change_id, "by": by, "reverts": reverts, "reasons": reasons}
    connection.execute(NOTE, {**written, **noted})
    return change_id


def _require_unique(connection: Connection, after: Sequence[str]) -> None:
    """Raise ScheduleConflict if a changed schedule would mean the same as another active one."""
    values = [json.loads(one) for one in after]
    hashes = [one["schedule_hash"] for one in values if one["status"] in ACTIVE]
    met = connection.execute(IN_THE_WAY, (hashes,)).fetchone()
    if met is None and len(set(hashes)) == len(hashes):
        return
    number, name = met or ("", "one of the same change")
    detail = "after the change it would mean the same"
    raise ScheduleConflict("a changed schedule", str(number), name, "duplicate", detail)


def _records(rows: Iterable[dict[str, Any]]) -> Iterator[ChangeRecord]:
    found: dict[int, tuple[dict[str, Any], list[Change]]] = {}
    for row in rows:
        columns = {name: row[name] for name in row if name not in _NOTES}
        before, after = (
            schedule_of_row({**columns, **_without_hash(row[name])}) for name in ("was", "became")
        )
        found.setdefault(row["change_id"], (row, []))[1].append(
            Change(before, after, row["reason"])
        )
    for change_id, (row, changes) in found.items():
        yield ChangeRecord(
            change_id, row["changed_at"], row["changed_by"], row["reverted_by"], tuple(changes)
        )


_NOTES: Final = (
    "change_id", "changed_at", "changed_by", "reason", "was", "became", "reverted_by",
)  # fmt: skip


def _without_hash(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "schedule_hash"}
