"""How many runs there are at once, in each minute of a real week: the load map.

Cron fires at second 0, so in minute t there are as many runs as have start <= t < start + duration
in minutes. Starts are counted for all schedules with the same days and duration at once, as a
product of their hour and minute masks, laid on a line of local minutes and read off it in UTC.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .clock import changes, offset, zone_of
from .cron import Cron
from .days import DayRule
from .model import Schedule
from .occurrences import Interval, occurrences, on_day

Counts: TypeAlias = NDArray[np.float64]
DAY: Final = 1440
WEEK: Final = 7 * DAY
PART: Final = 500_000
"""Starts a day that are laid out at a time."""
_MINUTE: Final = timedelta(minutes=1)
_DURATION: Final = attrgetter("duration")
_ZONE: Final = attrgetter("zone")
Numbers: TypeAlias = NDArray[np.int64]
_Same: TypeAlias = tuple[Cron, int, int]
"""An expression, minutes of a run, and how many schedules have both."""
_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class LoadMap:
    """`concurrency[t]`: runs at once in minute t from `start` (UTC). `capacity`: slots."""

    start: datetime
    concurrency: Counts
    capacity: float

    @property
    def load(self) -> Counts:
        """Concurrency by capacity, shape (minutes,)."""
        return self.concurrency / self.capacity

    def by_half_hour(self, zone: str = "UTC") -> Counts:
        """The highest load of each half hour of the day in `zone`, over all days; shape (48,)."""
        highest = np.zeros(48)
        np.maximum.at(highest, self.half_hours(zone), self.load)
        return highest

    def half_hours(self, zone: str = "UTC") -> NDArray[np.int64]:
        """The half hour of the day, 0 to 47, of each minute."""
        shift = np.zeros(len(self.concurrency), dtype=np.int64)
        for piece in _pieces(zone, self.start, len(self.concurrency)):
            shift[piece.first : piece.last] = piece.shift
        since_midnight = self.start.hour * 60 + self.start.minute
        minutes = np.arange(len(self.concurrency)) + since_midnight + shift
        return minutes % DAY // 30


def load_map(
    schedules: Iterable[Schedule], start: datetime, *, capacity: float, minutes: int = WEEK
) -> LoadMap:
    """The load from `start` (aware; cut to the minute) on. Runs that began before count too."""
    start = start.astimezone(UTC).replace(second=0, microsecond=0)
    chosen = list(schedules)
    before = _minutes(max(map(_DURATION, chosen), default=_MINUTE))
    starts = _starts(chosen, start - before * _MINUTE, minutes + before)
    steps = np.zeros(minutes + 2 * before + 1)
    for length, counts in starts.items():
        steps[: len(counts)] += counts
        steps[length : length + len(counts)] -= counts
    concurrency = np.cumsum(steps)[before : before + minutes]
    return LoadMap(start, np.rint(concurrency), capacity)


def _starts(schedules: Sequence[Schedule], start: datetime, minutes: int) -> dict[int, Counts]:
    """Starts in each minute from `start`, by the minutes that a run takes."""
    starts: dict[int, Counts] = defaultdict(lambda: np.zeros(minutes))
    end = start + minutes * _MINUTE
    crons, timings = list[Schedule](), list[Cron]()
    for one in schedules:
        timing = one.timing
        always = (one.fromdate is None and one.uptodate is None) or one.covers(start, end)
        if always and isinstance(timing, Cron):
            crons.append(one)
            timings.append(timing)
        elif always and isinstance(timing, Interval):
            starts[one.minutes] += _interval_starts(timing, start, minutes)
        else:
            starts[one.minutes] += _told_starts(one, start, end)
    for zone, same in _by_zone(crons, timings).items():
        _add_zone(starts, zone, same, start, minutes)
    return starts


def _by_zone(schedules: Sequence[Schedule], timings: Sequence[Cron]) -> dict[str, list[_Same]]:
    """Equal ones together. An expression is known by its identity: to compare costs more."""
    ids = list(map(id, timings))
    cron_of = dict(zip(ids, timings, strict=True))
    counts = Counter(zip(ids, map(_DURATION, schedules), map(_ZONE, schedules), strict=True))
    minutes = {duration: _minutes(duration) for duration in set(map(_DURATION, schedules))}
    found: dict[str, list[_Same]] = defaultdict(list)
    for (cron, duration, zone), count in counts.items():
        found[zone].append((cron_of[cron], minutes[duration], count))
    return found


def _minutes(duration: timedelta) -> int:
    return max(1, -(-duration // _MINUTE))


def _told_starts(schedule: Schedule, start: datetime, end: datetime) -> Counts:
    """Starts of a schedule that begins or ends within the line, told one by one."""
    counts = np.zeros((end - start) // _MINUTE)
    first, last = max(start, schedule.fromdate or start), min(end, schedule.uptodate or end)
    if first < last:
        for moment in occurrences(schedule.timing, zone_of(schedule.zone), first - _INSTANT):
            if moment >= last:
                break
            counts[(moment - start) // _MINUTE] += 1
    return counts


def _interval_starts(interval: Interval, start: datetime, minutes: int) -> Counts:
    """Exactly how many multiples of the interval fall into each minute."""
    edges = (start - interval.anchor) / _MINUTE + np.arange(minutes + 1)
    counted = np.ceil(np.round(edges / (interval.every / _MINUTE), 9))
    return np.diff(counted)


class _Piece(NamedTuple):
    """Minutes first to last (without it) of the line, in which local time is UTC + `shift`."""

    first: int
    last: int
    shift: int


def _pieces(zone: str, start: datetime, minutes: int) -> list[_Piece]:
    """The line cut where the zone's clock changes."""
    tz, end = zone_of(zone), start + minutes * _MINUTE
    cuts = [start, *changes(tz, start, end - _MINUTE), end]
    return [
        _Piece(
            math.ceil((one - start) / _MINUTE),
            math.ceil((other - start) / _MINUTE),
            offset(one.astimezone(tz)) // _MINUTE,
        )
        for one, other in itertools.pairwise(cuts)
    ]


def _add_zone(
    starts: dict[int, Counts],
    zone: str,
    crons: Sequence[_Same],
    start: datetime,
    minutes: int,
) -> None:
    pieces = _pieces(zone, start, minutes)
    first_day = (start + min(piece.shift for piece in pieces) * _MINUTE).date()
    last_day = (start + (minutes - 1 + max(piece.shift for piece in pieces)) * _MINUTE).date()
    days = [first_day + timedelta(n) for n in range((last_day - first_day).days + 1)]
    origin = (start - datetime.combine(first_day, datetime.min.time(), UTC)) // _MINUTE
    plain = len(pieces) == 1
    followers = crons if plain else [one for one in crons if not one[0].fixed]
    for part in _parts(followers):
        for length, local in _local_starts(part, days).items():
            for piece in pieces:
                begin = origin + piece.shift
                starts[length][piece.first : piece.last] += local[
                    begin + piece.first : begin + piece.last
                ]
    if not plain:
        _add_fixed(starts, zone, [one for one in crons if one[0].fixed], days, start)


def _add_fixed(
    starts: dict[int, Counts],
    zone: str,
    crons: Sequence[_Same],
    days: Sequence[date],
    start: datetime,
) -> None:
    """In a week in which the clock changes, times of fixed schedules are told one by one."""
    tz = zone_of(zone)
    for cron, length, count in crons:
        line = starts[length]
        # A set: several times of a gap are one run, right after it.
        for moment in {m for day in days if cron.rule.fits(day) for m in on_day(cron, tz, day)}:
            at = (moment - start) // _MINUTE
            if 0 <= at < len(line):
                line[at] += count


def _parts(same: Sequence[_Same]) -> Iterator[Sequence[_Same]]:
    """In parts: a fleet that runs each minute would take gigabytes, laid out at once."""
    begin = size = 0
    for number, (cron, _, _) in enumerate(same, 1):
        size += cron.hours.bit_count() * cron.minutes.bit_count()
        if size >= PART or number == len(same):
            yield same[begin:number]
            begin, size = number, 0


def _local_starts(same: Sequence[_Same], days: Sequence[date]) -> dict[int, Counts]:
    """Starts in each local minute of `days`, by duration."""
    if not same:
        return {}
    expressions, durations, counted = zip(*same, strict=True)
    ids = list(map(id, expressions))
    cron_of = dict(zip(ids, expressions, strict=True))
    crons = list(cron_of.values())
    rows = dict(zip(cron_of, range(len(crons)), strict=True))
    of = np.array([rows[key] for key in ids])
    counts = np.array(counted) * np.array([one.seconds.bit_count() for one in crons])[of]
    lengths, number = np.unique(durations, return_inverse=True)
    hour_of, hours = _each(of, [one.hours for one in crons], 24)
    minute_of, minutes = _each(of[hour_of], [one.minutes for one in crons], 60)
    member = hour_of[minute_of]
    at = number[member] * DAY + hours[minute_of] * 60 + minutes
    fits = _fits([one.rule for one in crons], days)[of[member]]
    lines = np.zeros((len(lengths), len(days), DAY))
    for day in range(len(days)):
        on = fits[:, day]
        found = np.bincount(at[on], counts[member[on]], len(lengths) * DAY)
        lines[:, day] = found.reshape(-1, DAY)
    return dict(zip(lengths.tolist(), lines.reshape(len(lengths), -1), strict=True))


def _each(of: Numbers, masks: Sequence[int], width: int) -> tuple[Numbers, Numbers]:
    """For each bit of each member's mask the numbers of both. `of`: the mask of each member."""
    column = np.array(masks, dtype=np.uint64)[:, None]
    mask, bit = np.nonzero(column >> np.arange(width, dtype=np.uint64) & np.uint64(1))
    sizes = np.bincount(mask, minlength=len(masks))
    before = np.cumsum(sizes) - sizes
    member = np.repeat(np.arange(len(of)), sizes[of])
    own = np.cumsum(sizes[of]) - sizes[of]
    return member, bit[np.arange(len(member)) + (before[of] - own)[member]]


def _fits(rules: Sequence[DayRule], days: Sequence[date]) -> NDArray[np.bool_]:
    """Whether a rule fits a day, shape (rules, days)."""
    known: dict[DayRule, int] = {}
    which = [known.setdefault(rule, len(known)) for rule in rules]
    return np.array([[rule.fits(day) for day in days] for rule in known])[which]
