"""A fleet: workers of support.app with a publisher that knows only names, their book and metrics.

A test's label is its place in the book, and part of its tasks' arguments, so that many tests share
one fleet.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from celery import Celery, Signature
from idemwatch.demo.processes import ProcessFailed
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.record import State
from idemwatch.idempotency.settings import load
from idemwatch.idempotency.store import Store
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)

from . import app as sheet
from .worker import FAST_REDELIVERY, Worker, start_worker

LEASE_SECONDS = 2
# Celery's one queue, at the priorities that kombu tells apart.
_QUEUES = ("celery", *(f"celery\x06\x16{priority}" for priority in (3, 6, 9)))
_COMPLAINTS = ("Traceback (most recent call last)", "WARNING/", "ERROR/", "CRITICAL/")


@dataclass
class Fleet:
    """Workers, and all that a test asks about them."""

    folder: Path
    broker: str
    conf: dict[str, Any]
    env: dict[str, str]
    app: str = "support.app"
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Celery(
            "publisher", broker=self.broker, backend=self.broker, set_as_current=False
        )
        self.publisher.conf.update(accept_content=["json", "pickle"])
        self._book = redis.Redis.from_url(self.conf["book_url"], decode_responses=True)
        self._broker = redis.Redis.from_url(self.broker)
        self._engine = Engine(load(self.conf))

    @property
    def store(self) -> Store:
        """The store that decides for the workers, read from outside."""
        return self._engine.stores.get(self.conf["idempotency_authority"])

    @property
    def worker(self) -> Worker:
        """The worker started last."""
        return self.workers[-1]

    def start(self, pool: str = "prefork", concurrency: int = 2, args: Sequence[str] = ()) -> None:
        """One more worker."""
        folder = self.folder / f"worker-{len(self.workers)}"
        folder.mkdir()
        metrics = {"IDEMWATCH_METRICS_ADDRESS": "127.0.0.1:0"}
        metrics["IDEMWATCH_METRICS_DIR"] = str(self.folder)
        self.workers.append(
            start_worker(
                self.app,
                broker=self.broker,
                backend=self.broker,
                folder=folder,
                pool=pool,
                concurrency=concurrency,
                env={"APP_CONF": json.dumps(self.conf), **metrics, **self.env},
                args=args,
            )
        )

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.kill()
        self.publisher.close()
        self._book.close()
        self._broker.close()
        self._engine.close()

    # -- messages ----------------------------------------------------------------------------

    def signature(self, task: str, *args: Any, **options: Any) -> Signature:
        """The signature of `sheet.<task>`, known by its name only."""
        return self.publisher.signature(f"sheet.{task}", args=args, **options)

    def send(self, task: str, *args: Any, **options: Any) -> str:
        """Publish a message; returns its task id."""
        return str(self.publisher.send_task(f"sheet.{task}", args=args, **options).id)

    def messages(self, task_id: str) -> int:
        """How many messages of an id the broker holds, waiting or with a worker."""
        return len(self._messages(task_id))

    def message(self, task_id: str) -> tuple[dict[str, Any], int]:
        """The headers and the priority of the one message of an id."""
        (message,) = self._messages(task_id)
        return message["headers"], message["properties"]["priority"]

    def _messages(self, task_id: str) -> list[dict[str, Any]]:
        return [message for message in self._held() if message["headers"]["id"] == task_id]

    def _held(self) -> list[dict[str, Any]]:
        with self._broker.pipeline(transaction=True) as pipe:
            for queue in _QUEUES:
                pipe.lrange(queue, 0, -1)
            pipe.hvals("unacked")
            *queued, unacked = pipe.execute()
        held = [json.loads(raw) for raws in queued for raw in raws]
        return held + [json.loads(raw)[0] for raw in unacked]

    def broker_keeps_nothing(self) -> bool:
        """Whether no message waits or is with a worker."""
        return not self._broker.exists(*_QUEUES, "unacked")

    # -- what happened -----------------------------------------------------------------------

    def label(self) -> str:
        """A new label."""
        return uuid.uuid4().hex[:12]

    def open(self, gate: str) -> None:
        """Open a gate for all that wait there and all that come."""
        self._book.rpush(f"gate:{gate}", "open")

    def events(self, label: str) -> list[str]:
        """What was written down."""
        return [str(event) for event in self._book.lrange(f"book:{label}", 0, -1)]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fails past a deadline, or when the last worker ends."""
        self.worker.wait_for(condition, what)

    def wait_for_event(self, label: str, event: str, times: int = 1) -> None:
        """Wait until `event` was written down."""
        self.wait(lambda: self.events(label).count(event) >= times, f"{event} of {label}")

    def wait_for_idle(self) -> None:
        """Wait until the broker keeps no message: each was acknowledged."""
        try:
            self.wait(self.broker_keeps_nothing, "all messages were acknowledged")
        except ProcessFailed as error:
            error.add_note(f"the broker keeps {self._held()}")
            raise

    def outcome(self, task_id: str) -> tuple[str, Any]:
        """Wait for the end of a task: its status and its result or exception."""
        backend = self.publisher.backend
        done = ("SUCCESS", "FAILURE")
        self.wait(lambda: backend.get_task_meta(task_id)["status"] in done, f"{task_id} ended")
        meta = backend.get_task_meta(task_id)
        return meta["status"], meta["result"]

    def result(self, task_id: str) -> Any:
        """Wait for the result of a task that succeeds."""
        status, result = self.outcome(task_id)
        assert status == "SUCCESS", result
        return result

    # -- records and metrics -----------------------------------------------------------------

    def key(self, task: str, *args: Any) -> str:
        """The key of a call."""
        return str(sheet.app.tasks[f"sheet.{task}"].idempotency_key_of(*args).key)

    def state(self, task: str, *args: Any) -> State | None:
        """The state of a call's record; None when there is none."""
        found = self.store.find(self.key(task, *args))
        return None if found is None else found.record.state

    def claims(self, task: str, outcome: str, scope: str = "global") -> float:
        """Checks of a task with one outcome, of all workers that run."""
        return self.metric("idemwatch_claims_total", f"sheet.{task}", scope, outcome)

    def metric(self, name: str, *labels: str) -> float:
        """The value of a series, summed over all workers that run."""
        return sum(_read(self.folder, w).get(_series(name, labels), 0.0) for w in self._running())

    def logged(self, text: str) -> int:
        """How often the workers logged `text`."""
        return sum(worker.log.count(text) for worker in self.workers)

    def complaints(self, *expected: str) -> list[str]:
        """Warnings, errors and tracebacks in the logs, without those that contain `expected`."""
        lines = [line for worker in self.workers for line in worker.log.splitlines()]
        return [
            line
            for line in lines
            if any(sign in line for sign in _COMPLAINTS)
            and not any(text in line for text in expected)
        ]

    def _running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running()]


def _series(name: str, labels: Sequence[str]) -> str:
    return f"{name}{sorted(labels)}"


def _read(folder: Path, worker: Worker) -> dict[str, float]:
    url = (folder / worker.nodename / "url").read_text().strip() + "/metrics"
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as reply:
        families = parse_openmetrics(reply.read().decode())  # type: ignore[no-untyped-call]
    samples = [sample for family in families for sample in family.samples]
    return {_series(one.name, list(one.labels.values())): one.value for one in samples}


@contextmanager
def open_fleet(
    folder: Path,
    *,
    broker: str,
    authority: str,
    redis_url: str | None = None,
    database_url: str | None = None,
    workers: int = 1,
    env: dict[str, str] | None = None,
    app: str = "support.app",
    **conf: Any,
) -> Iterator[Fleet]:
    """A fleet with `workers` prefork workers; `conf` is added to the app's."""
    settings = {
        "broker_url": broker,
        "book_url": broker,
        "broker_transport_options": FAST_REDELIVERY,
        "idempotency_authority": authority,
        "idempotency_redis_url": redis_url or broker,
        "idempotency_database_url": database_url,
        "idempotency_lease": LEASE_SECONDS,
    }
    with ExitStack() as stack:
        fleet = Fleet(folder, broker, {**settings, **conf}, env or {}, app)
        stack.callback(fleet.close)
        for _ in range(workers):
            fleet.start()
        yield fleet
