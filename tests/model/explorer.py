"""Every world that can be reached, breadth first, so that the first breach found is a short one.

`python -m model.explorer RULE`, in tests/, tells what happens without a rule.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .protocol import RULES, Protocol
from .world import Bounds, Worker, World, breach

WORLDS = {
    "deaths": Bounds(deaths=1),
    "deaths and retries": Bounds(ticks=1, deaths=1, retries=1, ids=2),
    "retries": Bounds(retries=1, ids=2),
    "forgets": Bounds(forget=True),
    "lost replies": Bounds(ticks=0, lost_replies=2),
    "lost records": Bounds(ticks=1, losses=1, cache=False),
    "all are well": Bounds(well=True, retries=1),
}
"""The troubles, a few at a time: all at once are too many worlds to see them all."""


class Explored(NamedTuple):
    """How many worlds there are; the shortest way to a breach, if any."""

    worlds: int
    breach: str = ""
    way: tuple[tuple[str, World], ...] = ()

    @property
    def story(self) -> str:
        """The way step by step, with what is known after each."""
        lines = [f"{n:3}. {name:20} {after}" for n, (name, after) in enumerate(self.way, 1)]
        return "\n".join([*lines, f"     so {self.breach}"]) if self.breach else "no breach"


def explore(bounds: Bounds, without: frozenset[str] = frozenset(), workers: int = 3) -> Explored:
    """All worlds within the bounds, or those up to the first breach."""
    protocol = Protocol(bounds, without)
    first = World(workers=tuple(Worker() for _ in range(workers)))
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        steps = list(protocol.steps(world))
        if not steps and protocol.is_stuck(world):
            world = _stuck(came_from, world)
        if world.breach:
            return Explored(len(came_from), world.breach, _way(came_from, world))
        for name, after in steps:
            if after not in came_from:
                came_from[after] = (world, name)
                queue.append(after)
    return Explored(len(came_from))


def _stuck(came_from: dict[World, tuple[World, str] | None], world: World) -> World:
    told = breach(world, "a message waits for what never comes")
    came_from[told] = came_from[world]
    return told


def _way(
    came_from: dict[World, tuple[World, str] | None], world: World
) -> tuple[tuple[str, World], ...]:
    steps: list[tuple[str, World]] = []
    found = came_from[world]
    while found is not None:
        steps.append((found[1], world))
        world = found[0]
        found = came_from[world]
    return tuple(reversed(steps))


def without(rule: str) -> Explored:
    """The first breach, in any of WORLDS, where a rule is left out."""
    found = (explore(bounds, frozenset((rule,))) for bounds in WORLDS.values())
    return next((one for one in found if one.breach), Explored(0))


if __name__ == "__main__":
    import sys

    for rule in sys.argv[1:] or RULES:
        print(f"without {rule}:\n{without(rule).story}\n")
