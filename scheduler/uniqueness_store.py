"""One schedule for one meaning, and one at a time on an asset.

The unique index decides who is first; overlaps are judged while the asset is locked, so that two
transactions cannot both find it free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from psycopg.rows import tuple_row

from .config import schedule_of
from .conflicts import first_meeting
from .errors import InvalidSchedule, ScheduleConflict
from .model import Schedule
from .rows import columns, schedule_of_row, values_of
from .schedule_sql import INSERT
from .table_store import fetch_rows, transaction

ATTEMPTS: Final = 10
_ACTIVE: Final = "status IN ('PENDING', 'IN_PROGRESS')"
# Whoever adds or checks a schedule of an asset waits here for those before.
LOCK_RESOURCE: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%(resource)s, 0))"
NOW: Final = "SELECT clock_timestamp()"
ISOLATION: Final = "SELECT current_setting('transaction_isolation')"
END_PAST: Final = f"""
UPDATE schedule SET status = 'CANCELLED'
 WHERE schedule_hash = %(hash)s AND {_ACTIVE} AND uptodate <= clock_timestamp()
"""  # noqa: S608
SAME: Final = f"""
SELECT id, identifier FROM schedule WHERE schedule_hash = %(hash)s AND {_ACTIVE}
"""  # noqa: S608
ON_RESOURCE: Final = f"""
SELECT {columns()} FROM schedule
 WHERE asset_id = %(asset)s AND client_id IS NOT DISTINCT FROM %(client)s AND {_ACTIVE}
   AND id <> %(id)s AND (uptodate IS NULL OR uptodate > clock_timestamp())
 ORDER BY id
"""  # noqa: S608


class ScheduleUniquenessService:
    """Adds schedules that nothing stands in the way of.

    `connection`: the caller's own, in a transaction that the caller commits, so that what depends
    on the schedule is written with it. Not under REPEATABLE READ, which would hide from it what
    others added to the asset meanwhile.
    """

    def __init__(self, link: PostgresLink | None = None, connection: Connection | None = None):
        if (link is None) == (connection is None):
            raise ValueError("give a link or a connection, and one of them only")
        self._link, self._connection = link, connection

    def ensure_unique_schedule(
        self, schedule_config: Mapping[str, Any] | Schedule, allow_overlap: bool = False
    ) -> Schedule:
        """Add a schedule; returns it with its id.

        Raises ScheduleConflict, which names the schedule that is in the way and why: one of the
        same meaning, or, unless `allow_overlap`, one on the same asset that runs at the same time
        within a year. Raises InvalidSchedule, StoreUnavailable.
        """
        given = schedule_config
        schedule = given if isinstance(given, Schedule) else schedule_of(given)
        with self._transaction() as connection:
            return _add(connection, schedule, allow_overlap)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._connection is not None:
            _require_fresh_reads(self._connection)
            with self._connection.transaction():  # a savepoint: a refusal leaves theirs as it was
                yield self._connection
        elif self._link is not None:
            with transaction(self._link) as connection:
                yield connection


def _require_fresh_reads(connection: Connection) -> None:
    """Begins their transaction, where they have not."""
    if _row(connection, ISOLATION) == ("repeatable read",):
        raise ValueError("under REPEATABLE READ two may overlap: use READ COMMITTED")


def _add(connection: Connection, schedule: Schedule, allow_overlap: bool) -> Schedule:
    values = values_of(schedule)
    if schedule.asset_id is not None:
        resource = f"idemwatch:{schedule.asset_id}\n{schedule.client_id or ''}"
        connection.execute(LOCK_RESOURCE, {"resource": resource})
    stored = replace(schedule, id=str(_insert(connection, schedule, values)))
    if not allow_overlap and schedule.asset_id is not None:
        _require_room(connection, stored)
    return stored


def _insert(connection: Connection, schedule: Schedule, values: dict[str, Any]) -> int:
    """Its id. Asked again when the one in the way went away in between."""
    same = {"hash": values["schedule_hash"]}
    for _ in range(ATTEMPTS):
        connection.execute(END_PAST, same)
        added = _row(connection, INSERT, values)
        if added is not None:
            return int(added[0])
        met = _row(connection, SAME, same)
        if met is not None:
            detail = "same times, zone, task, arguments, asset and client"
            raise ScheduleConflict(schedule.label, str(met[0]), met[1], "duplicate", detail)
    raise ScheduleConflict(schedule.label, "", "", "duplicate", "others come and go; try again")


def _require_room(connection: Connection, schedule: Schedule) -> None:
    asked = {"asset": schedule.asset_id, "client": schedule.client_id, "id": int(schedule.id)}
    rows = fetch_rows(connection, ON_RESOURCE, asked)
    now = _now(connection)
    for other in _readable(rows):
        moment = first_meeting(schedule, other, now)
        if moment is not None:
            detail = f"both run on asset {schedule.asset_id} at {moment:%Y-%m-%d %H:%M} UTC"
            raise ScheduleConflict(schedule.label, other.id, other.label, "overlap", detail)


def _readable(rows: list[dict[str, Any]]) -> Iterator[Schedule]:
    for row in rows:
        try:
            yield schedule_of_row(row)
        except InvalidSchedule:  # it never fires; `validate-schedules` tells of it
            continue


def _now(connection: Connection) -> datetime:
    row = _row(connection, NOW)
    if row is None:
        raise AssertionError("PostgreSQL told no time")
    return row[0]  # type: ignore[no-any-return]


def _row(
    connection: Connection, statement: str, values: Mapping[str, Any] | None = None
) -> tuple[Any, ...] | None:
    """The first row as a tuple, whatever the rows of the caller's connection are."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, values).fetchone()
