"""Hits and checks on their way to PostgreSQL: gathered in memory, written in batches each second.

They are statistics. A killed process may lose a second of them; the Prometheus counters are exact.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final

from . import metrics
from .errors import StoreUnavailable
from .postgres_link import Connection, PostgresLink

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
MOST_KEYS: Final = 10_000

# Rows are locked in the order of their keys, so that the batches of two processes cannot deadlock.
HIT_RECORDS: Final = """
WITH hit AS (
    SELECT r.key, h.hits FROM idempotency_record AS r
      JOIN unnest(%(keys)s::text[], %(hits)s::bigint[]) AS h (key, hits) ON r.key = h.key
     ORDER BY r.key FOR NO KEY UPDATE OF r)
UPDATE idempotency_record AS r
   SET hit_count = r.hit_count + hit.hits, last_hit_at = statement_timestamp(),
       first_hit_at = coalesce(r.first_hit_at, statement_timestamp())
  FROM hit WHERE r.key = hit.key
RETURNING r.endpoint, r.scope, r.hit_count
"""
ADD_STATS: Final = """
INSERT INTO endpoint_stats AS s
    (endpoint, scope, records, hits, max_hit_count, first_seen, last_hit)
SELECT endpoint, scope, records, hits, 0, clock_timestamp(),
       CASE WHEN hits > 0 THEN clock_timestamp() END
  FROM unnest(%(endpoints)s::text[], %(scopes)s::text[], %(records)s::bigint[], %(hits)s::bigint[])
       AS b (endpoint, scope, records, hits)
 ORDER BY endpoint, scope
ON CONFLICT (endpoint, scope) DO UPDATE
   SET records = s.records + excluded.records, hits = s.hits + excluded.hits,
       last_hit = coalesce(excluded.last_hit, s.last_hit)
"""
RAISE_MAXIMUM: Final = """
UPDATE endpoint_stats AS s SET max_hit_count = greatest(s.max_hit_count, m.most)
  FROM unnest(%(endpoints)s::text[], %(scopes)s::text[], %(most)s::bigint[])
       AS m (endpoint, scope, most)
 WHERE s.endpoint = m.endpoint AND s.scope = m.scope AND s.max_hit_count < m.most
"""
ADD_BUCKETS: Final = """
INSERT INTO endpoint_bucket AS b (endpoint, scope, hour, checks, hits)
SELECT endpoint, scope, date_trunc('hour', clock_timestamp(), 'UTC'), checks, hits
  FROM unnest(%(endpoints)s::text[], %(scopes)s::text[], %(checks)s::bigint[], %(hits)s::bigint[])
       AS n (endpoint, scope, checks, hits)
 ORDER BY endpoint, scope
ON CONFLICT (endpoint, scope, hour) DO UPDATE
   SET checks = b.checks + excluded.checks, hits = b.hits + excluded.hits
"""
# Buckets are whole hours: of the one before, the part counts that the last 60 minutes cover.
LAST_HOUR: Final = """
WITH this AS (SELECT date_trunc('hour', clock_timestamp(), 'UTC') AS hour, clock_timestamp() AS now)
SELECT b.endpoint,
       round(sum(CASE WHEN b.hour = this.hour THEN b.hits
                 ELSE b.hits * (1 - extract(epoch FROM this.now - this.hour) / 3600) END))::bigint
  FROM endpoint_bucket AS b, this
 WHERE b.hour >= this.hour - interval '1 hour' AND b.hits > 0
 GROUP BY b.endpoint
"""


def duplicates_last_hour(link: PostgresLink) -> dict[str, int]:
    """Duplicates of the last 60 minutes by task, of all scopes. Raises StoreUnavailable."""
    return dict(link.run(lambda connection: connection.execute(LAST_HOUR).fetchall()))


class _Batch:
    def __init__(self) -> None:
        self.key_hits: Counter[str] = Counter()
        self.checks: Counter[tuple[str, str]] = Counter()
        self.hits: Counter[tuple[str, str]] = Counter()
        self.records: Counter[tuple[str, str]] = Counter()


class Statistics:
    """Counts checks, new records and hits; a thread writes them while there are any."""

    def __init__(self, link: PostgresLink, namespace: str) -> None:
        self._link = link
        self._head = f"{namespace}:"
        self._batch = _Batch()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def checked(self, endpoint: str, scope: str, *, new: bool) -> None:
        """A check that was no hit."""
        group = (endpoint, scope)
        with self._lock:
            self._batch.checks[group] += 1
            if new:
                self._batch.records[group] += 1
        self._awaken()

    def hit(self, key: str, endpoint: str, scope: str) -> None:
        """A check that met a record of `key`."""
        group = (endpoint, scope)
        with self._lock:
            batch = self._batch
            batch.checks[group] += 1
            batch.hits[group] += 1
            if key in batch.key_hits or len(batch.key_hits) < MOST_KEYS:
                batch.key_hits[key] += 1
        self._awaken()

    def _awaken(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._loop, name="idemwatch-statistics", daemon=True
                    )
                    self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait()
            self._stopped.wait(INTERVAL_SECONDS)
            self._wake.clear()
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. A batch that PostgreSQL refuses is dropped, and counted."""
        with self._lock:
            batch, self._batch = self._batch, _Batch()
        if not batch.checks:
            return
        metrics.WRITEBEHIND_PENDING.inc()
        try:
            self._link.run(lambda connection: self._write(connection, batch))
        except StoreUnavailable as error:
            metrics.WRITEBEHIND_DROPPED.inc()
            log.info("a batch of statistics was dropped: %s", error)
        finally:
            metrics.WRITEBEHIND_PENDING.dec()

    def _write(self, connection: Connection, batch: _Batch) -> None:
        groups = sorted(batch.checks)
        values = {
            "endpoints": [endpoint for endpoint, _ in groups],
            "scopes": [scope for _, scope in groups],
            "checks": [batch.checks[group] for group in groups],
            "hits": [batch.hits[group] for group in groups],
            "records": [batch.records[group] for group in groups],
        }
        with connection.transaction():
            most = self._write_hits(connection, batch) if batch.key_hits else {}
            connection.execute(ADD_STATS, values)
            connection.execute(ADD_BUCKETS, values)
            if most:
                groups = sorted(most)
                values = {
                    "endpoints": [endpoint for endpoint, _ in groups],
                    "scopes": [scope for _, scope in groups],
                    "most": [most[group] for group in groups],
                }
                connection.execute(RAISE_MAXIMUM, values)

    def _write_hits(self, connection: Connection, batch: _Batch) -> dict[tuple[str, str], int]:
        keys = sorted(batch.key_hits)
        values = {
            "keys": [self._head + key for key in keys],
            "hits": [batch.key_hits[key] for key in keys],
        }
        most: dict[tuple[str, str], int] = {}
        for endpoint, scope, hits in connection.execute(HIT_RECORDS, values):
            most[endpoint, scope] = max(hits, most.get((endpoint, scope), 0))
        return most

    def stop(self) -> None:
        """Write what is left and end the thread."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        self.flush()
