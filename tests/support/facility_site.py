"""Workers of the facility tasks, a publisher, and what both came to."""

from __future__ import annotations

import os
import random
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from idemwatch.demo.celery_app import configure
from idemwatch.idempotency import Settings
from prometheus_client.parser import text_string_to_metric_families

from .facility import Facility
from .stores import wait_until
from .worker import Worker, start_worker

SETTLE_SECONDS = 120.0
QUIET_LOOKS = 100
"""How often in turn, 5 ms apart, nothing may be on its way: a message may be between two places."""


@dataclass
class Site:
    """Start workers, send messages, wait until all was done."""

    facility: Facility
    folder: Path
    broker: str
    database_url: str
    namespace: str = field(default_factory=lambda: f"site-{uuid4().hex[:8]}")
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Celery("publisher", backend=self.broker, set_as_current=False)
        configure(self.publisher, Settings(redis_url=self.broker, namespace=self.namespace))
        self._redis = redis.Redis.from_url(self.broker)

    def start(
        self, concurrency: int = 2, app: str = "support.facility_app", **settings: str
    ) -> Worker:
        """One more worker."""
        folder = self.folder / f"worker-{len(self.workers)}"
        folder.mkdir()
        env = {
            **self.facility.environment,
            "IDEMWATCH_DATABASE_URL": self.database_url,
            "IDEMWATCH_REDIS_URL": self.broker,
            "IDEMWATCH_NAMESPACE": self.namespace,
            "IDEMWATCH_LEASE": "2",
            "IDEMWATCH_MAX_CRASHES": "1000",
            "IDEMWATCH_METRICS_ADDRESS": "127.0.0.1:0",
            "IDEMWATCH_METRICS_DIR": str(self.folder),
            **settings,
        }
        worker = start_worker(
            app,
            broker=self.broker,
            backend=self.broker,
            folder=folder,
            concurrency=concurrency,
            env=env,
        )
        self.workers.append(worker)
        return worker

    def send(self, task: str, *args: Any, task_id: str | None = None, **options: Any) -> str:
        """Publish a message; its id."""
        return str(self.publisher.send_task(task, args, task_id=task_id, **options).id)

    def outcome(self, task_id: str) -> tuple[str, Any]:
        """Wait for the end of a task: its status, and its result or exception."""
        backend, done = self.publisher.backend, ("SUCCESS", "FAILURE")
        wait_until(lambda: backend.get_task_meta(task_id)["status"] in done, SETTLE_SECONDS)
        meta = backend.get_task_meta(task_id)
        return meta["status"], meta["result"]

    def result(self, task_id: str) -> Any:
        """Wait for the result of a task that succeeds."""
        status, result = self.outcome(task_id)
        assert status == "SUCCESS", result
        return result

    def settle(self) -> None:
        """Wait until no message is left."""
        quiet = 0

        def idle() -> bool:
            nonlocal quiet
            quiet = 0 if self._messages() else quiet + 1
            return quiet > QUIET_LOOKS

        wait_until(idle, SETTLE_SECONDS)

    def claims(self, task: str) -> Counter[str]:
        """Outcomes of the checks of a task, of all workers."""
        found: Counter[str] = Counter()
        for worker in self.workers:
            url = (self.folder / worker.nodename / "url").read_text().strip()
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
                for family in text_string_to_metric_families(reply.read().decode()):
                    for sample in family.samples:
                        if (
                            sample.name == "idemwatch_claims_total"
                            and sample.labels["task"] == task
                        ):
                            found[sample.labels["outcome"]] += int(sample.value)
        return +found

    def kill_children(self, seed: int, at_most: int, every_seconds: float) -> Killer:
        """SIGKILL to children of workers, one after the other."""
        return Killer(self.workers, random.Random(seed), at_most, every_seconds)

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.kill()
        self.publisher.close()
        self._redis.close()

    def _messages(self) -> int:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.llen(f"{self.namespace}:{self.namespace}")
            pipe.hlen(f"{self.namespace}:unacked")
            return sum(pipe.execute())


class Killer(threading.Thread):
    """Kills children at random moments while the block runs."""

    def __init__(
        self, workers: list[Worker], chance: random.Random, at_most: int, every_seconds: float
    ) -> None:
        super().__init__(daemon=True)
        self._workers, self._chance = workers, chance
        self._left, self._every = at_most, every_seconds
        self._stop_killing = threading.Event()
        self.killed = 0

    def run(self) -> None:
        """Until enough were killed, or the block ends."""
        while self.killed < self._left:
            if self._stop_killing.wait(self._chance.uniform(0, 2 * self._every)):
                return
            children = self._chance.choice(self._workers).children()
            if children:
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(children), signal.SIGKILL)
                    self.killed += 1

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_killing.set()
        self.join()


@contextmanager
def open_site(facility: Facility, folder: Path, broker: str, database_url: str) -> Iterator[Site]:
    """A site without workers."""
    site = Site(facility, folder, broker, database_url)
    try:
        yield site
    finally:
        site.close()
