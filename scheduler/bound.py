"""How low the highest concurrency of a week can be, whatever the plan.

The larger of two bounds: what is pinned has a peak of its own; and in any interval, the work that
cannot leave it (pieces whose whole window lies inside, and what is pinned) needs at least its
minutes divided by the interval's.
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
    peak = int(pinned.max(initial=0))
    if not pieces:
        return peak
    ending = _by_window(pieces)
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


def _by_window(pieces: Sequence[Piece]) -> dict[int, dict[int, int]]:
    """Minutes of work by the first and the last minute (without it) that a run may touch."""
    found: dict[int, dict[int, int]] = {}
    for piece in pieces:
        first, last = int(piece.shifts.min()), int(piece.shifts.max()) + piece.length
        for start in piece.starts.tolist():
            if start + first >= 0 and start + last <= WEEK:
                ends = found.setdefault(start + first, {})
                ends[start + last] = ends.get(start + last, 0) + piece.length
    return found
