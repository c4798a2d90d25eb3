"""Which moves of a schedule can be written as cron, and how.

A move by n minutes keeps the days: it never carries a run over midnight when days are restricted,
and never lands in an hour that a change of the clock skips or repeats.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from .clock import changes, offset, zone_of
from .cron import Cron
from .days import EVERY_DAY, EVERY_WEEKDAY
from .dialects import MACROS
from .occurrences import bits

ALL_HOURS: Final = (1 << 24) - 1
_ALL_MINUTES: Final = (1 << 60) - 1
_ALL_MONTHS: Final = (1 << 13) - 2
AVOIDED_AHEAD: Final = timedelta(days=400)


@lru_cache(maxsize=8192)
def shifted(cron: Cron, minutes: int) -> Cron | None:
    """The schedule `minutes` later (or earlier); None when cron cannot say that."""
    if minutes == 0:
        return cron
    masks = moved(cron, minutes)
    return None if masks is None else _rewritten(cron, *masks)


def moved(cron: Cron, shift: int) -> tuple[int, int] | None:
    """The masks of minutes and hours after a move; None when cron cannot say that."""
    if shift == 0:
        return cron.minutes, cron.hours
    if cron.minutes == _ALL_MINUTES:
        return None
    if cron.hours == ALL_HOURS:
        return _rotated(cron.minutes, shift % 60, 60), cron.hours
    first, last = _ends(cron.minutes)
    if first + shift >= 0 and last + shift < 60:
        return _moved_mask(cron.minutes, shift), cron.hours
    if first != last:
        return None
    carry, minute = divmod(first + shift, 60)
    earliest, latest = _ends(cron.hours)
    if not every_day(cron) and not (earliest + carry >= 0 and latest + carry < 24):
        return None
    return 1 << minute, _rotated(cron.hours, carry % 24, 24)


def shifts_of(cron: Cron, window: int, avoided: Collection[int]) -> list[int]:
    """The moves by at most `window` minutes that can be written and land well, shortest first.

    `avoided`: minutes of the day, as by `skipped_minutes`. Of moves that come to the same, one.
    """
    earliest, latest = _reach(cron)
    within = range(min(window, latest), max(-window, earliest) - 1, -1)
    shortest_first = sorted(within, key=abs)  # of two as short, the later one
    if not avoided or not cron.fixed:
        return shortest_first
    return [one for one in shortest_first if one == 0 or _lands_well(cron, one, avoided)]


def _reach(cron: Cron) -> tuple[int, int]:
    """The earliest and the latest move that cron can say and that no shorter one comes to."""
    first, last = _ends(cron.minutes)
    if cron.minutes == _ALL_MINUTES:
        return 0, 0
    if cron.hours == ALL_HOURS:
        return _around(_period(cron.minutes, 60))
    if first != last:
        return -first, 59 - last
    if every_day(cron):
        return _around(60 * _period(cron.hours, 24))
    earliest, latest = _ends(cron.hours)
    return -(60 * earliest + first), 60 * (24 - latest) - first - 1


def _around(period: int) -> tuple[int, int]:
    return -((period - 1) // 2), period // 2


def _period(mask: int, width: int) -> int:
    """By how much a mask is turned until it is the same again."""
    return next(by for by in range(1, width + 1) if _rotated(mask, by, width) == mask)


def _lands_well(cron: Cron, shift: int, avoided: Collection[int]) -> bool:
    masks = moved(cron, shift)
    return masks is not None and not any(
        masks[1] >> minute // 60 & 1 and masks[0] >> minute % 60 & 1 for minute in avoided
    )


def _ends(mask: int) -> tuple[int, int]:
    """The lowest and the highest bit that is set."""
    return (mask & -mask).bit_length() - 1, mask.bit_length() - 1


def every_day(cron: Cron) -> bool:
    """Whether its days are not restricted."""
    rule = cron.rule.plain()
    restricted = rule.years or rule.months != _ALL_MONTHS
    return not restricted and (rule.days, rule.weekdays) == (EVERY_DAY, EVERY_WEEKDAY)


def _rotated(mask: int, by: int, width: int) -> int:
    return (mask << by | mask >> width - by) & (1 << width) - 1


def _moved_mask(mask: int, by: int) -> int:
    return mask << by if by > 0 else mask >> -by


def _rewritten(cron: Cron, minutes: int, hours: int) -> Cron:
    """With other minutes and hours; the other fields stay as they were written.

    As parsing would read it, an `H` in a day field with the schedule's own name.
    """
    words = _words(cron)
    at = 1 if cron.dialect == "quartz" else 0
    kept = hours == cron.hours and "H" not in words[at + 1].upper()
    times = [mask_text(minutes, 60), words[at + 1] if kept else mask_text(hours, 24)]
    words[at : at + 2] = times
    return replace(
        cron,
        expression=" ".join(words),
        minutes=minutes,
        hours=hours,
        fixed=not any(text[0] in "*?" for text in times),
    )


def _words(cron: Cron) -> list[str]:
    first, *others = cron.expression.split()
    return [*MACROS.get(first.lower(), first).split(), *others]


def mask_text(mask: int, width: int) -> str:
    """A mask as a field: `*`, `*/5`, `3-59/10`, `9-17` or a list."""
    values = bits(mask)
    if len(values) == width:
        return "*"
    gaps = {other - one for one, other in itertools.pairwise(values)}
    if len(values) > 2 and len(gaps) == 1:
        (step,) = gaps
        if step == 1:
            return f"{values[0]}-{values[-1]}"
        if values[-1] + step >= width and values[0] < step:
            return f"*/{step}" if values[0] == 0 else f"{values[0]}-{width - 1}/{step}"
    return ",".join(map(str, values))


@lru_cache(maxsize=1024)
def skipped_minutes(zone: str, now: datetime) -> frozenset[int]:
    """The minutes of the day that a change of the clock skips or repeats within 400 days."""
    tz, found = zone_of(zone), set[int]()
    for change in changes(tz, now, now + AVOIDED_AHEAD):
        before = offset((change - timedelta(seconds=1)).astimezone(tz))
        after = offset(change.astimezone(tz))
        first = change + min(before, after)
        for minute in range(abs(after - before) // timedelta(minutes=1)):
            moment = first + timedelta(minutes=minute)
            found.add(moment.hour * 60 + moment.minute)
    return frozenset(found)
