"""Real Celery workers as child processes, running an app of the tests.

The app is a module as `celery -A` takes it; modules in tests/ are importable (`support.some_app`).
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from idemwatch.demo.processes import Child, ProcessFailed, descendants

START_SECONDS = 60.0
DEADLINE_SECONDS = 60.0
# A message that is not acknowledged comes again after two to three seconds, not after an hour.
FAST_REDELIVERY = {
    "visibility_timeout": 2,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
_TESTS = Path(__file__).parents[1]


class Worker:
    """A worker that has said that it is ready."""

    def __init__(self, child: Child, nodename: str) -> None:
        self._child, self.nodename = child, nodename
        self.pid = child.pid

    @property
    def log(self) -> str:
        """All that the worker has written."""
        return self._child.log.read_text(errors="replace")

    def running(self) -> bool:
        """Whether the main process has not ended."""
        return self._child.running()

    def children(self) -> list[int]:
        """The pids of the pool's processes."""
        return descendants(self.pid)

    def wait_for(self, condition: Callable[[], bool], what: str = "what was waited for") -> None:
        """Wait until `condition` holds; ProcessFailed past the deadline, or if the worker ends."""
        self._child.wait_until(condition, DEADLINE_SECONDS, what)

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until the log contains `text` so many times."""
        self.wait_for(lambda: self.log.count(text) >= times, f"{text!r} was in its log")

    def wait_for_end(self, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until the main process has ended by itself; ProcessFailed past the deadline."""
        if not self._child.wait(deadline_seconds):
            raise ProcessFailed("worker", "did not end", self._child.log_tail())

    def stop(self) -> None:
        """Warm shutdown (SIGTERM): finishes what it runs; killed past a deadline."""
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL to the worker and all its processes."""
        self._child.kill()

    def freeze(self) -> None:
        """SIGSTOP to the worker and all its processes."""
        self._child.send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._child.send_all(signal.SIGCONT)


def start_worker(
    app: str,
    *,
    broker: str,
    backend: str,
    folder: Path,
    pool: str = "prefork",
    concurrency: int = 2,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
) -> Worker:
    """Start `celery -A app worker` and wait until it is ready.

    broker, backend: win over what the app sets. folder: an own one, for the log. env: over ours,
    of which nothing named IDEMWATCH_* is passed on.
    """
    nodename = f"test-{uuid.uuid4().hex[:8]}@localhost"
    command = [
        *(sys.executable, "-m", "celery", "-A", app),
        *("-b", broker, f"--result-backend={backend}"),
        *("worker", "-n", nodename, "-P", pool, "-c", str(concurrency), "-l", "INFO"),
        *("--without-mingle", "--without-gossip"),
        *args,
    ]
    child = Child("worker", command, folder=folder, env=environment(env or {}), cwd=folder)
    worker = Worker(child, nodename)
    try:
        child.wait_until(lambda: f"{nodename} ready." in worker.log, START_SECONDS)
    except BaseException:
        child.kill()
        raise
    return worker


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Ours for a child: `env` over it, and nothing named IDEMWATCH_*."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("IDEMWATCH_")}
    return {**ours, "PYTHONPATH": str(_TESTS), "PYTHONUNBUFFERED": "1", **env}
