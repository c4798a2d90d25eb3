"""Schedules from plain dicts, as callers and files have them, checked key by key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from .clock import zone_of
from .cron import parse_cron
from .dialects import VIXIE
from .errors import InvalidSchedule
from .model import DEFAULT_DURATION, DEFAULT_WINDOW, Schedule, Status
from .occurrences import Interval, Timing

KEYS: Final = frozenset(
    ("id", "identifier", "task", "cron_expression", "dialect", "timezone", "asset_id", "client_id",
     "status", "duration_estimate_seconds", "movable", "window_minutes", "fromdate", "uptodate",
     "is_recurring", "priority", "args", "kwargs")
)  # fmt: skip
LONGEST_DURATION: Final = timedelta(days=31)
EVERY: Final = "every "


def schedule_of(config: Mapping[str, Any], *, place: str = "") -> Schedule:
    """A schedule from its configuration; `every 300s` is an interval.

    Raises InvalidSchedule, which names the key that is wrong.
    """
    expression = config.get("cron_expression")
    if not isinstance(expression, str) or not expression.strip():
        raise InvalidSchedule(str(expression or ""), "cron_expression", "a recurring one needs it")
    unknown = sorted(set(map(str, config)) - KEYS)
    if unknown:
        raise InvalidSchedule(
            expression, unknown[0], f"no such key; known: {', '.join(sorted(KEYS))}"
        )
    identifier = str(config.get("identifier") or config.get("id") or expression)
    timing = timing_of(expression, str(config.get("dialect") or VIXIE.name), seed=identifier)
    zone = str(config.get("timezone") or getattr(timing, "zone", None) or "UTC")
    zone_of(zone)
    return Schedule(
        id=str(config.get("id", identifier)),
        task=str(config.get("task") or identifier),
        timing=timing,
        zone=zone,
        duration=duration_of(config.get("duration_estimate_seconds"), expression),
        asset_id=_text(config.get("asset_id")),
        client_id=_text(config.get("client_id")),
        status=_status(expression, config.get("status", Status.PENDING)),
        movable=bool(config.get("movable", True)),
        window=_window(expression, config.get("window_minutes")),
        place=place,
    )


def timing_of(text: str, dialect: str = VIXIE.name, *, seed: str | None = None) -> Timing:
    """A cron expression, or `every 300s`. Raises InvalidSchedule."""
    if not text.startswith(EVERY):
        return parse_cron(text, dialect, seed=seed)
    given = text.removeprefix(EVERY).strip().removesuffix("s")
    seconds = _number(text, "interval", given)
    if seconds <= 0:
        raise InvalidSchedule(text, "interval", "it must be over 0 seconds")
    return Interval(timedelta(seconds=seconds))


def duration_of(given: Any, expression: str = "") -> timedelta:
    """A duration from seconds; a minute for None. Raises InvalidSchedule."""
    if given is None:
        return DEFAULT_DURATION
    seconds = _number(expression, "duration_estimate_seconds", given)
    if not 0 < seconds <= LONGEST_DURATION.total_seconds():
        raise InvalidSchedule(
            expression, "duration_estimate_seconds", f"{given!r} is not from 1 s to 31 days"
        )
    return timedelta(seconds=seconds)


def _window(expression: str, given: Any) -> timedelta:
    if given is None:
        return DEFAULT_WINDOW
    minutes = _number(expression, "window_minutes", given)
    if not 0 <= minutes < 24 * 60:
        raise InvalidSchedule(expression, "window_minutes", f"{given!r} is not from 0 to 1439")
    return timedelta(minutes=int(minutes))


def _number(expression: str, part: str, given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise InvalidSchedule(expression, part, f"{given!r} is no number") from None
    if not math.isfinite(number) or abs(number) > 1e9:
        raise InvalidSchedule(expression, part, f"{given!r} is out of range")
    return number


def _status(expression: str, given: Any) -> Status:
    try:
        return Status(str(given))
    except ValueError:
        known = ", ".join(Status)
        raise InvalidSchedule(expression, "status", f"{given!r} is none of {known}") from None


def _text(given: Any) -> str | None:
    return None if given is None else str(given)
