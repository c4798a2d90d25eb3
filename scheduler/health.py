"""The health of a fleet of schedules: one score from 0 to 100, and the parts that it is made of.

    raw = 100 - 10 H - 5 V - 3 U + min(8, 2 W)

H: half hours of the day with a load over 70% on the worst of the days. V: schedules in conflict.
U: hours without such a half hour whose highest load is over 50%. W: hours whose highest load is at
most 30%. More load never makes the score better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from idemwatch.alerts.thresholds import BUSY, HOT, QUIET

from .conflicts import contending, overrunning
from .load import LoadMap, load_map
from .model import Schedule

SLOT_MINUTES: Final = 30
MOST_FOR_QUIET: Final = 8
_GRADES: Final = ((90, "A"), (80, "B"), (70, "C"), (60, "D"))
BANDS: Final = ("excellent", "good", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Health:
    """`slots`: the highest load of each of the 48 half hours. Conflicts are ids, in their order."""

    load: LoadMap
    slots: tuple[float, ...]
    overrunning: tuple[str, ...]
    contending: tuple[str, ...]
    schedules: int

    @property
    def hotspots(self) -> tuple[int, ...]:
        """The half hours over 70%, 0 to 47."""
        return tuple(number for number, load in enumerate(self.slots) if load > HOT)

    @property
    def conflicts(self) -> tuple[str, ...]:
        """Schedules in conflict, each once."""
        return tuple(dict.fromkeys((*self.overrunning, *self.contending)))

    @property
    def hours(self) -> tuple[float, ...]:
        """The highest load of each hour of the day."""
        return tuple(max(self.slots[n], self.slots[n + 1]) for n in range(0, 48, 2))

    @property
    def unbalanced_hours(self) -> int:
        """Hours over 50% that have no hotspot."""
        return sum(BUSY < load <= HOT for load in self.hours)

    @property
    def quiet_hours(self) -> int:
        """Hours of at most 30%."""
        return sum(load <= QUIET for load in self.hours)

    @property
    def raw_score(self) -> int:
        """The score before it is clamped."""
        lost = 10 * len(self.hotspots) + 5 * len(self.conflicts) + 3 * self.unbalanced_hours
        return 100 - lost + min(MOST_FOR_QUIET, 2 * self.quiet_hours)

    @property
    def score(self) -> int:
        """0 to 100."""
        return max(0, min(100, self.raw_score))

    @property
    def grade(self) -> str:
        """A, B, C, D or F."""
        return next((grade for least, grade in _GRADES if self.score >= least), "F")

    @property
    def bands(self) -> dict[str, int]:
        """Half hours by load: up to 30%, 50%, 70%, and over it."""
        limits = (QUIET, BUSY, HOT)
        counts = dict.fromkeys(BANDS, 0)
        for load in self.slots:
            counts[BANDS[sum(load > limit for limit in limits)]] += 1
        return counts


def health(
    schedules: Sequence[Schedule], now: datetime, *, capacity: float, zone: str = "UTC"
) -> Health:
    """The health in the week from `now` (aware); half hours are those of `zone`."""
    active = [one for one in schedules if one.active]
    load = load_map(active, now, capacity=capacity)
    return Health(
        load=load,
        slots=tuple(load.by_half_hour(zone).tolist()),
        overrunning=tuple(one.id for one in overrunning(active, now.date())),
        contending=tuple(one.id for one in contending(active, now)),
        schedules=len(active),
    )
