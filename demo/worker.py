"""The demo's worker: a prefork pool in a child process, whose /metrics we read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .crew import Crew
from .processes import Child, ProcessFailed
from .scoreboard import Score, scrape

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 120.0


class DemoWorker:
    """A worker. Wait for it before it is asked."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._child: Child = crew.start("worker", "worker")
        self._metrics = crew.folder / "metrics"

    def wait(self) -> None:
        """Wait until it is ready, and so serves its metrics. Raises ProcessFailed."""
        self._child.wait_until(lambda: _served(self._metrics) is not None, START_SECONDS)

    @property
    def metrics_url(self) -> str:
        """Where it serves them."""
        return f"{_served(self._metrics)}/metrics"

    def score(self) -> Score:
        """What its /metrics says. Raises ProcessFailed once the worker has ended."""
        try:
            return scrape(self.metrics_url)
        except OSError as error:
            raise ProcessFailed(
                "worker", f"gave no metrics ({error})", self._child.log_tail()
            ) from error

    def stop(self) -> None:
        """Warm shutdown: it finishes what it runs and gives back what it has not begun."""
        self._crew.stop(self._child, deadline_seconds=STOP_SECONDS)


def _served(metrics: Path) -> str | None:
    """The address that the worker wrote when it began to serve; None before."""
    for file in metrics.glob("**/url"):
        return file.read_text().strip() or None
    return None
