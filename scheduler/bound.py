"""How low the highest concurrency of a week can be, whatever the plan.

In any interval, the work that cannot leave it needs at least its minutes divided by the interval's:
what is pinned, the kinds whose whole window lies inside, and of those that run in each hour, which
always leave some work behind, the least that any of their shifts does inside. An interval of one
minute tells the peak of what is pinned.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from .load import DAY, WEEK, Counts
from .pieces import Kind, Piece

MOST_BEGINNINGS: Final = 1000
_HAIR: Final = 1e-9
_HOUR: Final = np.arange(60)
_LENGTHS: Final = np.arange(1, DAY + 1)


def lower_bound(pinned: Counts, pieces: Sequence[Piece]) -> int:
    """Runs at once in the busiest minute of any plan. `pinned`: shape (10080,)."""
    kinds = Counter(piece.kind for piece in pieces)
    hourly = _left_behind(kinds)
    latest = _latest_runs(kinds)
    before = np.concatenate(([0.0], np.cumsum(pinned)))
    slope = np.zeros(WEEK + 2)
    best = float((pinned + np.tile(hourly[:, 0], WEEK // 60)).max(initial=0))
    chosen = _first_minutes(latest)
    for first in sorted({*latest, *chosen}, reverse=True):
        for minute, runs in latest.get(first, {}).items():
            slope[minute] += runs
        if first not in chosen:
            continue
        line = slice(first + 1, min(first + DAY, WEEK) + 1)
        inside = np.cumsum(np.cumsum(slope[line])) + before[line] - before[first]
        inside += hourly[first % 60, : len(inside)]
        best = max(best, float((inside / _LENGTHS[: len(inside)]).max()))
    return math.ceil(best - _HAIR)


def _first_minutes(latest: Mapping[int, Mapping[int, int]]) -> set[int]:
    """Where intervals begin: in a fleet with very many choices, those at which most runs may begin.

    Fewer intervals make the bound lower at most, never wrong.
    """
    runs = {first: sum(map(abs, changes.values())) for first, changes in latest.items()}
    return {*sorted(runs, key=lambda first: (-runs[first], first))[:MOST_BEGINNINGS], *range(60)}


def _left_behind(kinds: Mapping[Kind, int]) -> Counts:
    """What kinds that run in each hour of the week do at least in an interval.

    By its first minute within the hour, and its length from 1 on; shape (60, 1440).
    """
    whole, least = 0.0, np.zeros((60, 60))
    for kind, count in kinds.items():
        if kind.always:
            whole += count * kind.cover.sum()
            least += count * _least(kind)
    return whole * (_LENGTHS // 60) + least[:, _LENGTHS % 60]


def _least(kind: Kind) -> Counts:
    """The minutes of work in an interval at the shift that does least there.

    By its first minute and its length from 0 on; shape (60, 60), or (60,) for any first minute.
    """
    sums = np.concatenate(([0.0], np.cumsum(np.tile(kind.cover, 2))))
    unmoved = sums[_HOUR[:, None] + _HOUR] - sums[_HOUR][:, None]
    everywhere = len(kind.shifts) == 60
    least: Counts = (
        unmoved.min(axis=0)
        if everywhere
        else unmoved[(_HOUR[:, None] - kind.shifts) % 60].min(axis=1)
    )
    return least


def _latest_runs(kinds: Mapping[Kind, int]) -> dict[int, dict[int, int]]:
    """Of the other kinds, by the first minute that a run may touch: its latest place.

    In an interval that begins no later, a run does least there: a minute of work for each minute
    that the interval reaches into it. Told as changes of that slope, at one past each minute.
    """
    found: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for kind, count in kinds.items():
        if not kind.always:
            for first in (kind.starts + kind.earliest).tolist():
                end = first + kind.reached
                if first >= 0 and end <= WEEK:
                    found[first][end - kind.length + 1] += count
                    found[first][end + 1] -= count
    return found
