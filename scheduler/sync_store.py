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
from .schedule_store import ACTIVE_HASH, fetch_rows, transaction

log = logging.getLogger(__name__)

ORIGIN: Final = "beat_schedule"
CLEANUP: Final = "celery.backend_cleanup"
SEEN: Final = ("task", "args", "kwargs", "options", "timezone", "dialect", "priority")
"""Columns that an entry decides, beside its expression."""
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('idemwatch:beat_schedule', 0))"
ENTRIES: Final = f"""
SELECT id, identifier, status, coalesce(unmoved_expression, cron_expression) AS cron_expression,
       task, args::text, kwargs::text, options::text, timezone, dialect, priority
  FROM schedule WHERE origin = '{ORIGIN}'
"""  # noqa: S608
ADD: Final = f"""
INSERT INTO schedule ({", ".join(WRITTEN)}, origin)
VALUES ({", ".join(f"%({name})s" for name in WRITTEN)}, '{ORIGIN}')
ON CONFLICT {ACTIVE_HASH} DO NOTHING RETURNING id
"""  # noqa: S608
# An entry that comes back is active again, unless another has taken its meaning.
CHANGE: Final = f"""
UPDATE schedule AS s
   SET {", ".join(f"{name} = %({name})s" for name in (*SEEN, "cron_expression", "schedule_hash"))},
       unmoved_expression = NULL,
       status = CASE s.status WHEN 'CANCELLED' THEN 'PENDING' ELSE s.status END
 WHERE s.id = %(id)s AND NOT EXISTS (
       SELECT FROM schedule AS o WHERE o.schedule_hash = %(schedule_hash)s AND o.id <> s.id
          AND o.status IN ('PENDING', 'IN_PROGRESS'))
RETURNING s.id
"""  # noqa: S608
CANCEL: Final = """
UPDATE schedule SET status = 'CANCELLED' WHERE id = ANY(%s) AND status <> 'CANCELLED'
"""


def entries_of(app: Any) -> list[Schedule]:
    """The app's entries, with the one that Celery's own beat adds. What is wrong is logged."""
    inventory = read_beat_schedule(app, settings_of(app))
    for problem in inventory.problems:
        log.error("an entry of beat_schedule never fires: %s", problem)
    schedules = list(inventory.schedules)
    if _needs_cleanup(app) and all(one.label != CLEANUP for one in schedules):
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

    Raises StoreUnavailable.
    """
    with transaction(link) as connection:
        connection.execute(LOCK)
        kept = {row["identifier"]: row for row in fetch_rows(connection, ENTRIES)}
        for entry in entries:
            _keep(connection, kept.pop(entry.label, None), entry)
        connection.execute(CANCEL, ([row["id"] for row in kept.values()],))


def _keep(connection: Connection, row: Mapping[str, Any] | None, entry: Schedule) -> None:
    try:
        values = values_of(entry)
    except InvalidSchedule as error:
        log.error("an entry of beat_schedule never fires here: %s", error)
        return
    if row is None:
        done = connection.execute(ADD, values).fetchone()
    elif row["status"] != "CANCELLED" and all(
        row[name] == values[name] for name in (*SEEN, "cron_expression")
    ):
        return
    else:
        done = connection.execute(CHANGE, {**values, "id": row["id"]}).fetchone()
    if done is None:
        log.info("%s of beat_schedule means the same as a schedule of the table", entry.label)
