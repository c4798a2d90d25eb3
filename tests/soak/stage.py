"""The servers and processes of a soak: two Redis, a PostgreSQL, two workers, a state exporter."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.migrate import upgrade
from support.exporters import Client, ExporterProcess
from support.worker import Worker, start_worker

from .app import LOCKS

POOLS: Final = {"prefork": 2, "threads": 4}
"""Workers by their pool, and how many tasks each runs at once."""
REFRESH_SECONDS: Final = 5
_TABLES: Final = """
CREATE TABLE effect (kind text NOT NULL, number bigint NOT NULL);
CREATE TABLE counter (name text PRIMARY KEY, value bigint NOT NULL);
"""


@dataclass(frozen=True)
class Stage:
    """All that runs. Workers by their pool."""

    broker: str
    redis_url: str
    database_url: str
    workers: dict[str, Worker]
    scraped: dict[str, Client]
    exporter: ExporterProcess
    slots: Path

    def running(self) -> bool:
        """Whether no worker has ended."""
        return all(worker.running() for worker in self.workers.values())


@contextmanager
def open_stage(ttl_seconds: float) -> Iterator[Stage]:
    """Start everything; what is made ends with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idemwatch-soak-")))
        broker, store = (_redis(stack) for _ in range(2))
        database = PostgresServer.start()
        stack.callback(database.stop)
        _make_tables(database.url)
        conf = {
            "broker_url": broker,
            "ledger_url": database.url,
            "idempotency_redis_url": store,
            "idempotency_database_url": database.url,
            "idempotency_ttl": ttl_seconds,
            "idempotency_metrics_dir": str(folder / "metrics"),
            "idempotency_metrics_address": "127.0.0.1:0",
        }
        workers = {pool: _worker(stack, folder / pool, pool, conf) for pool in POOLS}
        exporter = stack.enter_context(
            ExporterProcess(
                *("--refresh-seconds", str(REFRESH_SECONDS), "--broker-url", broker),
                IDEMWATCH_REDIS_URL=store,
                IDEMWATCH_DATABASE_URL=database.url,
            )
        )
        slots = folder / "metrics"
        scraped = {pool: _client(slots, worker) for pool, worker in workers.items()}
        yield Stage(broker, store, database.url, workers, scraped, exporter, slots)


def _redis(stack: ExitStack) -> str:
    server = RedisServer.start()
    stack.callback(server.stop)
    return server.url


def _make_tables(url: str) -> None:
    upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLES)
        for number in range(LOCKS):
            connection.execute("INSERT INTO counter VALUES (%s, 0)", (f"counter:{number}",))


def _worker(stack: ExitStack, folder: Path, pool: str, conf: dict[str, Any]) -> Worker:
    folder.mkdir()
    worker = start_worker(
        "soak.app",
        broker=conf["broker_url"],
        backend="disabled://",
        folder=folder,
        pool=pool,
        concurrency=POOLS[pool],
        env={"SOAK_CONF": json.dumps(conf)},
    )
    stack.callback(worker.stop)
    return worker


def _client(slots: Path, worker: Worker) -> Client:
    file = slots / worker.nodename / "url"
    worker.wait_for(file.exists, "the endpoint's address was written")
    return Client(file.read_text().strip())
