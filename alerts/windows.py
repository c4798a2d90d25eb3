"""Windows as Prometheus writes them, whole or divided by a time scale.

Invariant: a divided window is never shorter than what it must hold: four scrapes a second apart,
or the seconds that something takes in real time, which no scale makes faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_SCALE: Final = 75.0
"""Divides the shortest window, 5 minutes, to 4 seconds."""
SHORTEST_MS: Final = 1000
UNITS_MS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


@dataclass(frozen=True, slots=True)
class TimeScale:
    """Divides every window and `for`; 1 leaves them as they are."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.factor <= MOST_SCALE:  # nan is in no range
            raise ValueError(f"time scale: {self.factor:g} is not from 1 to {MOST_SCALE:g}")

    @property
    def is_real(self) -> bool:
        """Whether nothing is divided."""
        return self.factor == 1

    def milliseconds(self, seconds: float, *, least: float = 0) -> int:
        """The divided time; `least` is in seconds that are not divided."""
        return max(round(1000 * seconds / self.factor), round(1000 * least), SHORTEST_MS)

    def window(self, seconds: float, *, least: float = 0) -> str:
        """The divided time as Prometheus writes it: 5m, 1h30m, 1600ms."""
        return duration(self.milliseconds(seconds, least=least))

    def number(self, seconds: float, *, least: float = 0) -> str:
        """The divided time as a number of seconds, to compare with."""
        return f"{self.milliseconds(seconds, least=least) / 1000:g}"


def duration(milliseconds: int) -> str:
    """A time of at least 1 ms as Prometheus writes it."""
    parts = []
    for unit, length in UNITS_MS:
        count, milliseconds = divmod(milliseconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
