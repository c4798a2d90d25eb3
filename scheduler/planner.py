"""Where to move schedules so that no minute of the week is crowded.

A plan is a function of the unmoved schedules, so making it again changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from idemwatch.alerts.thresholds import HOT

from .bound import lower_bound
from .load import Counts, LoadMap, load_map
from .model import Schedule
from .pieces import Piece, split
from .shifts import shifted
from .strategies import ASSIGNMENTS

STRATEGIES: Final = tuple(ASSIGNMENTS)
ROUNDS: Final = 8
"""How often a plan is made anew for moves that would double a schedule; then those are left out."""


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
    active = [one for one in schedules if one.active]
    before = load_map(active, now, capacity=capacity)
    pinned, pieces = split(active, now)
    moves = _moves(active, pinned, pieces, now, capacity, strategy)
    after = load_map(applied(active, moves), now, capacity=capacity)
    most = before.load.max(initial=0)
    if after.load.max(initial=0) > (max(most, HOT) if strategy == "consolidate" else most):
        moves, after = [], before
    bound = lower_bound(pinned, pieces)
    return Plan(strategy, tuple(moves), before, after, bound)


def _moves(
    active: Sequence[Schedule],
    pinned: Counts,
    pieces: Sequence[Piece],
    now: datetime,
    capacity: float,
    strategy: str,
) -> list[Move]:
    """The moves of a strategy, made anew without those that would double a schedule."""
    held: set[str] = set()
    for _ in range(ROUNDS):
        shifts = ASSIGNMENTS[strategy](pinned, pieces, capacity)
        moves = [
            _move(piece, shift)
            for piece, shift in zip(pieces, shifts, strict=True)
            if shift != piece.shift
        ]
        doubled = _doubled(active, moves)
        if not doubled:
            return moves
        held |= doubled
        pinned, pieces = split(
            [replace(one, movable=False) if one.id in held else one for one in active], now
        )
    return [move for move in moves if move.before.id not in doubled]


def _doubled(active: Sequence[Schedule], moves: Sequence[Move]) -> set[str]:
    """Moves that would make a schedule mean the same as one that now means something else."""
    moved = {move.before.id: move.after for move in moves}
    alike: dict[object, list[Schedule]] = defaultdict(list)
    for one in active:
        alike[one.task, one.args, one.kwargs, one.zone, one.asset_id, one.client_id].append(one)
    found = set[str]()
    for group in alike.values():
        if len(group) > 1 and any(one.id in moved for one in group):
            found |= _doubled_of(group, moved)
    return found


def _doubled_of(group: Sequence[Schedule], moved: Mapping[str, Schedule]) -> set[str]:
    """Of those that differ in their times only. Who stays has its place first."""
    holders: dict[object, object] = {}
    found = set[str]()
    for one in sorted(group, key=lambda one: one.id in moved):
        meaning = moved.get(one.id, one).timing.meaning
        if holders.setdefault(meaning, one.timing.meaning) != one.timing.meaning:
            found.add(one.id)
    return found & moved.keys()


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
