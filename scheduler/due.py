"""What has become due of a schedule, and what of it is fired: decided from plain values.

A due time is on time for its misfire grace. What is older is a misfire: `catch_up` fires the latest
of them (unless one on time follows anyway), all, or none; the rest is missed.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from .clock import zone_of
from .model import DEFAULT_GRACE, CatchUp, Schedule
from .occurrences import Moments, occurrences

MOST_AT_ONCE: Final = 1000
"""Due times of one schedule that one step takes; the next step goes on behind them."""
_INSTANT: Final = timedelta(microseconds=1)


class Due(NamedTuple):
    """One due time. `late`: fired although it is a misfire. `until`: when it is given up."""

    at: datetime
    missed: bool
    late: bool
    until: datetime


class Advance(NamedTuple):
    """The due times up to now, in order, and the next one; None if there is no next."""

    due: tuple[Due, ...]
    next_at: datetime | None


def advance(
    schedule: Schedule,
    planned: datetime | None,
    now: datetime,
    *,
    since: datetime | None = None,
    most: int = MOST_AT_ONCE,
) -> Advance:
    """From `planned`, the first due time that was not dealt with yet, up to `now`.

    None for `planned` begins anew: a single one with its only run, though it be past; a recurring
    one with its first run after `since`, when it came to be as it is, but not with a misfire. A
    schedule that came into the table long before any beat did is no reason to catch up.
    """
    first = _first(schedule, now, since) if planned is None else planned
    if first is None:
        return Advance((), None)
    passed: list[datetime] = []
    next_at = None
    following = occurrences(schedule.timing, zone_of(schedule.zone), first)
    for at in itertools.chain([first], following):
        if at > now or len(passed) == most or not _within(schedule, at):
            next_at = at if _within(schedule, at) else None
            break
        passed.append(at)
    caught_up = next_at is None or next_at > now
    return Advance(tuple(_judged(schedule, passed, now, caught_up)), next_at)


def _first(schedule: Schedule, now: datetime, since: datetime | None) -> datetime | None:
    begin = schedule.fromdate - _INSTANT if schedule.fromdate else None
    after = now
    if since is not None:
        after = min(now, max(since, now - schedule.misfire_grace))
    if isinstance(schedule.timing, Moments):
        after = begin or after
    elif begin is not None:
        after = max(after, begin)
    return next(occurrences(schedule.timing, zone_of(schedule.zone), after), None)


def _within(schedule: Schedule, at: datetime) -> bool:
    return schedule.uptodate is None or at < schedule.uptodate


def _judged(
    schedule: Schedule, passed: list[datetime], now: datetime, caught_up: bool
) -> list[Due]:
    on_time = [now - at <= schedule.misfire_grace for at in passed]
    latest = len(passed) - 1 if caught_up and not any(on_time) else -1
    found = []
    for number, (at, good) in enumerate(zip(passed, on_time, strict=True)):
        late = not good and (
            schedule.catch_up is CatchUp.ALL
            or (schedule.catch_up is CatchUp.ONE and number == latest)
        )
        until = (
            at + schedule.misfire_grace
            if good
            else now + max(schedule.misfire_grace, DEFAULT_GRACE)
        )
        found.append(Due(at, missed=not good and not late, late=late, until=until))
    return found
