"""Every world that can be reached, breadth first, so that the first breach found is a short one."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .protocol import Bounds, Protocol, Worker, World


class Explored(NamedTuple):
    """How many worlds there are; the shortest way to a breach, if any; worlds that end stuck."""

    worlds: int
    breach: str
    way: tuple[str, ...]
    stuck: int


def explore(bounds: Bounds, without: frozenset[str] = frozenset(), workers: int = 3) -> Explored:
    """All worlds within the bounds, or those up to the first breach."""
    protocol = Protocol(bounds, without)
    first = World(workers=tuple(Worker() for _ in range(workers)))
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    queue, stuck = deque([first]), 0
    while queue:
        world = queue.popleft()
        if world.breach:
            return Explored(len(came_from), world.breach, _way(came_from, world), stuck)
        steps = list(protocol.steps(world))
        stuck += not steps and protocol.is_stuck(world)
        for name, after in steps:
            if after not in came_from:
                came_from[after] = (world, name)
                queue.append(after)
    return Explored(len(came_from), "", (), stuck)


def _way(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    steps: list[str] = []
    found = came_from[world]
    while found is not None:
        steps.append(found[1])
        found = came_from[found[0]]
    return tuple(reversed(steps))
