"""Every threshold, once. Imports nothing of ours, and may be imported from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

HIT_RATE: Final = 0.05
"""Duplicates per check over which somebody is paged."""
LEAST_CHECKS: Final = 100
"""Checks in an hour under which a hit rate says nothing."""
TASK_HIT_RATE: Final = 0.25
"""The same of one task, over which somebody is told."""
TASK_LEAST_CHECKS: Final = 20
"""Checks of one task in an hour under which its hit rate says nothing."""
HEALTH: Final = 70
"""Schedule health score under which somebody is paged."""
HOTSPOTS: Final = 3
"""Half hours over `HOT`; with more than so many somebody is told."""
HOT: Final = 0.70
"""Load over which a half hour is a hotspot."""
BUSY: Final = 0.50
"""Load over which an hour is unbalanced."""
QUIET: Final = 0.30
"""Load up to which an hour is well distributed."""
HEALTH_ERROR: Final = 60
"""Score under which `validate-schedules` reports an error."""
HEALTH_WARNING: Final = 75
"""Score under which `validate-schedules` reports a warning."""
DUPLICATES_PER_HOUR: Final = 10
"""Duplicates of one task in an hour over which somebody is told."""
CAPACITY: Final = 14
"""Slots that are assumed where no worker and no setting tells: then 12 runs are a load of 85%."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What alerts and boards go by, and `idemwatch_threshold` tells. All can be chosen.

    What the health score is made of (`HOT` and the like) cannot: it would be another score.
    """

    hit_rate: float = HIT_RATE
    least_checks: float = LEAST_CHECKS
    task_hit_rate: float = TASK_HIT_RATE
    task_least_checks: float = TASK_LEAST_CHECKS
    duplicates_per_hour: float = DUPLICATES_PER_HOUR
    health: float = HEALTH
    hotspots: float = HOTSPOTS

    def __post_init__(self) -> None:
        for one in fields(self):
            value, (least, most) = getattr(self, one.name), RANGES[one.name]
            if not least <= value <= most:  # nan is in no range
                raise ValueError(f"{one.name}: {value} is not from {least:g} to {most:g}")


RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "hit_rate": (0.0001, 0.9999),
    "least_checks": (1, 1_000_000_000),
    "task_hit_rate": (0.0001, 0.9999),
    "task_least_checks": (1, 1_000_000_000),
    "duplicates_per_hour": (0, 1_000_000_000),
    "health": (1, 100),
    "hotspots": (0, 47),
}
"""Smallest and largest value of each."""


def chosen(pairs: Iterable[str]) -> Thresholds:
    """The thresholds with some of them given as NAME=NUMBER. Raises ValueError, with a reason."""
    given: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in RANGES:
            raise ValueError(f"{pair!r} is not NAME=NUMBER with a NAME of {', '.join(RANGES)}")
        try:
            given[name] = float(text)
        except ValueError:
            raise ValueError(f"{name}: {text!r} is no number") from None
    return replace(Thresholds(), **given)
