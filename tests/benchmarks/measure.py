"""How anything is measured here: blocks of calls, ours and a baseline's in turn, on one machine.

A figure is the median of the ratios of neighbouring blocks, so that what slows the machine for a
while slows both sides of a pair.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

Operation = Callable[[], object]
Clock = Callable[[], float]

OURS: Final = "idemwatch"
MICROSECONDS: Final = 1e6


@dataclass(frozen=True)
class Measured:
    """Our value, the values of the peers that have the operation, and what the baseline takes."""

    value: float
    peers: Mapping[str, float] = field(default_factory=dict)
    baseline: str = ""


def block(operation: Operation, calls: int, clock: Clock) -> float:
    """Seconds that `calls` calls take."""
    began = clock()
    for _ in range(calls):
        operation()
    return clock() - began


def against(
    ours: Operation,
    baseline: Operation,
    peers: Mapping[str, Operation] | None = None,
    *,
    calls: int,
    turns: Iterable[int],
    clock: Clock = time.perf_counter,
) -> Measured:
    """Ours and the peers' as ratios to the baseline: a pair of blocks each in every turn."""
    contestants = {OURS: ours, **(peers or {})}
    for operation in (baseline, *contestants.values()):
        block(operation, calls, clock)  # connections, scripts and caches are warm
    gc.collect()
    found: dict[str, list[float]] = {name: [] for name in contestants}
    bare: list[float] = []
    for turn in turns:
        for name, operation in contestants.items():
            pair = (operation, baseline) if turn % 2 else (baseline, operation)
            spent = {one: block(one, calls, clock) for one in pair}
            found[name].append(spent[operation] / spent[baseline])
            bare.append(spent[baseline] / calls)
    return medians(found, bare)


def medians(ratios: Mapping[str, list[float]], baseline_seconds: list[float]) -> Measured:
    """What was found in many turns as one.

    The baseline's own time is told beside its best: far apart, they say that the machine was busy.
    """
    found = {name: median(values) for name, values in ratios.items()}
    value = found.pop(OURS)
    usual, best = (f(baseline_seconds) * MICROSECONDS for f in (median, min))
    return Measured(value, found, f"{usual:.0f} µs (best {best:.0f})")


_numbers = itertools.count()


def names(head: str) -> Iterator[str]:
    """New names without end, all of one length; none comes twice in a run."""
    return (f"{head}:{number:032d}" for number in _numbers)
