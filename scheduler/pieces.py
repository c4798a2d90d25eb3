"""A fleet as the planner sees it: starts on a line of the minutes of one week, and shifts of them.

The line is a circle: what runs over its end goes on at its beginning. Schedules that run at the
same minutes, for as long, and may be moved alike are of one kind, which is worked out once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property, lru_cache, partial
from operator import attrgetter
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .clock import offset, zone_of
from .cron import Cron
from .days import DayRule
from .load import WEEK, Counts, load_map
from .model import Schedule
from .occurrences import Timing, bits
from .shifts import ALL_HOURS, every_day, moved, shifts_of, skipped_minutes

Minutes: TypeAlias = NDArray[np.int64]
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, eq=False)
class Kind:
    """What schedules that are moved alike have in common.

    `starts`: minutes of the week at which they would start unmoved, in order; `length`: minutes of
    a run; `shifts`: the moves that are allowed, 0 among them, the shortest first; `earliest`,
    `latest`: the ends of those.
    """

    anchor: Cron
    starts: Minutes
    length: int
    shifts: Minutes
    earliest: int
    latest: int

    @property
    def hourly(self) -> bool:
        """Whether they run in each hour of the days on which they run."""
        return self.anchor.hours == ALL_HOURS

    @property
    def always(self) -> bool:
        """Whether they run in each hour of the week."""
        return self.hourly and every_day(self.anchor)

    @property
    def reached(self) -> int:
        """Minutes from the beginning of the earliest run to the end of the latest."""
        return self.latest - self.earliest + self.length

    @property
    def begins(self) -> Minutes:
        """Minutes from the earliest shift on at which a run begins, for each shift."""
        return self.shifts - self.earliest

    @cached_property
    def around(self) -> Minutes:
        """The minutes that they may run in, shape (starts, minutes from the earliest shift on)."""
        offsets = np.arange(self.earliest, self.latest + self.length)
        around: Minutes = (self.starts[:, None] + offsets) % WEEK
        return around

    def cells(self, shift: int) -> Minutes:
        """The minutes in which they run at a shift, shape (starts, length)."""
        first = shift - self.earliest
        return self.around[:, first : first + self.length]

    @cached_property
    def apart(self) -> bool:
        """Whether no two of their runs may ever share a minute."""
        starts, reached = self.starts, self.reached
        over_the_end = int(starts[0]) + WEEK - int(starts[-1])
        return over_the_end >= reached and bool((starts[1:] - starts[:-1] >= reached).all())

    @cached_property
    def profile(self) -> Counts:
        """How often they run in each minute unmoved, shape (10080,)."""
        return laid([(self, 0, 1)])

    @cached_property
    def cover(self) -> Counts:
        """How often they run in each minute of the hour unmoved, a week's mean; shape (60,)."""
        hours, rest = divmod(self.length, 60)
        starting = np.bincount(self.starts % 60, minlength=60) / (WEEK / 60)
        sums = np.concatenate(([0.0], np.cumsum(np.tile(starting, 2))))
        ends = np.arange(61, 121)
        cover: Counts = hours * starting.sum() + sums[ends] - sums[ends - rest]
        return cover

    @cached_property
    def covers(self) -> Counts:
        """The same at each shift, shape (shifts, 60)."""
        covers: Counts = self.cover[(np.arange(60) - self.shifts[:, None]) % 60]
        return covers

    @cached_property
    def shift_of(self) -> dict[tuple[int, int] | None, int]:
        """The shift by the masks of minutes and hours that it leads to."""
        return {moved(self.anchor, shift): shift for shift in self.shifts.tolist()}


def laid(runs: Collection[tuple[Kind, int, int]]) -> Counts:
    """The load of so many schedules of each kind at a shift, shape (10080,)."""
    if not runs:
        return np.zeros(WEEK)
    starts = np.concatenate([(kind.starts + shift) % WEEK for kind, shift, _ in runs])
    sizes = [len(kind.starts) for kind, _, _ in runs]
    counts = np.repeat([float(count) for _, _, count in runs], sizes)
    weeks, ends = np.divmod(starts + np.repeat([kind.length for kind, _, _ in runs], sizes), WEEK)
    steps = np.bincount(starts, counts, WEEK) - np.bincount(ends, counts, WEEK)
    load: Counts = np.cumsum(steps) + (weeks * counts).sum()
    return load


@dataclass(frozen=True, slots=True)
class Piece:
    """A schedule that may be moved, and the `shift` at which it is now."""

    schedule: Schedule
    kind: Kind
    shift: int


def split(schedules: Iterable[Schedule], now: datetime) -> tuple[Counts, list[Piece]]:
    """The load of what stays where it is, shape (10080,), and the pieces that may be moved.

    The longest pieces first, those of one kind one after another, in the order of their ids.
    """
    start = now.astimezone(UTC).replace(second=0, microsecond=0)
    end, kind_of = start + WEEK * _MINUTE, cache(partial(_kind, start))
    pinned, pieces = list[Schedule](), list[Piece]()
    for one in sorted(schedules, key=attrgetter("id")):
        # The starts of one that begins or ends within the week are not those of its kind.
        piece = _piece(one, kind_of) if one.covers(start, end) else None
        if piece is None:
            pinned.append(one)
        else:
            pieces.append(piece)
    return load_map(pinned, start, capacity=1).concurrency, _by_kind(pieces)


def _by_kind(pieces: Iterable[Piece]) -> list[Piece]:
    kinds: dict[Kind, list[Piece]] = {}
    for piece in pieces:
        kinds.setdefault(piece.kind, []).append(piece)
    ordered = sorted(kinds.values(), key=lambda same: -same[0].kind.length)
    return [piece for same in ordered for piece in same]


def _piece(schedule: Schedule, kind_of: Callable[..., Kind | None]) -> Piece | None:
    anchor = schedule.anchor
    if not schedule.movable or not isinstance(anchor, Cron):
        return None
    kind = kind_of(anchor, schedule.minutes, schedule.window // _MINUTE, schedule.zone)
    shift = None if kind is None else _current(schedule.timing, kind)
    return None if kind is None or shift is None else Piece(schedule, kind, shift)


def _current(timing: Timing, kind: Kind) -> int | None:
    """By how much it is moved already; None when by something else than a shift."""
    anchor = kind.anchor
    if timing is anchor:
        return 0
    if not isinstance(timing, Cron):
        return None
    if (timing.rule, timing.seconds) != (anchor.rule, anchor.seconds):
        return None
    return kind.shift_of.get((timing.minutes, timing.hours))


def _kind(start: datetime, anchor: Cron, length: int, window: int, zone: str) -> Kind | None:
    """None when it never runs in the week, or cannot be moved."""
    shifts, earliest, latest = _shifts(anchor, window, zone, start)
    starts = week_starts(anchor, zone, start)
    if earliest == latest or not len(starts):
        return None
    return Kind(anchor, starts, length, shifts, earliest, latest)


@lru_cache(maxsize=8192)
def _shifts(anchor: Cron, window: int, zone: str, start: datetime) -> tuple[Minutes, int, int]:
    """The shifts, and the ends of those."""
    found = shifts_of(anchor, window, skipped_minutes(zone, start))
    return np.array(found, dtype=np.int64), min(found), max(found)


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
    days = _days(rule, first.date())
    times = [60 * hour + minute for hour in bits(hours) for minute in bits(minutes)]
    line = np.add.outer(np.array(days, dtype=np.int64) * 1440, np.array(times, dtype=np.int64))
    line = line.reshape(-1) - since_midnight
    within = line[(line >= 0) & (line < WEEK)]
    return np.repeat(within, seconds.bit_count())


@lru_cache(maxsize=1024)
def _days(rule: DayRule, first: date) -> list[int]:
    """Of the days from `first` on that a week may touch, those that fit."""
    return [n for n in range(8) if rule.fits(first + timedelta(n))]
