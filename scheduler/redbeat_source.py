"""The schedules that RedBeat keeps in Redis, read as the JSON that its encoder writes.

What RedBeat fires is what its index names, the sorted set `redbeat::schedule`. Reading changes
nothing, and goes in batches: ZSCAN, then the hashes of hundreds of entries at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

import redis
from celery.schedules import schedule
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.settings import Settings
from kombu.utils.url import maybe_sanitize_url
from redis.backoff import NoBackoff
from redis.retry import Retry

from .celery_entry import inventory_of_entries, require_app, schedule_of_entry
from .celery_timing import UNREADABLE, Told, crontab_told, interval_of, zone_name
from .clock import zone_of
from .errors import InvalidSchedule
from .inventory import Inventory
from .model import Schedule, Status
from .occurrences import EPOCH
from .redbeat_rrule import rrule_told

SOURCE: Final = "redbeat"
BATCH: Final = 500
TIMEOUT_SECONDS: Final = 5.0
_FIELDS: Final = frozenset(("name", "task", "args", "kwargs", "options", "schedule", "enabled"))
_DATETIME: Final = ("year", "month", "day", "hour", "minute", "second", "microsecond")
UNINDEXED: Final = (
    "the index does not name it, so RedBeat does not fire it before beat starts again"
)


class Stored(NamedTuple):
    """An entry's two texts as Redis has them: None where it has none, an error where it refuses."""

    definition: bytes | Exception | None
    meta: bytes | Exception | None
    indexed: bool


def read_redbeat(
    app: Any | None,
    settings: Settings,  # noqa: ARG001
    *,
    now: datetime | None = None,
) -> Inventory:
    """The entries of RedBeat. `now`: from when recurrence rules are foreseen.

    Raises ConfigurationError without an app or its Redis, StoreUnavailable.
    """
    ready = require_app(app, SOURCE)
    moment = now or datetime.now(UTC)
    prefix = str(_setting(ready, "redbeat_key_prefix") or "redbeat:")

    def read(name: str, stored: Stored) -> Schedule:
        return _schedule(ready, name, stored, moment)

    with _client(ready) as client:
        return inventory_of_entries(SOURCE, _entries(client, prefix), read)


def _setting(app: Any, name: str) -> Any:
    """A setting of RedBeat, in the spellings that it takes."""
    return app.conf.first(name, name.upper())


@contextmanager
def _client(app: Any) -> Iterator[redis.Redis]:
    """A connection to the Redis of RedBeat; what Redis refuses within is StoreUnavailable."""
    url = _setting(app, "redbeat_redis_url") or app.conf.broker_url
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(
            "redbeat_redis_url", "is none of redis://, rediss:// and unix://, which are read here"
        )
    try:
        with _connected(app, url) as client:
            yield client
    except (redis.RedisError, OSError) as error:
        told = f"{maybe_sanitize_url(url)}: {type(error).__name__}: {error}"
        raise StoreUnavailable(SOURCE, told[:300]) from error


def _connected(app: Any, url: str) -> redis.Redis:
    try:
        client = redis.Redis.from_url(url, **_options(app, url))
        client.ping()
    except (ValueError, TypeError) as error:  # its text may hold a part of the password
        told = f"it, or redbeat_redis_use_ssl, is refused ({type(error).__name__})"
        raise ConfigurationError("redbeat_redis_url", told) from None
    return client


def _options(app: Any, url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 1),
    }
    if url.startswith("rediss"):
        given = _setting(app, "redbeat_redis_use_ssl") or app.conf.broker_use_ssl
        options["ssl_cert_reqs"] = "required"
        options.update(given if isinstance(given, Mapping) else {})
    return options


def _entries(client: redis.Redis, prefix: str) -> Iterator[tuple[str, Stored]]:
    """Names and what is stored, in the order of the names."""
    indexed = {key for key, _ in client.zscan_iter(f"{prefix}:schedule", count=BATCH)}
    static = client.sscan_iter(f"{prefix}:statics", count=BATCH)
    wanted = sorted(indexed | {prefix.encode() + name for name in static})
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        pipe = client.pipeline(transaction=False)
        for key in batch:
            pipe.hget(key, "definition")
            pipe.hget(key, "meta")
        replies = iter(pipe.execute(raise_on_error=False))
        for key, definition, meta in zip(batch, replies, replies, strict=True):
            name = key.decode(errors="replace").removeprefix(prefix)
            yield name, Stored(definition, meta, key in indexed)


def _schedule(app: Any, name: str, stored: Stored, now: datetime) -> Schedule:
    if not stored.indexed:
        raise InvalidSchedule(name, "entry", UNINDEXED)
    entry = _read(name, "definition", stored.definition)
    if unknown := sorted(set(entry) - _FIELDS):
        raise InvalidSchedule(
            name, "definition", f"{unknown[0]!r} is not of the format that is known here"
        )
    told = _told(app, name, entry.get("schedule"), _last_run(name, stored.meta), now)
    status = Status.PENDING if entry.get("enabled", True) else Status.PAUSED
    return schedule_of_entry(SOURCE, name, entry, told, status=status)


def _read(name: str, part: str, text: bytes | Exception | None) -> dict[str, Any]:
    if not text:
        raise InvalidSchedule(name, part, "it has none: RedBeat drops it from its index")
    if isinstance(text, Exception):
        raise InvalidSchedule(name, part, f"it cannot be read: {text}")
    try:
        found = json.loads(text, object_hook=_datetime)
    except (*UNREADABLE, RecursionError) as error:
        raise InvalidSchedule(name, part, f"it is not RedBeat's JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidSchedule(name, part, f"it is a JSON {type(found).__name__}, not an object")
    return found


def _datetime(found: dict[str, Any]) -> Any:
    """RedBeat's form of a datetime; other types are looked at where they may stand."""
    if found.get("__type__") != "datetime":
        return found
    zone = found.get("timezone", "UTC")
    tz = zone_of(zone) if isinstance(zone, str) else timezone(timedelta(seconds=zone))
    return datetime(**{part: found[part] for part in _DATETIME if part in found}, tzinfo=tz)


def _last_run(name: str, meta: bytes | Exception | None) -> datetime | None:
    """When it last ran, from which intervals count on."""
    found = _read(name, "meta", meta).get("last_run_at") if meta else None
    return found if isinstance(found, datetime) else None


def _told(app: Any, name: str, given: Any, last_run: datetime | None, now: datetime) -> Told:
    """When it runs, by the kinds that RedBeat writes; crontabs are in the app's zone."""
    kind = given.get("__type__") if isinstance(given, dict) else None
    fields = (
        {key: value for key, value in (given or {}).items() if key != "__type__"} if kind else {}
    )
    if kind == "crontab":
        return crontab_told(fields, zone_name(app.timezone))
    if kind == "interval":
        return Told(_interval(app, fields, last_run, now))
    if kind == "rrule":
        return rrule_told(fields, now)
    raise InvalidSchedule(name, "schedule", f"{kind!r} is none of crontab, interval, rrule")


def _interval(app: Any, fields: Mapping[str, Any], last_run: datetime | None, now: datetime) -> Any:
    try:
        made = schedule(fields["every"], bool(fields.get("relative")), app=app)
    except UNREADABLE as error:
        raise InvalidSchedule(
            f"every {fields.get('every')}", "interval", f"it is no number of seconds: {error}"
        ) from None
    return interval_of(made, now, last_run or EPOCH)
