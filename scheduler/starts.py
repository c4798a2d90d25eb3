"""In which half hours of the day schedules start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from .clock import changes, zone_of
from .cron import Cron
from .load import LoadMap, load_map
from .model import Schedule
from .pieces import Minutes, week_starts

SLOTS: Final = 48
_MINUTE: Final = timedelta(minutes=1)


def start_slots(schedules: Sequence[Schedule], load: LoadMap, zone: str) -> list[tuple[int, ...]]:
    """For each schedule the half hours of the day in `zone`, 0 to 47; none if it is not active."""
    half_hours = load.half_hours(zone)
    known: dict[object, tuple[int, ...]] = {None: ()}
    found = []
    for one in schedules:
        alike = (one.timing, one.zone, one.fromdate, one.uptodate) if one.active else None
        if alike not in known:
            minutes = _minutes(one, load.start, len(half_hours))
            known[alike] = tuple(np.unique(half_hours[minutes]).tolist())
        found.append(known[alike])
    return found


def starts_by_slot(schedules: Sequence[Schedule], load: LoadMap, zone: str) -> list[int]:
    """How many schedules start in each half hour of the day in `zone`."""
    counts: Counter[int] = Counter()
    for slots, times in Counter(start_slots(schedules, load, zone)).items():
        counts.update(dict.fromkeys(slots, times))
    return [counts[slot] for slot in range(SLOTS)]


def _minutes(schedule: Schedule, start: datetime, minutes: int) -> Minutes:
    """Minutes from `start` in which it starts."""
    end = start + minutes * _MINUTE
    if (
        isinstance(schedule.timing, Cron)
        and not schedule.bounded
        and not changes(zone_of(schedule.zone), start, end)
    ):
        return week_starts(schedule.timing, schedule.zone, start)
    short = replace(schedule, duration=_MINUTE)
    return np.flatnonzero(load_map([short], start, capacity=1, minutes=minutes).concurrency)
