"""Local times as instants, through every change of the clock.

As Vixie cron has it: a fixed time that falls in a gap runs once, right after the gap, and one that
falls in a fold runs at its first occurrence; a schedule with a wildcard in its minutes or hours
follows the clock that people see, so it runs in both hours of a fold and never in a gap.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import InvalidSchedule

_SECOND: Final = timedelta(seconds=1)


def zone_of(name: str | None) -> ZoneInfo:
    """The IANA zone of a name; UTC for none. Raises InvalidSchedule."""
    if not name:
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "; a fixed offset is no zone" if name[:1] in "+-" or name[3:4] in "+-" else ""
        raise InvalidSchedule(name, "timezone", f"no such IANA zone{hint}") from None


def instants(local: datetime, zone: tzinfo, *, fixed: bool) -> list[datetime]:
    """When a schedule for the naive time `local` runs, in UTC: none, one or two instants."""
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    before, after = offset(first), offset(second)
    if before == after:
        return [first.astimezone(UTC)]
    if before > after:  # a fold
        both = [first.astimezone(UTC), second.astimezone(UTC)]
        return both[:1] if fixed else both
    return [_end_of_gap(local, zone, before, after)] if fixed else []


def offset(moment: datetime) -> timedelta:
    """The offset of an aware time."""
    return moment.utcoffset() or timedelta(0)


def _end_of_gap(local: datetime, zone: tzinfo, before: timedelta, after: timedelta) -> datetime:
    """The instant at which the clock is put forward over `local`."""
    old, new = (local - by for by in (after, before))  # instants of the old and the new offset
    return _change_within(zone, old.replace(tzinfo=UTC), new.replace(tzinfo=UTC))


def changes(zone: tzinfo, start: datetime, end: datetime) -> list[datetime]:
    """The instants in (start, end] at which the offset of `zone` changes, to the second."""
    found: list[datetime] = []
    step = timedelta(hours=6)
    here = start
    while here < end:
        there = min(here + step, end)
        if here.astimezone(zone).utcoffset() != there.astimezone(zone).utcoffset():
            found.append(_change_within(zone, here, there))
        here = there
    return found


def _change_within(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The one change between two instants, to the second."""
    before = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
