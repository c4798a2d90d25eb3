"""Fleets as people make them, from a seed: crowded at midnight, on the hour, and every few minutes.

A tenth is pinned, the others may be moved by 60 minutes each way. Runs take 1 to 30 minutes, short
ones more often than long ones, and end before the next one of their schedule begins. A quarter has
a minute that somebody chose, as in the inventories of tests/data.

The shares were chosen so that half of the fleet runs at midnight: then the pinned schedules' own
peak is the lower bound, and a plan can reach it. Where less runs at midnight and more in each hour,
the bound is the work in an interval, which no plan may reach: with a quarter at midnight, and three
ways to draw durations, plans of the same code came to 1.04 to 1.11 of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.model import Schedule

NOW: Final = datetime(2026, 11, 24, tzinfo=UTC)
"""No change of the clock is near, and it is a midnight, as cronstable's day begins."""
SEED: Final = 20261124
PINNED: Final = 0.1
WINDOW: Final = timedelta(minutes=60)
_LONGEST: Final = 30

_Chance = random.Random
_MIXTURE: Final[tuple[tuple[float, int, Callable[[_Chance], str]], ...]] = (
    # share, longest run in minutes, expression
    (0.40, _LONGEST, lambda _: "0 0 * * *"),
    (0.15, _LONGEST, lambda chance: f"0 {chance.randrange(24)} * * *"),
    (0.20, _LONGEST, lambda chance: f"{chance.randrange(60)} {chance.randrange(24)} * * *"),
    (0.05, _LONGEST, lambda _: "0 * * * *"),
    (0.05, _LONGEST, lambda chance: f"{chance.randrange(60)} * * * *"),
    (0.03, 5, lambda _: "*/5 * * * *"),
    (0.03, 15, lambda _: "*/15 * * * *"),
    (0.05, _LONGEST, lambda chance: f"0 {chance.randrange(24)} * * {chance.randrange(7)}"),
    (0.04, _LONGEST, lambda chance: f"0 0 {chance.randrange(1, 29)} * *"),
)


def fleet(size: int, seed: int = SEED) -> list[Schedule]:
    """So many schedules; the same for the same seed. Their expressions are read already."""
    chance = random.Random(seed)
    kinds = chance.choices(_MIXTURE, [share for share, *_ in _MIXTURE], k=size)
    return [
        Schedule(
            id=f"s{number:06}",
            task=f"task{number % 20}",
            args=f"[{number}]",  # no two mean the same: a plan must not make them
            timing=parse_cron(expression(chance)),
            duration=timedelta(minutes=round(longest ** chance.random() ** 2)),
            movable=chance.random() >= PINNED,
            window=WINDOW,
        )
        for number, (_, longest, expression) in enumerate(kinds)
    ]
