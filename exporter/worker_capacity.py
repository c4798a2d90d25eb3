"""How many runs the workers take at once: by the option, the registered workers, or the setting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.capacity import Capacity, capacity_of

from .worker_collector import LIVE_SECONDS, WorkerCollector
from .worker_directory_store import Listed

FIRST_SECONDS: Final = 2.0
"""How long the first refresh of schedules waits for that of the workers."""


class WorkerCapacity:
    """Asks nobody: it goes by the workers' last refresh, and while Redis is away by the one before.

    So an outage of Redis changes no load and no health score.
    """

    def __init__(
        self, given: float | None, workers: WorkerCollector | None, settings: Settings
    ) -> None:
        self._given, self._workers, self._settings = given, workers, settings
        self._known = 0
        self._first = True
        self._pause = threading.Event()

    def __call__(self) -> Capacity:
        if self._given is None and self._workers is not None:
            self._known = self._sum(self._workers)
            if self._known:
                return Capacity(self._known, "workers")
        return capacity_of(self._given, None, self._settings)

    def _sum(self, workers: WorkerCollector) -> int:
        listed = self._listed(workers)
        return self._known if listed is None else concurrency(listed)

    def _listed(self, workers: WorkerCollector) -> Sequence[Listed] | None:
        """Both are refreshed side by side, so at the start one may have to wait for the other."""
        left = FIRST_SECONDS if self._first else 0.0
        self._first = False
        while (listed := workers.listed()) is None and left > 0:
            self._pause.wait(0.02)
            left -= 0.02
        return listed


def concurrency(listed: Sequence[Listed]) -> int:
    """What the workers that live take at once, together."""
    return sum(one.concurrency for one in listed if one.ago_seconds < LIVE_SECONDS)
