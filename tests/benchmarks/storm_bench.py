"""A storm: 100,000 copies of one message whose work is finished, through a real prefork worker.

A copy costs one read in Redis over a message that does nothing: the goal is that of a task which
claims and completes. PostgreSQL is told of hits once a second, however many there are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import psycopg
from celery import Celery
from idemwatch.demo.processes import descendants
from support.storm import Message
from support.worker import Worker, start_worker

from .lab import Lab
from .measure import MICROSECONDS, OURS, Measured
from .worker_benches import PLAIN, TASKS, cpu_seconds

COPIES: Final = 100_000
BLOCK: Final = 5_000
PLAIN_BLOCK: Final = 1_000
MOST_TRANSACTIONS_A_SECOND: Final = 2.0
"""Of PostgreSQL: a batch of statistics each second, of each process."""
_TRANSACTIONS: Final = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s
"""


def storm_100k(lab: Lab) -> Measured:
    """CPU of a copy, main process and child, beside that of a plain message."""
    storm = _Storm(lab)
    for name in (PLAIN, OURS):
        storm.drain(name, 500)  # the first does the work
    before = storm.noticed()
    spent: dict[str, list[_Spent]] = {PLAIN: [], OURS: []}
    for turn in lab.turns(COPIES // BLOCK, seconds=float("inf")):
        for name in (PLAIN, OURS) if turn % 2 else (OURS, PLAIN):
            spent[name].append(storm.drain(name, BLOCK if name == OURS else PLAIN_BLOCK))
    pairs = list(zip(spent[OURS], spent[PLAIN], strict=True))
    told = storm.told(
        before,
        median(plain.cpu for plain in spent[PLAIN]),
        median(copy.commands - plain.commands for copy, plain in pairs),
    )
    return Measured(median(copy.cpu / plain.cpu for copy, plain in pairs), {}, told)


@dataclass(frozen=True)
class _Spent:
    """For each message: seconds of CPU, and commands at Redis."""

    cpu: float
    commands: float


@dataclass(frozen=True)
class _Noticed:
    """What PostgreSQL has done by now."""

    seconds: float
    transactions: int
    cpu: float


class _Storm:
    def __init__(self, lab: Lab) -> None:
        self._client, self._postgres = lab.client, lab.postgres
        self._database = lab.new_database("storm")
        app = Celery("bench-publisher", broker=lab.redis_url, set_as_current=False)
        lab.stack.callback(app.close)
        self._messages = {
            name: Message(app, self._client, TASKS[name], (1,)) for name in (PLAIN, OURS)
        }
        self._worker = _worker(lab, self._database)
        self._watcher: psycopg.Connection[Any] = psycopg.connect(
            self._postgres.database("postgres"), autocommit=True
        )
        lab.stack.callback(self._watcher.close)

    def drain(self, name: str, copies: int) -> _Spent:
        """What the worker and Redis do for so many copies of one message."""
        self._worker.freeze()
        try:
            self._messages[name].push(copies)
            before, commands = self._cpu(), self._commands()
        finally:
            self._worker.thaw()
        self._worker.wait_for(self._drained, f"{copies} messages were acknowledged")
        spent, sent = self._cpu() - before, self._commands() - commands
        return _Spent(spent / copies, sent / copies)

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, (self._worker.pid, *self._worker.children())))

    def _commands(self) -> int:
        stats = self._client.info("commandstats")
        return sum(one["calls"] for name, one in stats.items() if name not in _OURS)

    def _drained(self) -> bool:
        return not self._client.llen("celery") and not self._client.hlen("unacked")

    def noticed(self) -> _Noticed:
        """What PostgreSQL did so far."""
        name = self._database.rpartition("/")[2]
        row = self._watcher.execute(_TRANSACTIONS, (name,)).fetchone()
        assert row is not None
        pids = (self._postgres.pid, *descendants(self._postgres.pid))
        return _Noticed(time.monotonic(), int(row[0]), sum(map(cpu_seconds, pids)))

    def told(self, before: _Noticed, plain: float, commands: float) -> str:
        """The baseline, and what the stores noticed. Fails when PostgreSQL noticed the storm."""
        now = self.noticed()
        transactions = now.transactions - before.transactions
        allowed = MOST_TRANSACTIONS_A_SECOND * (now.seconds - before.seconds)
        assert transactions <= allowed, f"{transactions} transactions in PostgreSQL"
        return (
            f"{plain * MICROSECONDS:.0f} µs; PostgreSQL {transactions} transactions, "
            f"{now.cpu - before.cpu:.1f} s; Redis {commands:+.2f} commands a copy"
        )


_OURS: Final = ("cmdstat_info", "cmdstat_llen", "cmdstat_hlen", "cmdstat_lpush")
"""Commands of the one who measures. The worker's own LPUSH is of messages that it turns back."""


def _worker(lab: Lab, database_url: str) -> Worker:
    worker = start_worker(
        "benchmarks.worker_app",
        broker=lab.redis_url,
        backend="disabled://",
        folder=lab.folder,
        concurrency=1,
        env={"BENCH_REDIS": lab.redis_url, "BENCH_DATABASE": database_url},
    )
    lab.stack.callback(worker.stop)
    return worker
