"""The workers of one play: started again when they die, as systemd would.

Invariants: a worker has another name after each restart, so what it left behind is its own; all
that was started has ended when `close` has returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from idemwatch.idempotency.slot_files import read_slot

from .processes import Child, ProcessFailed, descendants, uninterrupted
from .simulate_redirect import CONF, VARIABLES
from .simulate_stage import Place
from .stage import without_settings

CONCURRENCY: Final = 4
START_SECONDS: Final = 90.0
_CLAIMS: Final = "idemwatch_claims_total"


class Worker(NamedTuple):
    """A worker, under the name that it has until it dies."""

    name: str
    child: Child

    def ready(self) -> bool:
        """Whether it has said so."""
        said = self.child.log.read_text(errors="replace")
        return f"{self.name}@simulation ready." in said


class Crew:
    """Workers of a place. `app`: the user's, None for the sample; `tasks`: those under test."""

    def __init__(self, place: Place, app: str | None, tasks: Sequence[str], count: int) -> None:
        self._place, self._app, self._tasks = place, app, list(tasks)
        self._metrics = place.folder / f"{place.side}-metrics"
        self._metrics.mkdir()
        self._starts = [0] * count
        self._workers: list[Worker] = []
        try:
            for number in range(count):
                self._workers.append(self._start(number))
        except BaseException:
            self.close()
            raise

    def wait(self) -> None:
        """Wait until all are ready. Raises ProcessFailed."""
        for worker in self._workers:
            worker.child.wait_until(worker.ready, START_SECONDS)

    def mend(self) -> None:
        """Start those again that have ended. Raises ProcessFailed if one was never ready."""
        for number, worker in enumerate(self._workers):
            if worker.child.running():
                continue
            if not worker.ready():
                problem = f"ended (exit code {worker.child.exit_code}) before it was ready"
                raise ProcessFailed(worker.child.name, problem, worker.child.log_tail())
            worker.child.kill()
            self._workers[number] = self._start(number)

    def idle_process(self, number: int, busy: set[int]) -> tuple[str, int] | None:
        """A process of a worker's pool that runs no task, and the worker's name."""
        worker = self._workers[number]
        idle = [pid for pid in descendants(worker.child.pid) if pid not in busy]
        return (worker.name, idle[0]) if idle and worker.ready() else None

    def name(self, number: int) -> str:
        """That of a worker now."""
        return self._workers[number].name

    def checks(self) -> dict[str, int]:
        """All checks of all workers so far by their outcome, from the files of their metrics."""
        counted: dict[str, int] = {}
        for file in self._metrics.glob("*/*.db"):
            for key, amount in read_slot(file):
                _, sample, labels, _ = json.loads(key)
                if sample == _CLAIMS:
                    outcome = labels["outcome"]
                    counted[outcome] = counted.get(outcome, 0) + int(amount)
        return counted

    def close(self) -> None:
        """End them at once: there is nothing left to do for them."""
        for worker in self._workers:
            worker.child.kill()

    def _start(self, number: int) -> Worker:
        self._starts[number] += 1
        name = f"w{number + 1}.{self._starts[number]}"
        words = [
            *(sys.executable, "-m", "celery", "-A", "idemwatch.demo.simulate_worker"),
            *("worker", "-n", f"{name}@simulation", "-P", "prefork", "-c", str(CONCURRENCY)),
            *("--loglevel", "INFO"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat"),
        ]
        folder = self._place.folder  # the stage's, which ends with us however we end
        cwd = Path.cwd() if self._app else folder
        with uninterrupted():
            child = Child(
                f"{self._place.side}-{name}", words, folder=folder, env=self._env(name), cwd=cwd
            )
            return Worker(name, child)

    def _env(self, name: str) -> Mapping[str, str]:
        conf = {
            "app": self._app,
            "tasks": self._tasks,
            "protected": self._place.protected,
            "worker": name,
            "servers": self._place.servers.as_dict(),
            "metrics_dir": str(self._metrics),
        }
        given = without_settings() if self._app is None else dict(os.environ)
        ours = {key: value for key, value in given.items() if not key.startswith(VARIABLES)}
        return {
            **ours,
            **self._place.servers.environment(),
            CONF: json.dumps(conf),
            "PYTHONPATH": os.pathsep.join(path for path in (str(Path.cwd()), *sys.path) if path),
            "TMPDIR": str(self._place.folder),
        }


def kill(pid: int) -> None:
    """SIGKILL, unless it has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
