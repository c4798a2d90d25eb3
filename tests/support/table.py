"""The records of a database as rows: written, counted and held behind the code's back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

INSERT = """
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, expires_at)
SELECT 'test:' || %(prefix)s || n, %(endpoint)s, 'global', '', 'postgres', %(state)s, '', '', 0, 1,
       now(), now() + %(expires)s::interval
  FROM generate_series(1, %(count)s) AS n
"""
COUNT = """
INSERT INTO endpoint_stats AS s (endpoint, scope, records)
VALUES (%(endpoint)s, 'global', %(count)s)
ON CONFLICT (endpoint, scope) DO UPDATE SET records = s.records + excluded.records
"""
HOLD_STATS = "SELECT FROM endpoint_stats WHERE endpoint = %s FOR UPDATE"
WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Table:
    """The records of a database, written and counted behind the code's back."""

    def __init__(self, url: str) -> None:
        self.url = url

    def execute(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """The rows that a statement answers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def add(
        self,
        count: int,
        endpoint: str = "e",
        *,
        state: str = "done",
        expires: str = "-1 hour",
        prefix: str | None = None,
    ) -> None:
        """Records of one endpoint, which are also counted in its statistics."""
        values = {"count": count, "endpoint": endpoint, "state": state, "expires": expires}
        self.execute(INSERT, {**values, "prefix": prefix or f"{endpoint}:{state}:{expires}:"})
        self.execute(COUNT, values)

    def left(self, endpoint: str = "e") -> int:
        """The records of an endpoint."""
        found = self.execute(
            "SELECT count(*) FROM idempotency_record WHERE endpoint = %s", (endpoint,)
        )
        return int(found[0][0])

    def counted(self, endpoint: str = "e") -> int:
        """The records of an endpoint by its statistics."""
        found = self.execute("SELECT records FROM endpoint_stats WHERE endpoint = %s", (endpoint,))
        return int(found[0][0])

    def waiting(self) -> int:
        """How many sessions wait for a lock."""
        return int(self.execute(WAITING)[0][0])

    @contextmanager
    def held(self, endpoint: str) -> Iterator[psycopg.Connection[Any]]:
        """Another transaction has the statistics of an endpoint: a purge waits in its batch."""
        with psycopg.connect(self.url) as connection:
            connection.execute(HOLD_STATS, (endpoint,))
            yield connection
