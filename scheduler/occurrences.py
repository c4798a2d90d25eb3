"""When a schedule runs: instants in UTC, in order, each once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from .clock import instants
from .cron import Cron

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EVERY: Final = "every "
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Interval:
    """Runs every `every`, counted from `anchor` (UTC)."""

    every: timedelta
    anchor: datetime = EPOCH

    @property
    def meaning(self) -> tuple[object, ...]:
        """Equal for intervals that run equally often."""
        return (self.every.total_seconds(),)


@dataclass(frozen=True, slots=True)
class Moments:
    """Runs at these instants (aware, in order) only: a single run, or what was foreseen of a
    schedule that no expression tells, as one by the sun. `text`: how people call it.
    """

    at: tuple[datetime, ...]
    text: str = ""

    @property
    def meaning(self) -> tuple[object, ...]:
        """Equal for those with the same instants, or the same rule."""
        return (self.text or tuple(one.astimezone(UTC).isoformat() for one in self.at),)


Timing = Cron | Interval | Moments


def occurrences(timing: Timing, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """The instants after `after` (aware), without end unless the schedule has one."""
    if isinstance(timing, Interval):
        return _of_interval(timing, after)
    if isinstance(timing, Moments):
        return iter([one for one in timing.at if one > after])
    return _of_cron(timing, zone, after.astimezone(UTC))


def _of_interval(interval: Interval, after: datetime) -> Iterator[datetime]:
    number = math.floor((after - interval.anchor) / interval.every) + 1
    while True:
        yield interval.anchor + number * interval.every
        number += 1


def _of_cron(cron: Cron, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    """Days are read ahead: a next day may begin before this one ends, in a fold."""
    waiting: set[datetime] = set()
    # A gap may carry a time a day onwards, and zones are at most 15 hours from UTC.
    day = cron.next_day(after.date() - 3 * _DAY)
    while day is not None:
        settled = datetime.combine(day, time(), UTC) - 16 * timedelta(hours=1)
        ready = {one for one in waiting if one < settled}
        yield from sorted(one for one in ready if one > after)
        waiting -= ready
        waiting.update(on_day(cron, zone, day))
        day = cron.next_day(day + _DAY)
    yield from sorted(one for one in waiting if one > after)


def on_day(cron: Cron, zone: tzinfo, day: date) -> list[datetime]:
    """The instants of the local day `day`, whether or not the schedule runs on it."""
    found: list[datetime] = []
    for hour in bits(cron.hours):
        for minute in bits(cron.minutes):
            for second in bits(cron.seconds):
                local = datetime.combine(day, time(hour, minute, second))
                found += instants(local, zone, fixed=cron.fixed)
    return found


def timing_text(timing: Timing) -> str:
    """How a timing is written: an expression, `every 300s`, or an instant."""
    if isinstance(timing, Cron):
        return timing.expression
    if isinstance(timing, Interval):
        return f"{EVERY}{_plain(timing.every.total_seconds())}s"
    return timing.text or ", ".join(one.isoformat() for one in timing.at)


def _plain(seconds: float) -> str:
    """As few digits as tell it exactly, without an exponent."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
