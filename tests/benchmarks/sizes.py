"""What records cost in PostgreSQL and Redis: the figures of docs/operations.md.

    python tests/benchmarks/sizes.py 100000

Both servers are the run's own. Each record is claimed and completed as a worker does it, with the
result of RESULT; a server's own overhead for an empty table or an empty Redis is left out.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.keys import digest
from idemwatch.idempotency.migrate import upgrade
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.postgres_store import PostgresStore
from idemwatch.idempotency.purge_store import purge
from idemwatch.idempotency.record import Claim
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.store import Held, Result, Store

TASK: Final = "jobs.auto_close_job"
RESULT: Final = b'{"job_id": 1234567, "status": "closed", "closed_at": "2026-03-01T02:15:00+00:00"}'
DAY_US: Final = 24 * 3600 * 1_000_000
EXPIRED_US: Final = 1
"""The time to live of a record that a purge deletes."""


class Postgres(NamedTuple):
    """Bytes for each record: the table, its indexes, and the log that a replica receives."""

    table: float
    indexes: float
    wal: float


def fill(store: Store, authority: str, records: int, ttl_us: int = DAY_US) -> None:
    """Claim and complete that many keys, made as those of a task without a key of its own."""
    for number in range(records):
        key = f"{TASK}:{digest(str(number).encode())}"
        claim = Claim(
            key=key,
            owner=uuid4().hex,
            authority=authority,
            fingerprint=digest(key.encode()),
            task_id=str(uuid4()),
            endpoint=TASK,
        )
        answer = store.claim(claim)
        held = Held(claim=claim, fence=answer.fence, created_us=answer.fence)
        store.complete(held, Result(ttl_us, RESULT, "application/json"))


def postgres_bytes(url: str, records: int) -> Postgres:
    """Bytes for each record in a migrated, empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        before, log = _sizes(connection), _position(connection)
        with closing(PostgresStore(PostgresLink(url), "idemwatch")) as store:
            fill(store, "postgres", records, EXPIRED_US)
        table, indexes = (now - then for now, then in zip(_sizes(connection), before, strict=True))
        return Postgres(*(n / records for n in (table, indexes, _position(connection) - log)))


def _sizes(connection: psycopg.Connection) -> tuple[int, int]:
    row = connection.execute(
        "SELECT pg_table_size('idempotency_record'), pg_indexes_size('idempotency_record')"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _position(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


def redis_bytes(url: str, records: int) -> float:
    """Bytes for each finished record in an empty Redis."""
    with redis.Redis.from_url(url) as client:
        client.ping()
        before = client.info("memory")["used_memory"]
        with closing(RedisStore(RedisLink.from_url(url), "idemwatch")) as store:
            fill(store, "redis", records)
        return float(client.info("memory")["used_memory"] - before) / records


def purged_per_second(url: str) -> float:
    """How fast a purge deletes what stands in the table, all of it expired."""
    with closing(PostgresLink(url)) as link:
        began = time.perf_counter()
        deleted = sum(purge(link))
        return deleted / (time.perf_counter() - began)


def main(records: int) -> None:
    """Print all of it."""
    postgres, memory = PostgresServer.start(durable=True), RedisServer.start()
    try:
        upgrade(postgres.url)
        found = postgres_bytes(postgres.url, records)
        print(f"{records:,} records with a result of {len(RESULT)} bytes; bytes for each of them:")
        for name, size in found._asdict().items():
            print(f"PostgreSQL, {name:<10} {size:6.0f}")
        print(f"Redis                  {redis_bytes(memory.url, records):6.0f}")
        print(f"purged a second  {purged_per_second(postgres.url):12,.0f}")
    finally:
        postgres.stop()
        memory.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
