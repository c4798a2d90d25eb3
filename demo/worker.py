"""The demo's worker: a prefork pool in a child process, whose /metrics we read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from .processes import Child, ProcessFailed
from .scoreboard import Score, scrape
from .stage import Stage

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 120.0
PROCESSES: Final = 4
LEASE_SECONDS: Final = 5.0


class DemoWorker:
    """A worker that is ready and serves its metrics."""

    def __init__(self, child: Child, metrics_url: str) -> None:
        self._child = child
        self.metrics_url = metrics_url

    @classmethod
    def start(cls, stage: Stage, metrics_address: str) -> DemoWorker:
        """Start a worker and wait until it is ready. Raises ProcessFailed."""
        ours = {key: value for key, value in os.environ.items() if not _is_setting(key)}
        env = {**ours, **stage.environment(LEASE_SECONDS, metrics_address)}
        child = Child("worker", _command(stage.namespace), folder=stage.folder, env=env)
        metrics = stage.folder / "metrics"
        try:
            child.wait_until(lambda: _served(metrics) is not None, START_SECONDS)
        except BaseException:
            child.kill()
            raise
        return cls(child, f"{_served(metrics)}/metrics")

    def score(self) -> Score:
        """What its /metrics says. Raises ProcessFailed once the worker has ended."""
        try:
            return scrape(self.metrics_url)
        except OSError as error:
            raise ProcessFailed("worker", f"gave no metrics ({error})", self.log_tail()) from error

    def log_tail(self) -> str:
        """The end of the worker's log."""
        return self._child.log_tail()

    def stop(self) -> None:
        """Warm shutdown: it finishes what it runs and gives back what it has not begun."""
        self._child.stop(deadline_seconds=STOP_SECONDS)

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()


def _is_setting(variable: str) -> bool:
    return variable.startswith(("IDEMWATCH_", "CELERY_"))


def _command(namespace: str) -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", "idemwatch.demo.app", "worker"),
        *("-n", f"{namespace}@localhost", "-P", "prefork", "-c", str(PROCESSES), "-l", "INFO"),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    ]


def _served(metrics: Path) -> str | None:
    """The address that the worker wrote when it began to serve; None before."""
    for file in metrics.glob("**/url"):
        return file.read_text().strip() or None
    return None
