"""What is recommended for a fleet, one change a schedule: the table that operators look at.

What means the same as another is cancelled, what crowds a half hour is moved as the plan says,
what runs into itself or into another on its asset is spread or moved, and what stands in an hour
that the clock skips or repeats is moved out of it. Each is judged with those before it made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import numpy as np

from .advice import advice_of
from .changes import without_duplicates
from .checks import span
from .clock import zone_of
from .cron import Cron
from .health import Health
from .lint import lint
from .load import Counts, LoadMap, load_map
from .model import Schedule
from .occurrences import timing_text
from .planner import applied, plan
from .recommendations import MOST, Recommendation, recommendations_of
from .shifts import shifted, shifts_of, skipped_minutes

_MINUTE: Final = timedelta(minutes=1)
_URGENCIES: Final = {"duplicate": "medium", "conflict": "high", "dst": "low"}
"""Of what no load makes urgent."""
_CLOCK: Final = {"gap", "fold"}


def improvements(
    schedules: Sequence[Schedule], found: Health, now: datetime, *, capacity: float
) -> list[Recommendation]:
    """All that is recommended. `found`: their health in the week from `now` (aware)."""
    cancelled = {one.before.id for one in without_duplicates(schedules)}
    active = [one for one in schedules if one.active and one.id not in cancelled]
    planned = plan(active, now, capacity=capacity)
    left = applied(active, planned.moves)
    moved = {one.before.id for one in planned.moves}
    result = [
        _duplicate(one, found.load, planned.before) for one in schedules if one.id in cancelled
    ]
    result += recommendations_of(advice_of(planned))
    further = (
        *_spread(left, {*found.overrunning} - moved, planned.after),
        *_apart(left, {*found.contending}, moved, planned.after),
        *_out_of_changes(left, moved, planned.after, now),
    )
    first: dict[str, Recommendation] = {}
    for one in further:
        first.setdefault(one.schedule_id, one)
    return [*result, *first.values()]


def _change(
    one: Schedule, recommended: str, reason: str, before: float, after: float
) -> Recommendation:
    current = timing_text(one.timing)
    return Recommendation(one.id, current, recommended, _URGENCIES[reason], reason, before, after)


def _duplicate(one: Schedule, before: LoadMap, after: LoadMap) -> Recommendation:
    loads = _start(before, one), _start(after, one)
    return _change(one, "cancel it: another means the same", "duplicate", *loads)


def _spread(
    schedules: Sequence[Schedule], overrunning: Collection[str], load: LoadMap
) -> Iterator[Recommendation]:
    """Those that start again before a run of theirs has ended."""
    for one in islice((one for one in schedules if one.id in overrunning), MOST):
        before, at_once = _start(load, one), float(_own(one, load).max(initial=1))
        after = before - (at_once - 1) / load.capacity
        yield _change(
            one, f"at most every {span(one.minutes * _MINUTE)}", "conflict", before, after
        )


def _apart(
    schedules: Sequence[Schedule],
    contending: Collection[str],
    moved: Collection[str],
    load: LoadMap,
) -> Iterator[Recommendation]:
    """Moves of those that meet another on their asset; the oldest of them stays."""
    groups: dict[tuple[str | None, str | None], list[Schedule]] = defaultdict(list)
    for one in schedules:
        if one.id in contending:
            groups[one.asset_id, one.client_id].append(one)
    looked_at = 0
    for group in groups.values():
        together = load_map(group, load.start, capacity=1).concurrency
        for one in reversed(group[1:]):
            if looked_at == MOST:
                return
            if one.id in moved:
                continue
            looked_at += 1
            own = _own(one, load)
            others = together - own
            if not _meet(own, others):
                continue
            found = _free(one, others, load)
            if found is not None:
                together = others + _own(found, load)
                yield _moved(one, found, "conflict", load)


def _free(one: Schedule, others: Counts, load: LoadMap) -> Schedule | None:
    """It at the nearest time at which none of the others runs."""
    anchor = one.anchor
    if not one.movable or not isinstance(anchor, Cron):
        return None
    unmoved = _own(replace(one, timing=anchor), load)
    for shift in shifts_of(anchor, one.window // _MINUTE, skipped_minutes(one.zone, load.start)):
        if not _meet(np.roll(unmoved, shift), others):  # close enough to choose what is tried
            timing = shifted(anchor, shift)
            found = None if timing is None else replace(one, timing=timing, unmoved=anchor)
            if found is not None and not _meet(_own(found, load), others):
                return found
    return None


def _own(one: Schedule, load: LoadMap) -> Counts:
    return load_map([one], load.start, capacity=1).concurrency


def _meet(own: Counts, others: Counts) -> bool:
    return bool(((own > 0) & (others > 0)).any())


def _out_of_changes(
    schedules: Sequence[Schedule], moved: Collection[str], load: LoadMap, now: datetime
) -> Iterator[Recommendation]:
    """Moves of those in an hour that the clock skips or repeats within 400 days."""
    known: dict[object, bool] = {}

    def changed(one: Schedule) -> bool:
        key = (one.timing, one.zone)
        if key not in known:
            told = lint(one.timing, zone_of(one.zone), now)
            known[key] = not _CLOCK.isdisjoint(code for code, _ in told)
        return known[key]

    for one in islice((one for one in schedules if one.id not in moved and changed(one)), MOST):
        anchor = one.anchor
        if not one.movable or not isinstance(anchor, Cron):
            continue
        shifts = shifts_of(anchor, one.window // _MINUTE, skipped_minutes(one.zone, now))
        timings = (shifted(anchor, shift) for shift in shifts if shift)
        found = next((timing for timing in timings if timing is not None), None)
        if found is not None:
            yield _moved(one, replace(one, timing=found, unmoved=anchor), "dst", load)


def _moved(one: Schedule, found: Schedule, reason: str, load: LoadMap) -> Recommendation:
    """`after`: with its own load where it is then, and not where it was."""
    there = replace(load, concurrency=load.concurrency - _own(one, load) + _own(found, load))
    loads = _start(load, one), _start(there, found)
    return _change(one, timing_text(found.timing), reason, *loads)


def _start(load: LoadMap, one: Schedule) -> float:
    """The highest load that it starts into."""
    starts = _own(replace(one, duration=_MINUTE), load) > 0
    return float(load.load[starts].max(initial=0))
