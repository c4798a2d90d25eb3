"""Pure judgement: is a series of samples flat, and do the totals agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from .samples import Sample

WARM_UP: Final = 0.3
"""The part of the run in which things may grow."""
MOST_PAIRS: Final = 200


@dataclass(frozen=True)
class Limit:
    """How much a series may grow after the warm-up: a share of its median, or so many units."""

    share: float
    units: float


LIMITS: Final = {
    ", MB": Limit(0.05, 3.0),
    ", files": Limit(0.1, 3.0),
    ", threads": Limit(0.1, 2.0),
    "connections": Limit(0.1, 3.0),
    "bytes a record": Limit(0.05, 10.0),
    "slot files": Limit(0.1, 1.0),
}


@dataclass(frozen=True)
class Trend:
    """One series: its median and its growth from the end of the warm-up to the end of the run."""

    name: str
    middle: float
    most: float
    growth: float
    limit: Limit | None

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than is allowed. What has no limit may do as it likes."""
        if self.limit is None:
            return True
        return self.growth <= max(self.limit.units, self.limit.share * self.middle)


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Each series of the samples, judged."""
    names = dict.fromkeys(name for sample in samples for name in sample if name != "seconds")
    end = samples[-1]["seconds"]
    warm = [sample for sample in samples if sample["seconds"] >= WARM_UP * end]
    return [_trend(name, [one for one in warm if name in one]) for name in names]


def _trend(name: str, samples: Sequence[Sample]) -> Trend:
    points = [(one["seconds"], one[name]) for one in samples]
    values = [value for _, value in points]
    growth = slope(points) * (points[-1][0] - points[0][0]) if len(points) > 1 else 0.0
    return Trend(name, median(values), max(values), growth, _limit(name))


def _limit(name: str) -> Limit | None:
    return next((limit for part, limit in LIMITS.items() if part in name), None)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes of all pairs, which no single spike moves."""
    thinned = points[:: max(1, len(points) // MOST_PAIRS)]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(thinned, 2) if x2 > x1]
    return median(slopes) if slopes else 0.0


@dataclass(frozen=True)
class Total:
    """Two numbers that must be one."""

    what: str
    expected: int
    found: int

    @property
    def exact(self) -> bool:
        """Whether they are."""
        return self.expected == self.found


def totals(
    works: Mapping[str, int],
    messages: Mapping[str, int],
    effects: Mapping[str, tuple[int, int]],
    claims: Mapping[str, Counter[str]],
    counters: int,
) -> list[Total]:
    """Every message accounted for, every effect once, counters as the ledger has it.

    effects: by kind, all and different ones. claims: by task, then by outcome. What fails is done
    again by each message; a lease that ran out explains one repetition each.
    """
    found = []
    for kind, number in works.items():
        done, distinct = effects.get(kind, (0, 0))
        expected = messages[kind] if kind == "fails" else number
        found.append(Total(f"{kind}: works done", number, distinct))
        found.append(Total(f"{kind}: effects", expected, done))
    found.append(Total("counted under locks", works["locks"], counters))
    return found + _claims(works, messages, claims)


SERVICE: Final = ("transaction", "once")
"""Kinds whose checks are counted as the service's."""


def _claims(
    works: Mapping[str, int], messages: Mapping[str, int], claims: Mapping[str, Counter[str]]
) -> list[Total]:
    found = []
    for kind, number in works.items():
        if kind in SERVICE:
            continue
        counted = claims[f"soak.{kind}"]
        granted = {"fails": messages[kind], "retries": 2 * number}.get(kind, number)
        found.append(Total(f"{kind}: granted", granted, counted["granted"]))
        if kind != "fails":  # there a message that met a running one is granted later
            hits = counted["duplicate"] + counted["running"]
            found.append(Total(f"{kind}: duplicates", messages[kind] - number, hits))
    counted = claims["service"]
    done = sum(works[kind] for kind in SERVICE)
    sent = sum(messages[kind] for kind in SERVICE)
    return [
        *found,
        Total("service: granted", done, counted["granted"]),
        Total("service: duplicates", sent - done, counted["duplicate"]),
        *(
            Total(f"{name}, all tasks", 0, sum(one[name] for one in claims.values()))
            for name in ("taken_over", "mismatch", "poisoned", "bypassed")
        ),
    ]
