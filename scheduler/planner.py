"""Where to move schedules so that no minute of the week is crowded.

Least-loaded offset assignment: what is pinned first, then what runs in each hour, on an hour that
stands for all, then the rest, longest first; each at the shift with the smallest sum of the seventh
powers of the load that it meets: nearly its maximum, and it still tells quieter minutes apart.

A plan is a function of the unmoved schedules, so making it again changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from idemwatch.alerts.thresholds import BUSY, HOT

from .bound import lower_bound
from .cron import Cron
from .load import WEEK, Counts, LoadMap, load_map
from .model import ACTIVE, Schedule
from .pieces import Minutes, Piece, split
from .shifts import shifted

POWER: Final = 7
STRATEGIES: Final = ("balanced", "spread", "consolidate")


@dataclass(frozen=True, slots=True)
class Move:
    """One schedule before and after."""

    before: Schedule
    after: Schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """`bound`: runs at once in the busiest minute that no plan can be below."""

    strategy: str
    moves: tuple[Move, ...]
    before: LoadMap
    after: LoadMap
    bound: int


def plan(
    schedules: Sequence[Schedule], now: datetime, *, capacity: float, strategy: str = "balanced"
) -> Plan:
    """A plan for the week from `now` (aware). Raises ValueError for an unknown strategy.

    Its highest load is never above that of the schedules as they are; only where runs are packed
    together it may come up to 70%.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: {strategy!r} is none of {', '.join(STRATEGIES)}")
    active = [one for one in schedules if one.status in ACTIVE]
    before = load_map(active, now, capacity=capacity)
    pinned, pieces = split(active, now)
    shifts = _strategy(strategy)(pinned, pieces, capacity)
    moves = [
        _move(piece, shift)
        for piece, shift in zip(pieces, shifts, strict=True)
        if shift != piece.shift
    ]
    after = load_map(applied(active, moves), now, capacity=capacity)
    most = before.load.max(initial=0)
    if after.load.max(initial=0) > (max(most, HOT) if strategy == "consolidate" else most):
        moves, after = [], before
    bound = lower_bound(pinned, pieces)
    return Plan(strategy, tuple(moves), before, after, bound)


def applied(schedules: Sequence[Schedule], moves: Sequence[Move]) -> list[Schedule]:
    """The schedules after the moves."""
    moved = {move.before.id: move.after for move in moves}
    return [moved.get(one.id, one) for one in schedules]


def _move(piece: Piece, shift: int) -> Move:
    schedule, anchor = piece.schedule, piece.schedule.anchor
    moved = shifted(anchor, shift) if isinstance(anchor, Cron) else None
    if moved is None:
        raise AssertionError(f"{schedule.id} cannot be moved by {shift}")
    return Move(schedule, replace(schedule, timing=moved, unmoved=anchor))


Assignment = Callable[[Counts, Sequence[Piece], float], list[int]]


def _strategy(name: str) -> Assignment:
    return {"balanced": _balanced, "spread": _spread, "consolidate": _consolidated}[name]


class _Line:
    """The load on the circle of a week, and its seventh power."""

    def __init__(self, load: Counts) -> None:
        self.load = load.copy()
        self.powers = self.load**POWER

    def put(self, cells: Minutes, by: float = 1.0) -> None:
        """Let a piece run in these minutes too, or by -1 no more."""
        np.add.at(self.load, cells, by)
        self.powers[cells] = self.load[cells] ** POWER

    def best(self, piece: Piece) -> int:
        """The shift that meets the least, of nearly equal ones the shortest."""
        met = _around(self.powers, piece).sum(axis=0)
        sums = np.concatenate(([0.0], np.cumsum(met)))
        at = piece.shifts - piece.shifts.min()
        return _first_least(piece, sums[at + piece.length] - sums[at])


def _around(line: Counts, piece: Piece) -> Counts:
    """The minutes that the piece may run in, shape (starts, minutes from the earliest shift on)."""
    first, last = int(piece.shifts.min()), int(piece.shifts.max()) + piece.length
    around: Counts = line.take(piece.starts[:, None] + np.arange(first, last), mode="wrap")
    return around


def _first_least(piece: Piece, costs: Counts) -> int:
    return int(piece.shifts[(costs <= costs.min() * (1 + 1e-9)).argmax()])


def _spread(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """The whole plan, unless no minute is over 50% as it is."""
    if _as_it_is(pinned, pieces).load.max(initial=0) <= BUSY * capacity:
        return [piece.shift for piece in pieces]
    shifts = [0] * len(pieces)
    line = _Line(pinned)
    hourly = [n for n, piece in enumerate(pieces) if piece.hourly]
    folded = _Folded(pinned)
    for number in _longest_first(pieces, hourly):
        shifts[number] = folded.place(pieces[number])
    for number in hourly:
        line.put(pieces[number].cells(shifts[number]))
    rest = [n for n, piece in enumerate(pieces) if not piece.hourly]
    for number in _longest_first(pieces, rest):
        piece = pieces[number]
        shifts[number] = line.best(piece)
        line.put(piece.cells(shifts[number]))
    return shifts


def _longest_first(pieces: Sequence[Piece], numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, key=lambda n: (-pieces[n].length, pieces[n].schedule.id))


class _Folded:
    """An hour that stands for all hours: what runs in each of them meets its worst minutes."""

    def __init__(self, load: Counts) -> None:
        self.load = load.reshape(-1, 60).max(axis=0)

    def place(self, piece: Piece) -> int:
        cover = np.bincount(piece.cells(0) % 60, minlength=60) / (WEEK / 60)
        moved = (np.arange(60) + piece.shifts[:, None]) % 60
        shift = _first_least(piece, (self.load**POWER)[moved] @ cover)
        self.load += np.roll(cover, shift)
        return shift


def _as_it_is(pinned: Counts, pieces: Sequence[Piece]) -> _Line:
    line = _Line(pinned)
    for piece in pieces:
        np.add.at(line.load, piece.cells(piece.shift), 1.0)
    line.powers = line.load**POWER
    return line


def _balanced(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """Moves out of the busiest minute, one by one, until none is over 70% or none helps."""
    line = _as_it_is(pinned, pieces)
    shifts = [piece.shift for piece in pieces]
    while _over(line, capacity) and _pass(line, pieces, shifts, capacity):
        pass
    return shifts


def _over(line: _Line, capacity: float) -> bool:
    return bool(line.load.max(initial=0) > HOT * capacity)


def _pass(line: _Line, pieces: Sequence[Piece], shifts: list[int], capacity: float) -> int:
    """Try each piece once, those of the busiest minute first; how many moves helped."""
    waiting, moves, tried = _by_minute(pieces, shifts), 0, set[int]()
    while _over(line, capacity):
        candidates = waiting.get(int(line.load.argmax()), [])
        while candidates and candidates[-1] in tried:
            candidates.pop()
        if not candidates:
            break
        number = candidates.pop()
        tried.add(number)
        shift = _better(line, pieces[number], shifts[number])
        if shift is not None:
            shifts[number] = shift
            moves += 1
    return moves


def _by_minute(pieces: Sequence[Piece], shifts: Sequence[int]) -> dict[int, list[int]]:
    """The pieces that run in each minute, the longest last."""
    found: dict[int, list[int]] = defaultdict(list)
    for number in reversed(_longest_first(pieces, range(len(pieces)))):
        for minute in set(pieces[number].cells(shifts[number]).tolist()):
            found[minute].append(number)
    return found


def _better(line: _Line, piece: Piece, shift: int) -> int | None:
    """A shift at which the piece makes no minute as busy as the busiest is now."""
    peak = line.load.max()
    cells = piece.cells(shift)
    line.put(cells, -1.0)
    best = line.best(piece)
    moved = piece.cells(best)
    if best != shift and line.load[moved].max() + 1 < peak:
        line.put(moved)
        return best
    line.put(cells)
    return None


def _consolidated(pinned: Counts, pieces: Sequence[Piece], capacity: float) -> list[int]:
    """Runs of one task side by side, as far as no minute comes over 70%."""
    line = _Line(pinned)
    shifts = [0] * len(pieces)
    by_task: dict[str, list[int]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        by_task[piece.schedule.task].append(number)
    for task in sorted(by_task):
        own = np.zeros(WEEK)
        for number in _longest_first(pieces, by_task[task]):
            piece = pieces[number]
            shifts[number] = _beside(line, own, piece, HOT * capacity)
            cells = piece.cells(shifts[number])
            line.put(cells)
            np.add.at(own, cells, 1.0)
    return shifts


def _beside(line: _Line, own: Counts, piece: Piece, most: float) -> int:
    """The shift that meets most runs of the same task and has room; else the least full one."""
    highest = _around(line.load, piece).max(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(highest, piece.length)
    at = piece.shifts - piece.shifts.min()
    room = windows.max(axis=1)[at] + 1 <= most
    if not room.any():
        return line.best(piece)
    sums = np.concatenate(([0.0], np.cumsum(_around(own, piece).sum(axis=0))))
    beside = sums[at + piece.length] - sums[at]
    return int(piece.shifts[np.where(room, beside, -1.0).argmax()])
