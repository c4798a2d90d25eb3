"""Where to move schedules so that no minute of the week is crowded.

A plan is a function of the unmoved schedules, so making it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from idemwatch.alerts.thresholds import HOT

from .bound import lower_bound
from .load import LoadMap, load_map
from .model import ACTIVE, Schedule
from .pieces import Piece, split
from .shifts import shifted
from .strategies import ASSIGNMENTS

STRATEGIES: Final = tuple(ASSIGNMENTS)


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
    shifts = ASSIGNMENTS[strategy](pinned, pieces, capacity)
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
    schedule, anchor = piece.schedule, piece.kind.anchor
    moved = shifted(anchor, shift)
    if moved is None:
        raise AssertionError(f"{schedule.id} cannot be moved by {shift}")
    return Move(schedule, replace(schedule, timing=moved, unmoved=anchor))
