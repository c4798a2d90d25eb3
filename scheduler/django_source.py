"""The schedules of django-celery-beat, read from its tables by plain SQL.

Django is not imported, and nothing is written. The database is the one that the settings name; it
need not have idemwatch's own tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from celery.exceptions import ImproperlyConfigured
from celery.schedules import schedule, solar
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.postgres_link import CONNECT_TIMEOUT_SECONDS, unavailable
from idemwatch.idempotency.settings import Settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UndefinedColumn, UndefinedTable
from psycopg.rows import DictRow, dict_row

from .celery_entry import inventory_of_entries, schedule_of_entry
from .celery_timing import UNREADABLE, Told, crontab_told, interval_of, timing_told
from .clock import zone_of
from .errors import InvalidSchedule
from .inventory import Inventory
from .model import Schedule, Status
from .occurrences import Moments, occurrences, timing_text

SOURCE: Final = "django"
PERIODS: Final = ("days", "hours", "minutes", "seconds", "microseconds")
CRONTAB: Final = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
ENTRIES: Final = """
SELECT p.name, p.task, p.args, p.kwargs, p.queue, p.exchange, p.routing_key, p.headers, p.priority,
       p.expires, p.expire_seconds, p.one_off, p.start_time, p.enabled, p.last_run_at,
       p.total_run_count, p.date_changed, i.every, i.period, c.minute, c.hour, c.day_of_month,
       c.month_of_year, c.day_of_week, c.timezone, s.event, s.latitude, s.longitude, o.clocked_time
  FROM django_celery_beat_periodictask AS p
  LEFT JOIN django_celery_beat_intervalschedule AS i ON i.id = p.interval_id
  LEFT JOIN django_celery_beat_crontabschedule AS c ON c.id = p.crontab_id
  LEFT JOIN django_celery_beat_solarschedule AS s ON s.id = p.solar_id
  LEFT JOIN django_celery_beat_clockedschedule AS o ON o.id = p.clocked_id
 ORDER BY p.id
"""
_OPTIONS: Final = ("queue", "exchange", "routing_key", "priority")
_CONNECTING: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "tcp_user_timeout": 10_000,
    "application_name": "idemwatch",
}
# For the transaction alone: behind a pooler the session is the application's too.
_LOCAL: Final = "SET LOCAL statement_timeout = '30s'; SET LOCAL timezone = 'UTC'"


def read_django(app: Any | None, settings: Settings, *, now: datetime | None = None) -> Inventory:
    """The rows of django-celery-beat. `now`: from when the sun is foreseen.

    Raises ConfigurationError without a database or without its tables, StoreUnavailable.
    """
    moment = now or datetime.now(UTC)

    def read(name: str, row: DictRow) -> Schedule:
        return _schedule(app, name, row, moment)

    rows = _rows(_url(settings))
    return inventory_of_entries(SOURCE, ((row["name"], row) for row in rows), read)


def _url(settings: Settings) -> str:
    url = settings.database_url
    if url is None:
        told = "is not set: django needs its database, say --database-url postgresql://user@host/db"
        raise ConfigurationError("idempotency_database_url", told)
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        told = "not a PostgreSQL URL: postgresql://user@host/database"
        raise ConfigurationError("idempotency_database_url", told) from None
    return url


def _rows(url: str) -> list[DictRow]:
    given = conninfo_to_dict(url)
    options = {key: value for key, value in _CONNECTING.items() if key not in given}
    try:
        with psycopg.connect(url, row_factory=dict_row, **options) as connection:
            connection.execute(_LOCAL)
            return connection.execute(ENTRIES).fetchall()
    except (UndefinedTable, UndefinedColumn) as error:
        told = (
            f"{error.diag.message_primary}: run `manage.py migrate django_celery_beat` with "
            "django-celery-beat 2.0 or newer, or name the database that has it with --database-url"
        )
        raise ConfigurationError("django_celery_beat", told) from error
    except psycopg.Error as error:
        raise unavailable(error) from error


def _schedule(app: Any | None, name: str, row: Mapping[str, Any], now: datetime) -> Schedule:
    told = _single(row, _told(app, name, row, now), now)
    entry = {
        "task": row["task"],
        "args": _read(row, "args"),
        "kwargs": _read(row, "kwargs"),
        "options": _options(row),
    }
    bounds = {"fromdate": row["start_time"], "uptodate": row["expires"]}
    return schedule_of_entry(SOURCE, name, entry, told, status=_status(row), **bounds)


def _status(row: Mapping[str, Any]) -> Status:
    """django-celery-beat disables a single one at the first look after its run."""
    if not row["enabled"]:
        return Status.PAUSED
    return Status.CANCELLED if row["one_off"] and row["total_run_count"] else Status.PENDING


def _options(row: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: row[key] for key in _OPTIONS}
    given["expires"] = row["expires"] or row["expire_seconds"]
    given["headers"] = _read(row, "headers") or None
    return {key: value for key, value in given.items() if value is not None}


def _read(row: Mapping[str, Any], key: str) -> Any:
    try:
        return json.loads(row[key]) if row[key] else None
    except (ValueError, RecursionError) as error:
        raise InvalidSchedule(row["task"], key, f"it is no JSON: {error}") from None


def _told(app: Any | None, name: str, row: Mapping[str, Any], now: datetime) -> Told:
    """When it runs; where several are set, the one that django-celery-beat takes."""
    if row["every"] is not None:
        return _interval(row, now)
    if row["minute"] is not None:
        return crontab_told({field: row[field] for field in CRONTAB}, str(row["timezone"]))
    if row["event"] is not None:
        return timing_told(_solar(app, row), name, now)
    if row["clocked_time"] is not None:
        return Told(Moments((row["clocked_time"],)))
    raise InvalidSchedule(name, "schedule", "it has none of interval, crontab, solar, clocked")


def _interval(row: Mapping[str, Any], now: datetime) -> Told:
    shown = f"every {row['every']} {row['period']}"
    if row["period"] not in PERIODS:
        raise InvalidSchedule(shown, "period", f"it is none of {', '.join(PERIODS)}")
    try:
        made = schedule(timedelta(**{row["period"]: row["every"]}))
    except OverflowError:
        raise InvalidSchedule(shown, "interval", "it is longer than time") from None
    return Told(interval_of(made, now, _counted_from(row)))


def _counted_from(row: Mapping[str, Any]) -> datetime:
    """From when the next run is reckoned: the last one, else when the row was changed."""
    found: datetime = row["last_run_at"] or row["start_time"] or row["date_changed"]
    return found


def _solar(app: Any | None, row: Mapping[str, Any]) -> Any:
    shown = f"{row['event']} at {row['latitude']}, {row['longitude']}"
    try:
        return solar(row["event"], float(row["latitude"]), float(row["longitude"]), app=app)
    except (ImproperlyConfigured, ImportError) as error:  # as Celery 5.7 and 5.6 say it
        told = "the sun is reckoned by ephem, which is not installed: pip install celery[solar]"
        raise InvalidSchedule(shown, "schedule", told) from error
    except UNREADABLE as error:
        raise InvalidSchedule(shown, "schedule", f"it is no event of the sun: {error}") from error


def _single(row: Mapping[str, Any], told: Told, now: datetime) -> Told:
    """A row that runs once: at its start if it never ran, for it is due then, else at its next."""
    clocked = isinstance(told.timing, Moments) and not told.timing.text
    if clocked or not row["one_off"]:
        return told
    never_ran = row["last_run_at"] is None and row["start_time"] is not None
    due = row["start_time"] if never_ran else _next(row, told)
    runs = () if due is None else (max(due, now.astimezone(UTC)),)
    return told._replace(timing=Moments(runs, f"once, {timing_text(told.timing)}"))


def _next(row: Mapping[str, Any], told: Told) -> datetime | None:
    return next(occurrences(told.timing, zone_of(told.zone), _counted_from(row)), None)
