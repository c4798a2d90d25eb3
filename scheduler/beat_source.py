"""The schedule that `celery beat` would run: `beat_schedule`, and what `add_periodic_task` added.

The app is made ready as beat itself does it. `celerybeat-schedule` is never opened: it is a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery.beat import ScheduleEntry
from celery.schedules import maybe_schedule
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings

from .celery_entry import inventory_of_entries, require_app, schedule_of_entry
from .celery_timing import UNREADABLE, timing_told
from .errors import InvalidSchedule
from .inventory import Inventory
from .model import Schedule, Status

SOURCE: Final = "beat"


def read_beat_schedule(
    app: Any | None,
    settings: Settings,  # noqa: ARG001
    *,
    now: datetime | None = None,
) -> Inventory:
    """The app's periodic tasks. `now`: from when the sun and custom schedules are foreseen.

    Raises ConfigurationError without an app, or when its modules cannot be imported.
    """
    ready = require_app(app, SOURCE)
    moment = now or datetime.now(UTC)

    def read(name: str, entry: object) -> Schedule:
        return _schedule(ready, name, entry, moment)

    return inventory_of_entries(SOURCE, _entries(ready).items(), read)


def _entries(app: Any) -> dict[str, object]:
    """The entries by name, after all handlers that add some have run."""
    try:
        conf = app.conf  # sends on_after_configure
        app.loader.init_worker()
        app.finalize()  # sends on_after_finalize
    except Exception as error:  # they are anyone's code
        told = f"the app cannot be made ready: {type(error).__name__}: {error}"
        raise ConfigurationError("beat_schedule", told) from error
    if not isinstance(conf.beat_schedule, Mapping):
        raise ConfigurationError(
            "beat_schedule", f"{type(conf.beat_schedule).__name__} is no dict of entries"
        )
    return {str(name): entry for name, entry in conf.beat_schedule.items()}


def _schedule(app: Any, name: str, entry: object, now: datetime) -> Schedule:
    """RedBeat and django-celery-beat take entries with `enabled`: what is not, is paused."""
    if not isinstance(entry, Mapping | ScheduleEntry):
        raise InvalidSchedule(name, "entry", f"{type(entry).__name__} is no dict")
    given = dict(entry)
    told = timing_told(_timing(app, name, given), name, now)
    status = Status.PENDING if given.get("enabled", True) else Status.PAUSED
    return schedule_of_entry(SOURCE, name, given, told, status=status)


def _timing(app: Any, name: str, given: Mapping[str, Any]) -> Any:
    """Its schedule, as beat makes it: bound to the app, and an interval of a number."""
    if given.get("schedule") is None:
        raise InvalidSchedule(name, "schedule", "it has none")
    try:
        return maybe_schedule(given["schedule"], given.get("relative", False), app=app)
    except UNREADABLE as error:
        shown = type(given["schedule"]).__name__
        raise InvalidSchedule(name, "schedule", f"{shown} is no schedule: {error}") from error
