"""A fleet as the planner sees it: starts on a line of the minutes of one week, and shifts of them.

The line is a circle: what runs over its end goes on at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .clock import offset, zone_of
from .cron import Cron
from .days import DayRule
from .load import WEEK, Counts, load_map
from .model import Schedule
from .occurrences import bits
from .shifts import lands_well, moved, shifted, skipped_minutes

Minutes: TypeAlias = NDArray[np.int64]
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Piece:
    """A schedule that may be moved.

    `starts`: minutes of the week at which it would start unmoved; `shifts`: the moves that are
    allowed, 0 among them, the shortest first; `shift`: where it is now. `hourly`: it runs in each
    hour.
    """

    schedule: Schedule
    starts: Minutes
    length: int
    shifts: Minutes
    shift: int
    hourly: bool

    def cells(self, shift: int) -> Minutes:
        """The minutes in which it runs when moved by `shift`, each as often as it runs in it."""
        spread = self.starts[:, None] + (shift + np.arange(self.length))
        cells: Minutes = spread.reshape(-1) % WEEK
        return cells


def split(schedules: Sequence[Schedule], now: datetime) -> tuple[Counts, list[Piece]]:
    """The load of what stays where it is, shape (10080,), and the pieces that may be moved."""
    start = now.astimezone(UTC).replace(second=0, microsecond=0)
    pieces = [piece for one in schedules if (piece := _piece(one, start)) is not None]
    movable = {piece.schedule.id for piece in pieces}
    pinned = load_map(
        (one for one in schedules if one.id not in movable), start, capacity=1
    ).concurrency
    return pinned, pieces


def _piece(schedule: Schedule, start: datetime) -> Piece | None:
    anchor = schedule.anchor
    if not schedule.movable or not isinstance(anchor, Cron):
        return None
    shifts = _shifts(anchor, schedule.window // _MINUTE, schedule.zone, start)
    shift = _current(schedule, anchor, shifts)
    if len(shifts) < 2 or shift is None:
        return None
    starts = week_starts(anchor, schedule.zone, start)
    if not len(starts):
        return None
    hourly = anchor.hours == (1 << 24) - 1
    return Piece(schedule, starts, schedule.minutes, shifts, shift, hourly)


@lru_cache(maxsize=8192)
def _shifts(anchor: Cron, most: int, zone: str, start: datetime) -> Minutes:
    """The moves that can be written and land well; one that runs each hour needs half of one."""
    avoided = skipped_minutes(zone, start)
    if anchor.hours == (1 << 24) - 1:
        most = min(most, 30)
    found: dict[object, int] = {}
    for shift in sorted(range(-most, most + 1), key=lambda one: (abs(one), one < 0)):
        masks = moved(anchor, shift)
        if masks is not None and (shift == 0 or lands_well(anchor, masks, avoided)):
            found.setdefault(masks, shift)
    return np.array(list(found.values()), dtype=np.int64)


def _current(schedule: Schedule, anchor: Cron, shifts: Minutes) -> int | None:
    """By how much it is moved already; None when by something else than a shift."""
    timing = schedule.timing
    if timing == anchor:
        return 0
    if not isinstance(timing, Cron):
        return None
    for shift in shifts.tolist():
        again = shifted(anchor, shift)
        if again is not None and again.meaning == timing.meaning:
            return int(shift)
    return None


def week_starts(cron: Cron, zone: str, start: datetime) -> Minutes:
    """Minutes of the week from `start` at which it starts, at the zone's offset of now."""
    return _starts(cron.rule, cron.hours, cron.minutes, cron.seconds, zone, start)


@lru_cache(maxsize=8192)
def _starts(
    rule: DayRule, hours: int, minutes: int, seconds: int, zone: str, start: datetime
) -> Minutes:
    ahead = offset(start.astimezone(zone_of(zone))) // _MINUTE
    first = start.replace(tzinfo=None) + ahead * _MINUTE
    since_midnight = first.hour * 60 + first.minute
    days = [n for n in range(8) if rule.fits(first.date() + timedelta(n))]
    times = [60 * hour + minute for hour in bits(hours) for minute in bits(minutes)]
    line = np.add.outer(np.array(days, dtype=np.int64) * 1440, np.array(times, dtype=np.int64))
    line = line.reshape(-1) - since_midnight
    within = line[(line >= 0) & (line < WEEK)]
    return np.repeat(within, seconds.bit_count())
