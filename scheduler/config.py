"""Schedules from plain dicts, as callers, tables and files have them, checked key by key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

from .clock import zone_of
from .cron import parse_cron
from .dialects import VIXIE
from .errors import InvalidSchedule
from .model import (
    DEFAULT_DURATION,
    DEFAULT_GRACE,
    DEFAULT_WINDOW,
    CatchUp,
    Overlap,
    Schedule,
    Status,
)
from .occurrences import EVERY, Interval, Moments, Timing
from .place import Place

KEYS: Final = frozenset(
    ("id", "identifier", "task", "cron_expression", "dialect", "timezone", "asset_id", "client_id",
     "status", "duration_estimate_seconds", "movable", "window_minutes", "fromdate", "uptodate",
     "is_recurring", "priority", "args", "kwargs", "options", "unmoved_expression",
     "misfire_grace_seconds", "catch_up", "overlap")
)  # fmt: skip
LONGEST_DURATION: Final = timedelta(days=31)
SHORTEST_INTERVAL: Final = timedelta(seconds=1)
Choice = TypeVar("Choice", bound=StrEnum)


def schedule_of(config: Mapping[str, Any], *, place: Place | None = None) -> Schedule:
    """A schedule from its configuration; `every 300s` is an interval.

    Without a cron_expression it runs once, at `fromdate`, and `is_recurring` must be False. Dates
    without a zone are those of UTC. Raises InvalidSchedule, which names the key that is wrong.
    """
    read = _Reader(config)
    identifier = _text(config.get("identifier")) or _text(config.get("id")) or read.expression
    timing = read.timing(identifier)
    fromdate, uptodate = read.moment("fromdate"), read.moment("uptodate")
    if fromdate is not None and uptodate is not None and uptodate <= fromdate:
        raise read.wrong("uptodate", f"{uptodate} is not after fromdate, {fromdate}")
    return Schedule(
        id=str(config.get("id", identifier)),
        name=identifier,
        task=str(config.get("task") or identifier),
        timing=timing,
        zone=read.zone(timing),
        args=read.json("args", list, []),
        kwargs=read.json("kwargs", dict, {}),
        options=read.json("options", dict, {}),
        duration=duration_of(config.get("duration_estimate_seconds"), read.expression),
        asset_id=_text(config.get("asset_id")),
        client_id=_text(config.get("client_id")),
        status=read.choice("status", Status, Status.PENDING),
        fromdate=fromdate,
        uptodate=uptodate,
        priority=read.priority(),
        movable=read.flag("movable", True),
        window=read.span("window_minutes", timedelta(minutes=1), 0, 24 * 60 - 1, DEFAULT_WINDOW),
        unmoved=read.unmoved(identifier),
        misfire_grace=read.span(
            "misfire_grace_seconds", timedelta(seconds=1), 1, 366 * 86_400, DEFAULT_GRACE
        ),
        catch_up=read.choice("catch_up", CatchUp, CatchUp.ONE),
        overlap=read.choice("overlap", Overlap, Overlap.ALLOW),
        place=place,
    )


class _Reader:
    """The keys of one configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.expression = self._expression()
        unknown = sorted(set(map(str, config)) - KEYS)
        if unknown:
            raise self.wrong(unknown[0], f"no such key; known: {', '.join(sorted(KEYS))}")

    def wrong(self, key: str, problem: str) -> InvalidSchedule:
        return InvalidSchedule(self.expression, key, problem)

    def _expression(self) -> str:
        given = self.config.get("cron_expression")
        if given is None and self.config.get("is_recurring") is False:
            return ""
        if not isinstance(given, str) or not given.strip():
            raise InvalidSchedule(str(given or ""), "cron_expression", "a recurring one needs it")
        return given

    def timing(self, seed: str) -> Timing:
        if self.expression:
            return timing_of(self.expression, self._dialect(), seed=seed)
        start = self.moment("fromdate")
        if start is None:
            raise self.wrong("fromdate", "one that runs once needs it")
        return Moments((start,))

    def _dialect(self) -> str:
        return str(self.config.get("dialect") or VIXIE.name)

    def unmoved(self, seed: str) -> Timing | None:
        given = _text(self.config.get("unmoved_expression"))
        return timing_of(given, self._dialect(), seed=seed) if given else None

    def zone(self, timing: Timing) -> str:
        zone = str(self.config.get("timezone") or getattr(timing, "zone", None) or "UTC")
        zone_of(zone)
        return zone

    def json(self, key: str, kind: type, default: object) -> str:
        given = self.config.get(key)
        try:
            value = json.loads(given) if isinstance(given, str) and given else given
            value = default if value in (None, "") else value
            if kind is list and isinstance(value, tuple):
                value = list(value)
            if isinstance(value, kind):
                return canonical_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.wrong(key, f"it is no JSON ({type(error).__name__})") from None
        raise self.wrong(key, f"it is no JSON {'array' if kind is list else 'object'}")

    def moment(self, key: str) -> datetime | None:
        given = self.config.get(key)
        try:
            return None if given in (None, "") else _moment(given)
        except ValueError:
            raise self.wrong(
                key, f"{_shown(given)} is no date, as 2026-03-01 or a time of it"
            ) from None

    def choice(self, key: str, kind: type[Choice], default: Choice) -> Choice:
        given = self.config.get(key)
        try:
            return default if given in (None, "") else kind(str(given))
        except ValueError:
            raise self.wrong(key, f"{_shown(given)} is none of {', '.join(kind)}") from None

    def priority(self) -> int | None:
        given = self.config.get("priority")
        if given in (None, ""):
            return None
        number = _number(self.expression, "priority", given)
        if number not in range(10):
            raise self.wrong("priority", f"{_shown(given)} is not from 0 to 9")
        return int(number)

    def flag(self, key: str, default: bool) -> bool:
        given = self.config.get(key)
        if given in (None, ""):
            return default
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        try:
            return known[str(given).strip().lower()]
        except KeyError:
            raise self.wrong(key, f"{_shown(given)} is neither true nor false") from None

    def span(
        self, key: str, unit: timedelta, least: int, most: int, default: timedelta
    ) -> timedelta:
        given = self.config.get(key)
        if given in (None, ""):
            return default
        number = _number(self.expression, key, given)
        if not least <= number <= most:
            raise self.wrong(key, f"{_shown(given)} is not from {least} to {most}")
        return int(number) * unit


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; raises TypeError or ValueError for what is none."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def timing_of(text: str, dialect: str = VIXIE.name, *, seed: str | None = None) -> Timing:
    """A cron expression, or `every 300s`. Raises InvalidSchedule."""
    if not text.startswith(EVERY):
        return parse_cron(text, dialect, seed=seed)
    given = text.removeprefix(EVERY).strip().removesuffix("s")
    every = timedelta(seconds=_number(text, "interval", given))
    if every < SHORTEST_INTERVAL:
        raise InvalidSchedule(text, "interval", "it must be 1 second or more")
    return Interval(every)


def duration_of(given: Any, expression: str = "") -> timedelta:
    """A duration from seconds; a minute for None. Raises InvalidSchedule."""
    if given in (None, ""):
        return DEFAULT_DURATION
    seconds = _number(expression, "duration_estimate_seconds", given)
    if not 0 < seconds <= LONGEST_DURATION.total_seconds():
        raise InvalidSchedule(
            expression, "duration_estimate_seconds", f"{_shown(given)} is not from 1 s to 31 days"
        )
    return timedelta(seconds=seconds)


def _moment(given: Any) -> datetime:
    if isinstance(given, date) and not isinstance(given, datetime):
        given = given.isoformat()
    moment = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(expression: str, part: str, given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise InvalidSchedule(expression, part, f"{_shown(given)} is no number") from None
    if not math.isfinite(number) or abs(number) > 1e9:
        raise InvalidSchedule(expression, part, f"{_shown(given)} is out of range")
    return number


def _shown(given: Any) -> str:
    told = repr(given)
    return told if len(told) <= 60 else f"{told[:57]}..."


def _text(given: Any) -> str | None:
    return None if given in (None, "") else str(given)
