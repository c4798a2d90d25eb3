"""The recurrence rules of RedBeat: RFC 5545 by python-dateutil, as RedBeat writes them in JSON.

A rule begins at an instant with a fixed offset, so it follows no change of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from dateutil.rrule import HOURLY, MINUTELY, SECONDLY, rrule, weekday

from .celery_timing import UNREADABLE, Told
from .errors import InvalidSchedule
from .foreseen import AHEAD, bounded
from .occurrences import Moments

_PARTS: Final = frozenset(
    ("freq", "dtstart", "interval", "wkst", "count", "until", "bysetpos", "bymonth", "bymonthday",
     "byyearday", "byeaster", "byweekno", "byweekday", "byhour", "byminute", "bysecond")
)  # fmt: skip
_ZONES: Final = frozenset(("dtstart_tz", "until_tz"))
_STEPS: Final = {
    HOURLY: timedelta(hours=1),
    MINUTELY: timedelta(minutes=1),
    SECONDLY: timedelta(seconds=1),
}
MOST_COUNTED: Final = 1_000_000
"""Runs of a rule with a `count` that are counted from its beginning."""


def rrule_told(given: Mapping[str, Any], now: datetime) -> Told:
    """The runs of a rule in the 8 days after `now`. Raises InvalidSchedule."""
    text = _text(given)
    try:
        return Told(Moments(tuple(bounded(_runs(_rule(given, now), now))), text))
    except InvalidSchedule as error:
        raise InvalidSchedule(text, error.part, error.problem) from None
    except UNREADABLE as error:
        raise InvalidSchedule(text, "schedule", f"it is no rrule: {error}") from error


def _rule(given: Mapping[str, Any], now: datetime) -> Any:
    if unknown := sorted(set(given) - _PARTS - _ZONES):
        raise TypeError(f"no part {unknown[0]!r} is known")
    parts = {name: _plain(given.get(name)) for name in _PARTS}
    parts["interval"] = parts["interval"] or 1
    if not isinstance(parts["interval"], int) or parts["interval"] < 1:
        raise ValueError(f"interval {parts['interval']!r} is not 1 or more")
    parts["until"] = _instant(given, "until")
    parts["dtstart"] = _nearer(parts, _instant(given, "dtstart") or now, now)
    return rrule(**parts)


def _nearer(parts: Mapping[str, Any], start: datetime, now: datetime) -> datetime:
    """A later beginning of the same rule, lest years of minutes are walked through."""
    step = _STEPS.get(parts["freq"])
    if step is None or parts["count"] is not None or start >= now:
        return start
    every: timedelta = step * parts["interval"]
    return start + (now - start) // every * every


def _runs(rule: Any, now: datetime) -> Iterator[datetime]:
    for number, run in enumerate(rule):
        if number == MOST_COUNTED:
            raise InvalidSchedule("", "schedule", f"over {MOST_COUNTED:,} runs are to be counted")
        if run > now + AHEAD:
            return
        if run > now:
            yield run.astimezone(UTC)


def _instant(given: Mapping[str, Any], name: str) -> datetime | None:
    seconds = given.get(name)
    if seconds is None:
        return None
    offset = timezone(timedelta(minutes=given.get(f"{name}_tz", 0)))
    return datetime.fromtimestamp(seconds, tz=offset)


def _plain(value: Any) -> Any:
    """A part as dateutil takes it. RedBeat's JSON keeps of a weekday its number only."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        if set(value) != {"__type__", "wkday"} or value["__type__"] != "weekday":
            raise ValueError(f"{dict(value)!r} is no weekday")
        return weekday(value["wkday"])
    return value


def _text(given: Mapping[str, Any]) -> str:
    told = [f"{name}={_shown(given[name])}" for name in sorted(given) if given[name] is not None]
    return f"rrule {' '.join(told)}"[:200]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    return str(value.get("wkday")) if isinstance(value, Mapping) else str(value)
