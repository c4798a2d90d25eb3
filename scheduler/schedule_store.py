"""The table of schedules: read, filled, changed and put back.

Every change names what it replaces, is written with its entry in `schedule_change` in one
transaction, and is refused as a whole when a schedule is no longer as it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from idemwatch.idempotency.postgres_link import Connection, PostgresLink

from . import schedule_sql as sql
from .change_store import ChangeRecord, apply_changes, records, revert_change
from .changes import Change
from .inventory import Inventory
from .model import Schedule
from .rows import inventory_of_table, read_row, values_of
from .table_store import TAKE_TURNS, fetch_rows, transaction


class ScheduleStore:
    """The table in one database. Every method may raise StoreUnavailable."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    def schedules(self) -> Inventory:
        """All schedules, the oldest first; rows that cannot be read are problems."""
        rows = self._link.run(lambda connection: fetch_rows(connection, sql.SELECT))
        return inventory_of_table(read_row(row) for row in rows)

    def insert(self, schedules: Sequence[Schedule]) -> list[bool]:
        """Add those whose meaning is not in the table, in one transaction; True for each new one.

        Raises InvalidSchedule for one that no row can hold; nothing is written then.
        """
        given = [values_of(one) for one in schedules]
        with transaction(self._link) as connection:
            connection.execute(TAKE_TURNS)
            asked = [values["schedule_hash"] for values in given]
            known = {row[0] for row in connection.execute(sql.KNOWN, {"hashes": asked})}
            chosen = _first_of_each(given, known)
            ids = _insert(connection, [given[number] for number in chosen])
        new = {number for number, found in zip(chosen, ids, strict=True) if found is not None}
        return [number in new for number in range(len(given))]

    def apply(self, changes: Sequence[Change], by: str) -> int:
        """Make the changes, all or none; the id that `revert` takes.

        Raises ScheduleChanged, ScheduleConflict.
        """
        if not changes:
            raise ValueError("no change to apply")
        with transaction(self._link) as connection:
            return apply_changes(connection, changes, by)

    def revert(self, change_id: int, by: str) -> int:
        """Put back what a change changed, all or none; the id of that change.

        Raises UnknownChange, and ScheduleChanged if a schedule was changed again since.
        """
        with transaction(self._link) as connection:
            return revert_change(connection, change_id, by)

    def changes(self, change_id: int | None = None, limit: int = 20) -> list[ChangeRecord]:
        """The newest changes, or one of them."""

        def read(connection: Connection) -> list[dict[str, Any]]:
            ids = [change_id]
            if change_id is None:
                ids = [row[0] for row in connection.execute(sql.LATEST, (limit,))]
            return fetch_rows(connection, sql.HISTORY, {"ids": ids})

        return records(self._link.run(read))


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
        cursor.executemany(sql.INSERT, given, returning=True)
        found: list[int | None] = []
        for _ in cursor.results():
            row = cursor.fetchone()
            found.append(row[0] if row else None)
        return found
