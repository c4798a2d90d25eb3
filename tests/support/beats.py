"""Beats as child processes on one database, with a worker, and the ledger of what was done."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from idemwatch.demo.processes import Child
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.schedule_store import ScheduleStore

from .beat_app import LEDGER
from .stores import wait_until
from .worker import Worker, environment, start_worker

APP = "support.beat_app"
SCHEDULER = "idemwatch.scheduler.beat:Scheduler"
_numbers = itertools.count(1)


class Beat:
    """A running beat."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        folder.mkdir()
        command = [sys.executable, "-m", "celery", "-A", APP, "beat", "-S", SCHEDULER]
        self._child = Child(
            "beat", [*command, "-l", "INFO"], folder=folder, env=environment(env), cwd=folder
        )

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._child.log.read_text(errors="replace")

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.running()

    def frozen(self) -> bool:
        """Whether it is stopped, by us or by itself."""
        return psutil.Process(self._child.pid).status() == psutil.STATUS_STOPPED

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until it has written `text` so often."""
        self._child.wait_until(lambda: self.log.count(text) >= times, 60, f"{text!r} was logged")

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._child.send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._child.send_all(signal.SIGCONT)


@dataclass
class Beats:
    """Beats, workers, and what stands in their database."""

    folder: Path
    broker: str
    database_url: str
    conf: dict[str, Any] = field(default_factory=dict)
    beats: list[Beat] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.link = PostgresLink(self.database_url)
        self.store = ScheduleStore(self.link)
        self.execute(LEDGER + "INSERT INTO gate DEFAULT VALUES")

    @property
    def env(self) -> dict[str, str]:
        """The environment of each process."""
        conf = {
            "broker_url": self.broker,
            "task_ignore_result": True,
            "idempotency_database_url": self.database_url,
            "idempotency_redis_url": self.broker,
            "idempotency_lease": 10,
            **self.conf,
        }
        return {"APP_CONF": json.dumps(conf)}

    def start_beat(self) -> Beat:
        """One more beat."""
        self.beats.append(Beat(self.folder / f"beat-{next(_numbers)}", self.env))
        return self.beats[-1]

    def start_worker(self, concurrency: int = 2, args: Sequence[str] = ()) -> Worker:
        """One more worker."""
        folder = self.folder / f"worker-{next(_numbers)}"
        folder.mkdir()
        worker = start_worker(
            APP,
            broker=self.broker,
            backend="disabled://",
            folder=folder,
            concurrency=concurrency,
            env=self.env,
            args=args,
        )
        self.workers.append(worker)
        return worker

    def add(self, *schedules: Schedule) -> list[str]:
        """Put schedules into the table; their ids."""
        known = {one.id for one in self.store.schedules().schedules}
        self.store.insert(schedules)
        return [one.id for one in self.store.schedules().schedules if one.id not in known]

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows that a statement answers."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def ledger(self, what: str) -> Counter[tuple[str, str]]:
        """How often it was written down for each schedule and due time."""
        rows = self.execute("SELECT schedule, due_at FROM ledger WHERE what = %s", what)
        return Counter((str(schedule), str(due)) for schedule, due in rows)

    def outcomes(self) -> Counter[str]:
        """Due times by their outcome."""
        rows = self.execute("SELECT outcome, count(*) FROM schedule_firing GROUP BY outcome")
        return Counter({str(outcome): int(count) for outcome, count in rows})

    def wait(self, statement: str, *values: Any) -> None:
        """Wait until the first column of the first row is true."""
        wait_until(lambda: bool(self.execute(statement, *values)[0][0]), 60)

    def wait_for_done(self, count: int) -> None:
        """Wait until so many pieces of work were done."""
        self.wait("SELECT count(*) >= %s FROM ledger WHERE what = 'done'", count)

    def wait_for_quiet(self) -> None:
        """Wait until nothing is in the outbox, and all that was published was done."""
        self.wait("SELECT count(*) = 0 FROM schedule_firing WHERE outcome = 'pending'")
        fired = "SELECT count(*) FROM schedule_firing WHERE outcome IN ('fired', 'late')"
        done = "SELECT count(DISTINCT (schedule, due_at)) FROM ledger WHERE what = 'done'"
        self.wait(f"SELECT ({fired}) = ({done})")

    def close(self) -> None:
        """End everything."""
        for beat in self.beats:
            beat.kill()
        for worker in self.workers:
            worker.kill()
        self.link.close()


@contextmanager
def open_beats(
    folder: Path, *, broker: str, database_url: str, beats: int = 1, workers: int = 1, **conf: Any
) -> Iterator[Beats]:
    """Beats and workers of support.beat_app; `conf` is added to the app's."""
    with ExitStack() as stack:
        found = Beats(folder, broker, database_url, conf)
        stack.callback(found.close)
        for _ in range(workers):
            found.start_worker()
        for _ in range(beats):
            found.start_beat()
        yield found
