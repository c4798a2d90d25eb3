"""Keeps the app's beat_schedule in the table: its entries are added, changed and taken out there.

An entry that an operator moved or paused stays moved or paused; one that the app no longer has is
cancelled. What others added to the table is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from idemwatch.idempotency.app_settings import settings_of
from idemwatch.idempotency.postgres_link import Connection, PostgresLink

from .beat_source import read_beat_schedule
from .celery_timing import zone_name
from .config import canonical_json
from .cron import parse_cron
from .dialects import CELERY
from .errors import InvalidSchedule
from .model import Schedule
from .rows import WRITTEN, values_of
from .schedule_sql import ACTIVE_HASH, SET_ASIDE
from .table_store import TAKE_TURNS, fetch_rows, transaction

log = logging.getLogger(__name__)

ORIGIN: Final = "beat_schedule"
CLEANUP: Final = "celery.backend_cleanup"
SEEN: Final = ("task", "args", "kwargs", "options", "timezone", "dialect", "priority")
"""Columns that an entry decides, beside its expression."""
ENTRIES: Final = f"""
SELECT id, identifier, status, coalesce(unmoved_expression, cron_expression) AS cron_expression,
       task, args::text, kwargs::text, options::text, timezone, dialect, priority
  FROM schedule WHERE origin = '{ORIGIN}' ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608
ADD: Final = f"""
INSERT INTO schedule ({", ".join(WRITTEN)}, origin)
VALUES ({", ".join(f"%({name})s" for name in WRITTEN)}, '{ORIGIN}')
ON CONFLICT {ACTIVE_HASH} DO NOTHING RETURNING id
"""  # noqa: S608
# An entry that comes back is active again. One whose meaning another has taken is not.
CHANGE: Final = f"""
UPDATE schedule AS s
   SET {", ".join(f"{name} = %({name})s" for name in (*SEEN, "cron_expression", "schedule_hash"))},
       unmoved_expression = NULL,
       status = CASE WHEN s.status = 'PAUSED' THEN 'PAUSED'
           WHEN EXISTS (SELECT FROM schedule AS o
                         WHERE o.schedule_hash = %(schedule_hash)s AND o.id <> s.id
                           AND o.status IN ('PENDING', 'IN_PROGRESS')) THEN 'CANCELLED'
           WHEN s.status = 'CANCELLED' THEN 'PENDING' ELSE s.status END
 WHERE s.id = %(id)s RETURNING nullif(s.status, 'CANCELLED')
"""  # noqa: S608
CANCEL: Final = """
UPDATE schedule SET status = 'CANCELLED' WHERE id = ANY(%s) AND status <> 'CANCELLED'
"""


def entries_of(app: Any) -> list[Schedule]:
    """The app's entries, with the one that Celery's own beat adds. What is wrong is logged.

    One that is not enabled is none: taken out of the table, and active again when it is back.
    """
    inventory = read_beat_schedule(app, settings_of(app))
    for problem in inventory.problems:
        log.error("an entry of beat_schedule never fires: %s", problem)
    schedules = [one for one in inventory.schedules if one.active]
    if _needs_cleanup(app) and all(one.label != CLEANUP for one in inventory.schedules):
        schedules.append(_cleanup(app))
    return schedules


def _cleanup(app: Any) -> Schedule:
    """As Celery's beat has it, for result backends that expire nothing by themselves."""
    return Schedule(
        id=CLEANUP,
        task=CLEANUP,
        timing=parse_cron("0 4 * * *", CELERY.name),
        zone=zone_name(app.timezone),
        options=canonical_json({"expires": 12 * 3600}),
    )


def _needs_cleanup(app: Any) -> bool:
    return bool(app.conf.result_expires) and not app.backend.supports_autoexpire


def sync(link: PostgresLink, entries: Sequence[Schedule]) -> None:
    """Make the table's entries those given, in one transaction. Beats that start take turns.

    What is gone or changed gives up its meaning before another entry takes it, as a new name does.

    Raises StoreUnavailable, ScheduleConflict.
    """
    given = {entry.label: values for entry in entries if (values := _values(entry)) is not None}
    with transaction(link) as connection:
        connection.execute(TAKE_TURNS)
        kept = {row["identifier"]: row for row in fetch_rows(connection, ENTRIES)}
        gone = [row["id"] for name, row in kept.items() if name not in given]
        connection.execute(CANCEL, (gone,))
        changed = {
            name: kept[name]["id"]
            for name, values in given.items()
            if name in kept and not _is_same(kept[name], values)
        }
        connection.execute(SET_ASIDE, (list(changed.values()),))
        for name, values in given.items():
            if name in changed:
                _write(connection, name, CHANGE, {**values, "id": changed[name]})
            elif name not in kept:
                _write(connection, name, ADD, values)


def _values(entry: Schedule) -> dict[str, Any] | None:
    try:
        return values_of(entry)
    except InvalidSchedule as error:
        log.error("an entry of beat_schedule never fires here: %s", error)
        return None


def _is_same(row: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    decided = (*SEEN, "cron_expression")
    return row["status"] != "CANCELLED" and all(row[name] == values[name] for name in decided)


def _write(connection: Connection, name: str, statement: str, values: Mapping[str, Any]) -> None:
    done = connection.execute(statement, values).fetchone()
    if done is None or done[0] is None:
        log.info("%s of beat_schedule means the same as a schedule of the table", name)
