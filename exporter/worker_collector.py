"""How many workers live, and how many there should be: those that registered themselves in Redis.

Invariant: service discovery reads the last good refresh, or is told that there is none; it never
waits for Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .worker_directory_store import Listed, WorkerDirectory, seen_within

LIVE_SECONDS: Final = 45.0
"""A worker registers each 15 s; three times missed is gone."""
STALE_SECONDS: Final = 60.0
"""For how long the last good refresh is still told."""


class WorkerCollector:
    """Workers by the directory. `stale_seconds`: how long `listed` goes by the last refresh."""

    name = "workers"

    def __init__(
        self,
        directory: WorkerDirectory,
        *,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._stale_seconds, self._clock = directory, stale_seconds, clock
        self._last: tuple[float, tuple[Listed, ...]] | None = None

    def collect(self) -> list[Metric]:
        found = self._directory.workers()
        self._last = self._clock(), tuple(found)
        live = seen_within(found, LIVE_SECONDS)
        text = "Workers seen in the last 15 minutes that did not end in order"
        return [
            GaugeMetricFamily("idemwatch_workers", "Workers seen just now", value=live),
            GaugeMetricFamily("idemwatch_workers_expected", text, value=len(found)),
        ]

    def listed(self) -> tuple[Listed, ...] | None:
        """The workers of the last good refresh; None if there was none, or it is too old."""
        last = self._last  # one read: a refresh may set it meanwhile
        if last is None or self._clock() - last[0] > self._stale_seconds:
            return None
        return last[1]

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        self._directory.close()
