"""The table as a source: its schedules, with the durations that their runs really have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from idemwatch.idempotency.settings import Settings

from .config import LONGEST_DURATION
from .inventory import Inventory
from .model import Schedule
from .rows import TABLE
from .schedule_store import ScheduleStore

LATEST_RUNS: Final = 200
SHORTEST: Final = timedelta(milliseconds=1)
# A run begins at its fence: its record is as old as the first attempt, and waits between retries
# are no work. Of times that no clock shows, as 'infinity', no difference means anything.
_RUN_SECONDS: Final = """greatest(0, extract(epoch FROM r.completed_at)::float8
               - greatest(extract(epoch FROM r.created_at)::float8, r.fence / 1e6))"""
BY_SCHEDULE: Final = f"""
SELECT f.schedule_id::text, percentile_cont(0.95) WITHIN GROUP (
           ORDER BY {_RUN_SECONDS})
  FROM schedule_firing AS f
  JOIN idempotency_record AS r ON r.key = %(prefix)s || f.record_key
 WHERE r.state = 'done' AND f.due_at > statement_timestamp() - interval '7 days'
   AND r.created_at BETWEEN '1970-01-01Z' AND '9999-01-01Z'
   AND r.completed_at BETWEEN '1970-01-01Z' AND '9999-01-01Z'
 GROUP BY f.schedule_id
"""  # noqa: S608  only constants
BY_TASK: Final = f"""
SELECT t.task, percentile_cont(0.95) WITHIN GROUP (
           ORDER BY {_RUN_SECONDS})
  FROM unnest(%(tasks)s::text[]) AS t (task)
 CROSS JOIN LATERAL (
       SELECT created_at, completed_at, fence FROM idempotency_record
        WHERE endpoint = t.task AND state = 'done' AND starts_with(key, %(prefix)s)
        ORDER BY created_at DESC LIMIT %(latest)s) AS r
 WHERE r.created_at BETWEEN '1970-01-01Z' AND '9999-01-01Z'
   AND r.completed_at BETWEEN '1970-01-01Z' AND '9999-01-01Z'
 GROUP BY t.task
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Durations:
    """The 95th percentile of what runs take: by schedule id, and by task."""

    by_schedule: Mapping[str, timedelta] = field(default_factory=dict)
    by_task: Mapping[str, timedelta] = field(default_factory=dict)

    def of(self, schedule: Schedule) -> timedelta:
        """That of its own runs, else of its task's, else its estimate."""
        own = self.by_schedule.get(schedule.id)
        return own or self.by_task.get(schedule.task) or schedule.duration


def read_table(app: Any | None, settings: Settings) -> Inventory:  # noqa: ARG001
    """The schedules of the database. Raises ConfigurationError without one, StoreUnavailable."""
    if settings.database_url is None:
        raise ConfigurationError(
            "idempotency_database_url",
            "is not set: the table needs it, say --database-url postgresql://user@host/db",
        )
    link = PostgresLink(settings.database_url, pooled=settings.database_pooled)
    try:
        inventory = ScheduleStore(link).schedules()
        return measured(inventory, durations(link, settings.namespace, inventory))
    finally:
        link.close()


def measured(inventory: Inventory, found: Durations) -> Inventory:
    """The inventory with durations that were measured, where there are any."""
    schedules = tuple(replace(one, duration=found.of(one)) for one in inventory.schedules)
    return replace(inventory, schedules=schedules)


def measured_by_task(inventory: Inventory, settings: Settings) -> Inventory:
    """An inventory of another source, with the durations of its tasks' runs.

    Raises StoreUnavailable.
    """
    if settings.database_url is None:
        return inventory
    link = PostgresLink(settings.database_url, pooled=settings.database_pooled)
    try:
        return measured(inventory, durations(link, settings.namespace, inventory))
    finally:
        link.close()


def durations(link: PostgresLink, namespace: str, inventory: Inventory) -> Durations:
    """What the finished records of the tasks tell; of the table's schedules each by itself too."""
    return link.run(lambda connection: durations_on(connection, namespace, inventory))


def durations_on(connection: Connection, namespace: str, inventory: Inventory) -> Durations:
    """The same over a connection that somebody has."""
    tasks = sorted({one.task for one in inventory.schedules})
    given = {"prefix": f"{namespace}:", "latest": LATEST_RUNS, "tasks": tasks}
    own = _p95(connection, BY_SCHEDULE, given) if inventory.source == TABLE.source else {}
    return Durations(own, _p95(connection, BY_TASK, given))


def _p95(connection: Connection, statement: str, given: dict[str, Any]) -> dict[str, timedelta]:
    rows = connection.execute(statement, given)
    return {name: _sensible(float(p95)) for name, p95 in rows}


def _sensible(seconds: float) -> timedelta:
    """What a schedule may take by its row, too: a load map of a thousand years fits no memory."""
    return min(max(timedelta(seconds=seconds), SHORTEST), LONGEST_DURATION)
