"""What is looked at while the load runs: each look is a set of numbers by name."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Final, LiteralString

import psycopg
import redis

from .stage import Stage

MEGABYTE: Final = 1 << 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CONNECTIONS: Final[LiteralString] = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'idemwatch'
"""
_ROWS: Final[LiteralString] = "SELECT count(*) FROM idempotency_record"

Sample = Mapping[str, float]


class Sampler:
    """Looks at processes and servers. `processes` is how many the connections are shared by."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._redis = redis.Redis.from_url(stage.redis_url)
        self._database = psycopg.connect(stage.database_url, autocommit=True)
        self._empty = self._dataset()
        self._began = time.monotonic()

    def look(self) -> dict[str, float]:
        """One sample; it scrapes all endpoints as Prometheus does."""
        found = {"seconds": time.monotonic() - self._began}
        for pool, worker in self._stage.workers.items():
            found |= _process(f"{pool} worker", worker.pid)
            self._stage.scraped[pool].series()
        found |= _children(self._stage.workers["prefork"].children())
        found |= _process("exporter", self._stage.exporter.pid)
        assert self._stage.exporter.healthy(), self._stage.exporter.success()
        return found | self._servers() | {"slot files": self._slots()}

    def _servers(self) -> dict[str, float]:
        memory = self._dataset() - self._empty
        connections, rows = (self._value(sql) for sql in (_CONNECTIONS, _ROWS))
        return {
            "connections to Redis": self._redis.info("clients")["connected_clients"] - 1,
            "connections to PostgreSQL": connections,
            "Redis, bytes a record": memory / max(1, self._redis.dbsize()),
            "records in PostgreSQL": rows,
        }

    def _dataset(self) -> int:
        """What the keys take, without what connections and the table of keys do."""
        return int(self._redis.info("memory")["used_memory_dataset"])

    def _value(self, sql: LiteralString) -> float:
        row = self._database.execute(sql).fetchone()
        assert row is not None
        return float(row[0])

    def _slots(self) -> int:
        return sum(1 for _ in self._stage.slots.rglob("*.db"))

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()
        self._database.close()


def _process(name: str, pid: int) -> dict[str, float]:
    """Memory, files and threads of a process; nothing if it has ended."""
    with contextlib.suppress(OSError):
        here = Path("/proc", str(pid))
        pages = int((here / "statm").read_text().split()[1])
        return {
            f"{name}, MB": pages * _PAGE / MEGABYTE,
            f"{name}, files": len(os.listdir(here / "fd")),  # noqa: PTH208  no Path objects
            f"{name}, threads": len(os.listdir(here / "task")),  # noqa: PTH208
        }
    return {}


def _children(pids: list[int]) -> dict[str, float]:
    """The mean of those that run: each is replaced after some hundred tasks."""
    looks = [look for pid in pids if (look := _process("a child", pid))]
    return {name: fmean(look[name] for look in looks) for name in (looks[0] if looks else ())}
