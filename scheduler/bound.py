"""How low the highest concurrency of a week can be, whatever the plan.

The larger of two bounds: what is pinned has a peak of its own, and pinned is also what a piece does
in a minute at each of its shifts, as one that runs every 5 minutes for 5; and in any interval, the
work that cannot leave it (pieces whose whole window lies inside, and what is pinned) needs at least
its minutes divided by the interval's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from .load import DAY, WEEK, Counts
from .pieces import Piece

_HAIR: Final = 1e-9


def lower_bound(pinned: Counts, pieces: Sequence[Piece]) -> int:
    """Runs at once in the busiest minute of any plan. `pinned`: shape (10080,)."""
    pinned, leaving = _pinned_too(pinned, pieces)
    peak = int(pinned.max(initial=0))
    ending = _by_window(leaving)
    before = np.concatenate(([0.0], np.cumsum(pinned)))
    work = np.zeros(WEEK + 1)
    best = 0.0
    lengths = np.arange(1, DAY + 1)
    for first in range(WEEK - 1, -1, -1):
        for end, minutes in ending.get(first, {}).items():
            work[end] += minutes
        last = min(first + DAY, WEEK)
        inside = (
            np.cumsum(work[first + 1 : last + 1]) + before[first + 1 : last + 1] - before[first]
        )
        best = max(best, float((inside / lengths[: last - first]).max()))
    return max(peak, math.ceil(best - _HAIR))


def _pinned_too(pinned: Counts, pieces: Sequence[Piece]) -> tuple[Counts, list[tuple[Piece, int]]]:
    """What is pinned, with what never leaves its minute; and the other pieces, counted."""
    equal: dict[tuple[int, int, int], list[Piece]] = {}
    for piece in pieces:  # equal starts and shifts are one array: see pieces.py
        equal.setdefault((id(piece.starts), id(piece.shifts), piece.length), []).append(piece)
    leaving = []
    for same in equal.values():
        always = _always(same[0])
        pinned = pinned + np.tile(always * len(same), WEEK // 60)
        if not always.any():
            leaving.append((same[0], len(same)))
    return pinned, leaving


def _always(piece: Piece) -> Counts:
    """How often the piece runs in each minute of the hour at least, wherever it is moved to."""
    if not piece.hourly:
        return np.zeros(60)
    cover = np.bincount(piece.cells(0) % 60, minlength=60) / (WEEK / 60)
    least: Counts = cover[(np.arange(60) - piece.shifts[:, None]) % 60].min(axis=0)
    return np.floor(least)


def _by_window(pieces: Sequence[tuple[Piece, int]]) -> dict[int, dict[int, int]]:
    """Minutes of work by the first and the last minute (without it) that a run may touch."""
    found: dict[int, dict[int, int]] = {}
    for piece, count in pieces:
        first, last = int(piece.shifts.min()), int(piece.shifts.max()) + piece.length
        for start in piece.starts.tolist():
            if start + first >= 0 and start + last <= WEEK:
                ends = found.setdefault(start + first, {})
                ends[start + last] = ends.get(start + last, 0) + piece.length * count
    return found
