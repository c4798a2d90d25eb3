"""What is allowed in a schedule and surely not meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from .clock import changes, offset
from .cron import Cron
from .dialects import MACROS
from .occurrences import Timing, bits

AHEAD: Final = timedelta(days=400)
_ALL_MINUTES: Final = (1 << 60) - 1
_ALL_HOURS: Final = (1 << 24) - 1
_MINUTE: Final = timedelta(minutes=1)
_STEP: Final = re.compile(r"\*/(\d+)")


class Finding(NamedTuple):
    """`code`: never, gap, fold, every_minute or uneven_step; `message`: a sentence with advice."""

    code: str
    message: str


def lint(timing: Timing, zone: tzinfo, now: datetime) -> list[Finding]:
    """What to ask the author of a schedule. Changes of the clock count for 400 days from `now`."""
    if not isinstance(timing, Cron):
        return []
    if timing.next_day(now.astimezone(zone).date()) is None:
        return [Finding("never", "never fires: no such day comes")]
    return [*_minutes(timing), *_steps(timing), *_clock(timing, zone, now)]


def _minutes(cron: Cron) -> Iterator[Finding]:
    if cron.minutes == _ALL_MINUTES and cron.hours != _ALL_HOURS:
        hours = bits(cron.hours)
        one = len(hours) == 1
        span = "1 hour" if one else f"{len(hours)} hours"
        meant = f"at {hours[0]:02}:00" if one else "once in each of them"
        yield Finding(
            "every_minute",
            f"fires in each minute of {span} a day: write 0 in place of * if it is meant to fire "
            f"{meant}",
        )


def _steps(cron: Cron) -> Iterator[Finding]:
    """A step that does not divide its field ends with a shorter one."""
    words = MACROS.get(cron.expression.lower(), cron.expression).split()
    at = 1 if cron.dialect == "quartz" else 0
    for word, width, unit in zip(words[at : at + 2], (60, 24), ("minute", "hour"), strict=True):
        found = _STEP.fullmatch(word)
        step = int(found[1]) if found else 1
        if width % step and step < width:
            last = (width - 1) // step * step
            yield Finding(
                "uneven_step",
                f"*/{step} does not divide {width}: from {unit} {last} to the next 0 it is "
                f"{width - last} {unit}{'' if width - last == 1 else 's'}, not {step}",
            )


def _clock(cron: Cron, zone: tzinfo, now: datetime) -> Iterator[Finding]:
    """Fixed times that a change of the clock skips or repeats."""
    if not cron.fixed:
        return
    told: set[str] = set()
    for change in _ahead(zone, now):
        before = offset((change - timedelta(seconds=1)).astimezone(zone))
        after = offset(change.astimezone(zone))
        code = "gap" if after > before else "fold"
        first = (change + min(before, after)).replace(tzinfo=None)
        met = _first_met(cron, first, abs(after - before) // _MINUTE)
        if met is not None and code not in told:
            told.add(code)
            yield Finding(code, _told(code, met))


@lru_cache(maxsize=1024)
def _ahead(zone: tzinfo, now: datetime) -> list[datetime]:
    """The changes of a zone's clock, which all of its schedules meet."""
    return changes(zone, now, now + AHEAD)


def _first_met(cron: Cron, first: datetime, minutes: int) -> datetime | None:
    fits: dict[date, bool] = {}
    for number in range(minutes):
        moment = first + number * _MINUTE
        if cron.hours >> moment.hour & 1 and cron.minutes >> moment.minute & 1:
            day = moment.date()
            if fits.setdefault(day, cron.rule.fits(day)):
                return moment
    return None


def _told(code: str, moment: datetime) -> str:
    when = f"{moment:%Y-%m-%d %H:%M}"
    if code == "gap":
        return f"{when} is skipped when the clock is put forward: it fires right after the gap"
    return f"{when} comes twice when the clock is put back: it fires the first time only"
