"""Which moves of a schedule can be written as cron, and how.

A move by n minutes keeps the days: it never carries a run over midnight when days are restricted,
and never lands in an hour that a change of the clock skips or repeats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from .clock import changes, offset, zone_of
from .cron import Cron, parse_cron
from .days import EVERY_DAY, EVERY_WEEKDAY
from .dialects import MACROS
from .occurrences import bits

_ALL_HOURS: Final = (1 << 24) - 1
_ALL_MINUTES: Final = (1 << 60) - 1
AVOIDED_AHEAD: Final = timedelta(days=400)


def shifted(cron: Cron, minutes: int) -> Cron | None:
    """The schedule `minutes` later (or earlier); None when cron cannot say that."""
    if minutes == 0:
        return cron
    masks = moved(cron, minutes)
    return None if masks is None else parse_cron(_written(cron, *masks), cron.dialect)


def moved(cron: Cron, shift: int) -> tuple[int, int] | None:
    """The masks of minutes and hours after a move; None when cron cannot say that."""
    if shift == 0:
        return cron.minutes, cron.hours
    if cron.minutes == _ALL_MINUTES:
        return None
    if cron.hours == _ALL_HOURS:
        return _rotated(cron.minutes, shift % 60, 60), cron.hours
    first, last = _ends(cron.minutes)
    if first + shift >= 0 and last + shift < 60:
        return _moved_mask(cron.minutes, shift), cron.hours
    if first != last:
        return None
    carry, minute = divmod(first + shift, 60)
    earliest, latest = _ends(cron.hours)
    if not _every_day(cron) and not (earliest + carry >= 0 and latest + carry < 24):
        return None
    return 1 << minute, _rotated(cron.hours, carry % 24, 24)


def _ends(mask: int) -> tuple[int, int]:
    """The lowest and the highest bit that is set."""
    return (mask & -mask).bit_length() - 1, mask.bit_length() - 1


def _every_day(cron: Cron) -> bool:
    rule = cron.rule.plain()
    return rule.days == EVERY_DAY and rule.weekdays == EVERY_WEEKDAY and rule.months == 0x1FFE


def _rotated(mask: int, by: int, width: int) -> int:
    return (mask << by | mask >> width - by) & (1 << width) - 1


def _moved_mask(mask: int, by: int) -> int:
    return mask << by if by > 0 else mask >> -by


def _written(cron: Cron, minutes: int, hours: int) -> str:
    """The expression with other minutes and hours; the other fields stay as they were written."""
    words = _words(cron)
    at = 1 if cron.dialect == "quartz" else 0
    words[at] = mask_text(minutes, 60)
    words[at + 1] = words[at + 1] if hours == cron.hours else mask_text(hours, 24)
    return " ".join(words)


def _words(cron: Cron) -> list[str]:
    text = cron.expression
    return MACROS.get(text.lower(), text).split()


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


def lands_well(cron: Cron, masks: tuple[int, int], avoided: Iterable[int]) -> bool:
    """Whether a fixed schedule meets no skipped or repeated minute with these masks."""
    minutes, hours = masks
    return not cron.fixed or not any(
        hours >> minute // 60 & 1 and minutes >> minute % 60 & 1 for minute in avoided
    )
