"""Which shift each piece takes: one function a strategy.

Each is given the load of what is pinned, shape (10080,), the pieces, the longest first and those of
one kind together, and the slots there are. It answers a shift for each piece.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from idemwatch.alerts.thresholds import BUSY, HOT

from .line import Hour, Line, running, sums_of_runs
from .load import WEEK, Counts
from .pieces import Kind, Piece, laid

Stand: TypeAlias = tuple[Kind, int]
"""A kind and a shift: what stands there is alike."""


def spread(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """The whole plan, unless no minute is over 50% as it is.

    Least-loaded offset assignment: what is pinned first, then what runs in each hour, on an hour
    that stands for all, then the rest, longest first; each where it meets least.
    """
    if _as_it_is(pinned, pieces).load.max(initial=0) <= BUSY * capacity:
        return [piece.shift for piece in pieces]
    counts = Counter(piece.kind for piece in pieces)
    hour = Hour(pinned)
    shifts = {kind: hour.place(kind, count) for kind, count in counts.items() if kind.hourly}
    hourly = Counter((kind, shift) for kind, taken in shifts.items() for shift in taken)
    line = Line(pinned + _laid(hourly))
    shifts |= {kind: line.place(kind, count) for kind, count in counts.items() if not kind.hourly}
    return [shift for kind in counts for shift in shifts[kind]]


def _as_it_is(pinned: Counts, pieces: Sequence[Piece]) -> Line:
    return Line(pinned + _laid(Counter((piece.kind, piece.shift) for piece in pieces)))


def _laid(counts: Counter[Stand]) -> Counts:
    return laid([(kind, shift, count) for (kind, shift), count in counts.items()])


def balanced(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """Moves out of the busiest minute, one by one, until none is over 70% or none helps."""
    line = _as_it_is(pinned, pieces)
    shifts = [piece.shift for piece in pieces]
    while _over(line, capacity) and _pass(line, pieces, shifts, capacity):
        pass
    return shifts


def _over(line: Line, capacity: float) -> bool:
    return bool(line.load.max(initial=0) > HOT * capacity)


def _pass(line: Line, pieces: Sequence[Piece], shifts: list[int], capacity: float) -> int:
    """Try each piece once, the longest of the busiest minute first; how many moves helped.

    Where one piece cannot be helped, those that are like it are not tried.
    """
    waiting: dict[Stand, list[int]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        waiting[piece.kind, shifts[number]].append(number)
    candidates, moves = _Running(list(waiting)), 0
    while _over(line, capacity):
        stand = candidates.first_in(int(line.load.argmax()))
        if stand is None:
            break
        shift = _better(line, *stand)
        if shift is not None:
            shifts[waiting[stand].pop()] = shift
            moves += 1
        if shift is None or not waiting[stand]:
            candidates.drop(stand)
    return moves


class _Running:
    """Which of the stands run in a minute of the week: a bit for each stand and minute."""

    def __init__(self, stands: Sequence[Stand]) -> None:
        self._stands = stands
        self._rows = {stand: row for row, stand in enumerate(stands)}
        self._bits = np.zeros((len(stands), WEEK // 8), dtype=np.uint8)
        for row, (kind, shift) in enumerate(stands):
            self._bits[row] = np.packbits(running(kind, shift))

    def first_in(self, minute: int) -> Stand | None:
        """The first of those that run in a minute."""
        found = self._bits[:, minute // 8] & (128 >> minute % 8) > 0
        row = int(found.argmax()) if len(found) else 0
        return self._stands[row] if found[row : row + 1].any() else None

    def drop(self, stand: Stand) -> None:
        """Leave one out from now on."""
        self._bits[self._rows[stand]] = 0


def _better(line: Line, kind: Kind, shift: int) -> int | None:
    """Move one to a shift at which it makes no minute as busy as the busiest is now."""
    peak = line.load.max()
    line.put(kind, shift, -1)
    (best,) = line.place(kind)
    if best != shift and line.highest(kind, best) < peak:
        return best
    line.put(kind, best, -1)
    line.put(kind, shift)
    return None


def consolidated(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """Runs of one task side by side, as far as no minute comes over 70%."""
    line = Line(pinned)
    shifts = [0] * len(pieces)
    by_task: dict[str, list[int]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        by_task[piece.schedule.task].append(number)
    for task in sorted(by_task):
        own = Line(np.zeros(WEEK))
        for number in by_task[task]:
            kind = pieces[number].kind
            shifts[number] = _put_beside(line, own, kind, HOT * capacity)
            own.put(kind, shifts[number])
    return shifts


def _put_beside(line: Line, own: Line, kind: Kind, most: float) -> int:
    """The shift that meets most runs of the same task and has room; else the least full one."""
    highest = line.load[kind.around].max(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(highest, kind.length)
    room = windows.max(axis=1)[kind.begins] + 1 <= most
    if not room.any():
        return line.place(kind)[0]
    beside = sums_of_runs(kind, own.load[kind.around].sum(axis=0))
    shift = int(kind.shifts[np.where(room, beside, -1.0).argmax()])
    line.put(kind, shift)
    return shift


ASSIGNMENTS: Final[dict[str, Callable[[Counts, Sequence[Piece], float], list[int]]]] = {
    "balanced": balanced,
    "spread": spread,
    "consolidate": consolidated,
}
