"""When Celery itself, and beats built on it, would run a schedule: the oracle of the sources."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.beat_source import read_beat_schedule
from idemwatch.scheduler.clock import zone_of
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import occurrences

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def new_app(**conf: Any) -> Celery:
    """An app with these settings."""
    app = Celery("beaten", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    return app


def read(entries: Any, now: datetime = MONDAY, **conf: Any) -> Inventory:
    """What we read of an app with this beat_schedule."""
    return read_beat_schedule(new_app(beat_schedule=entries, **conf), Settings(), now=now)


def read_one(given: Any, now: datetime = MONDAY, *, conf: Any = None, **more: Any) -> Schedule:
    """The schedule of an entry that has no fault."""
    inventory = read({"one": {"task": "t", "schedule": given, **more}}, now, **(conf or {}))
    assert not inventory.problems
    (found,) = inventory.schedules
    return found


def celery_runs(given: Any, start: datetime, count: int) -> list[datetime]:
    """The next runs after `start` of a schedule that is always run on time."""
    found: list[datetime] = []
    last = start
    for _ in range(count):
        tell(given, last)
        utc = last.astimezone(UTC) + given.remaining_estimate(last)
        last = utc.astimezone(last.tzinfo)
        tell(given, last)
        assert given.is_due(found[-1] if found else start).is_due
        found.append(last)
    return found


def tell(given: Any, now: datetime) -> None:
    """Set the clock of a schedule."""
    given.nowfun = lambda: now


def our_runs(schedule: Schedule, start: datetime, count: int) -> list[datetime]:
    """The next runs after `start` as we read it."""
    runs = occurrences(schedule.timing, zone_of(schedule.zone), start)
    return list(itertools.islice(runs, count))


def by_name(inventory: Inventory) -> dict[str, Schedule]:
    """The schedules of an inventory."""
    return {one.name: one for one in inventory.schedules}


def told(inventory: Inventory) -> dict[str, str]:
    """The problems of an inventory by the entry's name."""
    return {one.schedule: str(one) for one in inventory.problems}
