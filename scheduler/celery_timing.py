"""When Celery's own schedules run: crontab, intervals, the sun, and subclasses of anyone's.

A crontab becomes an expression of dialect celery with the same minutes, hours and days: in its own
words where our parser reads them alike, else written anew from its sets. Changes of the clock are
met as that dialect meets them; Celery itself leaves out the second pass of a fold, and runs what
falls in a gap as long after it as it fell into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final, NamedTuple

from celery.schedules import BaseSchedule, ParseException, crontab, schedule, solar

from .clock import zone_of
from .config import SHORTEST_INTERVAL
from .cron import LONGEST, Cron, parse_cron
from .dialects import CELERY
from .errors import InvalidSchedule
from .fields import Field, FieldError, parse_field
from .foreseen import foreseen
from .occurrences import EPOCH, EVERY, Interval, Moments, Timing, bits

_FIELDS: Final = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_UNITS: Final = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1))
_LONGEST_TEXT: Final = 200
UNREADABLE: Final = (
    ParseException, ValueError, TypeError, LookupError, AttributeError, ArithmeticError
)  # fmt: skip
"""What Celery's constructors raise for what they cannot read."""


class Told(NamedTuple):
    """When something runs, and in which IANA zone: UTC where it makes no difference."""

    timing: Timing
    zone: str = "UTC"


def timing_told(given: Any, name: str, now: datetime) -> Told:
    """When a schedule of Celery's runs. `name`: its entry's. Raises InvalidSchedule."""
    if isinstance(given, crontab) and not _overrides(
        given, "remaining_delta", "remaining_estimate"
    ):
        return Told(cron_of(given), _zone_of_crontab(given))
    if isinstance(given, schedule) and not _overrides(given, "remaining_estimate", "is_due"):
        return Told(interval_of(given, now))
    if isinstance(given, BaseSchedule):
        text = _text(given, name)
        by_due = _overrides(given, "is_due") and not _overrides(given, "remaining_estimate")
        return Told(Moments(foreseen(given, text, now, by_due=by_due), text))
    raise InvalidSchedule(
        name, "schedule", f"{type(given).__name__} is none of crontab, timedelta, seconds, solar"
    )


def crontab_told(fields: Mapping[str, Any], zone: str) -> Told:
    """A crontab by Celery's names of its fields, in an IANA zone. Raises InvalidSchedule."""
    shown = " ".join(str(fields.get(name, "*")) for name in _FIELDS)
    try:
        if unknown := sorted(set(fields) - set(_FIELDS)):
            raise TypeError(f"no field {unknown[0]!r} is known")
        made = crontab(**fields)
    except UNREADABLE as error:
        raise InvalidSchedule(shown, "schedule", f"it is no crontab: {error}") from error
    zone_of(zone)
    return Told(cron_of(made), zone)


def cron_of(given: Any) -> Cron:
    """The expression that means the same as a crontab. Raises InvalidSchedule."""
    pairs = [
        (getattr(given, f"_orig_{name}"), _mask(name, getattr(given, name))) for name in _FIELDS
    ]
    zipped = list(zip(pairs, CELERY.fields, strict=True))
    text = " ".join(_word(original, mask, field) for (original, mask), field in zipped)
    if len(text) > LONGEST:
        text = " ".join(_written(mask, field) for (_, mask), field in zipped)
    return parse_cron(text, CELERY.name)


def _mask(name: str, values: Iterable[int]) -> int:
    mask = 0
    for value in values:
        mask |= 1 << int(value)
    if not mask:
        raise InvalidSchedule("crontab", name.replace("_", " "), "it is empty")
    return mask


def _word(original: object, mask: int, field: Field) -> str:
    """The field in its own words, if our parser reads them as Celery does."""
    if isinstance(original, str | int):
        word = "".join(str(original).split())
        try:
            if parse_field(word, field).mask == mask:
                return word
        except FieldError:
            pass  # as january, which Celery takes and the dialect does not
    return _written(mask, field)


def _written(mask: int, field: Field) -> str:
    """A mask as ranges, as 0-5,30."""
    if mask == field.all:
        return "*"
    words, values = [], bits(mask)
    for _, run in itertools.groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        numbers = [value for _, value in run]
        words.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}")
    return ",".join(words)


def _zone_of_crontab(given: Any) -> str:
    """The zone that it reckons in; Celery 5.6 takes that of its `nowfun`, 5.7 its `tz`."""
    try:
        last, _, _ = given.remaining_delta(given.now())
    except Exception as error:  # `nowfun` and `tz` are anyone's code
        told = f"it cannot say: {type(error).__name__}: {error}"
        raise InvalidSchedule(cron_of(given).expression, "timezone", told[:300]) from error
    return zone_name(last.tzinfo)


def zone_name(zone: tzinfo) -> str:
    """The IANA name of a zone of zoneinfo or pytz. Raises InvalidSchedule for one that has none."""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if name is None and isinstance(zone, timezone) and not zone.utcoffset(None):
        name = "UTC"
    if not isinstance(name, str):
        raise InvalidSchedule(
            str(zone), "timezone", "it has no IANA name: set the app's timezone, as Europe/Berlin"
        )
    zone_of(name)
    return name


def interval_of(given: Any, now: datetime, anchor: datetime = EPOCH) -> Interval:
    """The interval of a `celery.schedules.schedule`, counted from `anchor`.

    A relative one is rounded down to whole days, hours or minutes of the local clock, as it stands
    at `now`: one of 90 minutes runs each hour. Raises InvalidSchedule.
    """
    every = given.run_every
    if not isinstance(every, timedelta):
        raise InvalidSchedule(str(every), "interval", "it is neither a timedelta nor seconds")
    if every < SHORTEST_INTERVAL:
        text = f"{EVERY}{every.total_seconds():g}s"
        raise InvalidSchedule(text, "interval", "it must be 1 second or more")
    unit = next((one for one in _UNITS if one <= every), None) if given.relative else None
    if unit is None:
        return Interval(every, anchor.astimezone(UTC))
    offset = now.astimezone(given.tz).utcoffset() or timedelta()
    return Interval(every // unit * unit, EPOCH - offset)


def _overrides(given: Any, *names: str) -> bool:
    """Whether a class outside Celery has a method of its own by one of these names."""
    own = itertools.takewhile(
        lambda one: one.__module__ != BaseSchedule.__module__, type(given).__mro__
    )
    return any(name in vars(one) for one in own for name in names)


def _text(given: Any, name: str) -> str:
    """What it is; an entry's name tells apart those that do not say themselves what they are."""
    if isinstance(given, solar) and not _overrides(given, "__repr__"):
        return f"{given.event} at {given.lat:g}, {given.lon:g}"
    if _overrides(given, "__repr__"):
        return " ".join(repr(given).split())[:_LONGEST_TEXT]
    return f"{type(given).__module__}.{type(given).__qualname__} ({name})"
