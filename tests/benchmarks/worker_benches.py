"""CPU time of a real prefork worker, main process and child, for messages that do nothing.

The worker is frozen while messages are published, so that it drains a full queue. Each message has
a key of its own.
"""

from __future__ import annotations

import itertools
import time
from typing import Final

from celery import Celery
from support.worker import Worker, start_worker

from .lab import Lab
from .measure import OURS, Measured, medians
from .peers import ONCE, POWERTOOLS, SINGLETON

MESSAGES: Final = 600
TURNS: Final = 40
SECONDS: Final = 90.0
"""A drain takes one: more than other benches need for so many turns."""
PLAIN: Final = "plain"
TASKS: Final = {
    PLAIN: "bench.plain",
    OURS: "bench.protected",
    ONCE: "bench.once",
    SINGLETON: "bench.singleton",
    POWERTOOLS: "bench.powertools",
}


def worker_cpu(lab: Lab) -> Measured:
    """Authority `redis`, metrics served."""
    return _compare(lab, {}, (OURS, ONCE, SINGLETON, POWERTOOLS))


def worker_cpu_postgres(lab: Lab) -> Measured:
    """Authority `postgres` with its cache in Redis, metrics served."""
    return _compare(lab, {"BENCH_DATABASE": lab.database_url}, (OURS,))


def _compare(lab: Lab, env: dict[str, str], names: tuple[str, ...]) -> Measured:
    drain = _Drain(lab, {**env, "BENCH_REDIS": lab.redis_url})
    for name in (PLAIN, *names):
        drain.cpu_seconds(name)  # connections, scripts and caches are warm
    ratios: dict[str, list[float]] = {name: [] for name in names}
    plain: list[float] = []
    for turn in lab.turns(TURNS, seconds=SECONDS):
        order = (PLAIN, *names) if turn % 2 else (*reversed(names), PLAIN)
        spent = {name: drain.cpu_seconds(name) for name in order}
        plain.append(spent[PLAIN] / MESSAGES)
        for name in names:
            ratios[name].append(spent[name] / spent[PLAIN])
    return medians(ratios, plain)


class _Drain:
    """A worker with one child, and the messages to send it."""

    def __init__(self, lab: Lab, env: dict[str, str]) -> None:
        self._client = lab.client
        self._numbers = itertools.count()
        self._publisher = Celery("bench-publisher", broker=lab.redis_url, set_as_current=False)
        lab.stack.callback(self._publisher.close)
        self.worker: Worker = start_worker(
            "benchmarks.worker_app",
            broker=lab.redis_url,
            backend="disabled://",
            folder=lab.folder,
            concurrency=1,
            env=env,
        )
        lab.stack.callback(self.worker.stop)

    def cpu_seconds(self, name: str) -> float:
        """Seconds of CPU that the worker takes for MESSAGES messages of one task."""
        self.worker.freeze()
        try:
            for _ in range(MESSAGES):
                self._publisher.send_task(TASKS[name], (next(self._numbers),))
            before = self._spent()
        finally:
            self.worker.thaw()
        self.worker.wait_for(self._drained, f"{MESSAGES} messages were acknowledged")
        return self._spent() - before

    def _drained(self) -> bool:
        return not self._client.llen("celery") and not self._client.hlen("unacked")

    def _spent(self) -> float:
        return sum(map(cpu_seconds, (self.worker.pid, *self.worker.children())))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, by its clock: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)
