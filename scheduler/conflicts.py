"""Schedules that get in their own way, or in that of another on the same resource."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache

import numpy as np

from .cron import Cron
from .days import DayRule
from .load import DAY, load_map
from .model import Schedule
from .occurrences import Interval, Moments, Timing, bits

_SEARCHED_DAYS = 366
_DAY_SECONDS = 86_400


def shortest_gap(timing: Timing, today: date) -> timedelta | None:
    """The shortest time from one run to the next within a year; None if it runs at most once.

    By its own clock: a change of the clock may shorten a gap by the hour that it moves.
    """
    if isinstance(timing, Interval):
        return timing.every
    if isinstance(timing, Moments):
        return min((other - one for one, other in itertools.pairwise(timing.at)), default=None)
    times = _seconds_of_day(timing)
    within = min((other - one for one, other in itertools.pairwise(times)), default=None)
    days = _fitting_days(timing.rule, today)
    gaps = [] if within is None or not days else [within]
    if len(days) > 1:
        apart = min(other - one for one, other in itertools.pairwise(days))
        gaps.append(apart * _DAY_SECONDS - times[-1] + times[0])
    return timedelta(seconds=min(gaps)) if gaps else None


def _seconds_of_day(cron: Cron) -> list[int]:
    hours, minutes, seconds = bits(cron.hours), bits(cron.minutes), bits(cron.seconds)
    return [h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds]


@lru_cache(maxsize=4096)
def _fitting_days(rule: DayRule, today: date) -> tuple[int, ...]:
    """The days from `today` within a year."""
    return tuple(n for n in range(_SEARCHED_DAYS) if rule.fits(today + timedelta(n)))


def overrunning(schedules: Sequence[Schedule], today: date) -> list[Schedule]:
    """Those whose next run begins before a run of theirs has ended."""
    found = []
    for one in schedules:
        gap = shortest_gap(one.timing, today)
        if gap is not None and one.duration > gap:
            found.append(one)
    return found


def contending(schedules: Sequence[Schedule], start: datetime) -> list[Schedule]:
    """Those that run, in the week from `start`, while another on the same asset and client does."""
    by_resource: dict[tuple[str, str | None], list[Schedule]] = defaultdict(list)
    for one in schedules:
        if one.asset_id is not None:
            by_resource[one.asset_id, one.client_id].append(one)
    found = []
    for group in by_resource.values():
        if len(group) > 1:
            together = load_map(group, start, capacity=1).concurrency
            for one in group:  # each made again: a matrix of all may be too large
                own = load_map([one], start, capacity=1).concurrency
                if ((own > 0) & (together > own)).any():
                    found.append(one)
    return found


def first_meeting(one: Schedule, other: Schedule, now: datetime) -> datetime | None:
    """The first minute (UTC) within a year in which both run; None if they never meet.

    The year begins when both may run.
    """
    start = max(filter(None, (now, one.fromdate, other.fromdate)))
    loads = [
        load_map([each], start, capacity=1, minutes=_SEARCHED_DAYS * DAY) for each in (one, other)
    ]
    meets = np.flatnonzero((loads[0].concurrency > 0) & (loads[1].concurrency > 0))
    return loads[0].start + timedelta(minutes=int(meets[0])) if len(meets) else None
