"""The load on the line of a week, the hour that stands for all, and the least loaded shift on each.

A shift costs the sum of the seventh powers of the load that it meets: nearly its maximum, and it
still tells quieter minutes apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .load import WEEK, Counts
from .pieces import Kind


def steep(load: Counts) -> Counts:
    """The seventh power. Multiplied out: numpy's own power takes five times as long."""
    squared = load * load
    return squared * squared * squared * load


def first_least(costs: Counts) -> int:
    """The number of the first that is nearly the least."""
    return int((costs <= costs.min() * (1 + 1e-9)).argmax())


class Line:
    """The load of a week, shape (10080,)."""

    def __init__(self, load: Counts) -> None:
        self.load = load.copy()

    def put(self, kind: Kind, shift: int, by: int = 1) -> None:
        """Let so many more of a kind run at a shift, or with a negative number fewer."""
        if kind.apart:
            self.load[kind.cells(shift)] += by
        else:
            self.load += by * np.roll(kind.profile, shift)

    def highest(self, kind: Kind, shift: int) -> float:
        """The load of the busiest minute in which the kind runs at a shift."""
        return float(self.load[running(kind, shift)].max())

    def place(self, kind: Kind, count: int = 1) -> list[int]:
        """Put so many of a kind where they meet least, one after another; their shifts."""
        if kind.apart:
            return self._place_apart(kind, count)
        return [self._place(kind) for _ in range(count)]

    def _place(self, kind: Kind) -> int:
        costs = steep(self.load)
        if kind.hourly:
            met = kind.covers @ costs.reshape(-1, 60).sum(axis=0)
        else:
            met = sums_of_runs(kind, costs[kind.around].sum(axis=0))
        shift = int(kind.shifts[first_least(met)])
        self.put(kind, shift)
        return shift

    def _place_apart(self, kind: Kind, count: int) -> list[int]:
        """No other run of the kind is to be seen where one is put: only that place changes."""
        load = self.load[kind.around]
        costs = steep(load).sum(axis=0)
        shifts = []
        for _ in range(count):
            shift = int(kind.shifts[first_least(sums_of_runs(kind, costs))])
            run = slice(shift - kind.earliest, shift - kind.earliest + kind.length)
            load[:, run] += 1
            costs[run] = steep(load[:, run]).sum(axis=0)
            shifts.append(shift)
        self.load[kind.around] = load
        return shifts


def running(kind: Kind, shift: int) -> NDArray[np.bool_]:
    """Whether the kind runs in each minute at a shift, shape (10080,)."""
    if not kind.apart:
        return np.roll(kind.profile > 0, shift)
    found = np.zeros(WEEK, dtype=np.bool_)
    found[kind.cells(shift)] = True
    return found


def sums_of_runs(kind: Kind, line: Counts) -> Counts:
    """The sum of `line`, which is counted from the earliest shift on, over a run at each shift."""
    sums = np.zeros(len(line) + 1)
    np.cumsum(line, out=sums[1:])
    runs = sums[kind.length :] - sums[: len(sums) - kind.length]
    found: Counts = runs[kind.begins]
    return found


class Hour:
    """An hour that stands for all: what runs in each of them meets its worst minutes."""

    def __init__(self, load: Counts) -> None:
        self.load = load.reshape(-1, 60).max(axis=0)

    def place(self, kind: Kind, count: int) -> list[int]:
        """As on the line."""
        shifts = []
        for _ in range(count):
            number = first_least(kind.covers @ steep(self.load))
            self.load += kind.covers[number]
            shifts.append(int(kind.shifts[number]))
        return shifts
