"""Expired records, old statistics and old firings leave PostgreSQL in batches, past rows in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from .postgres_link import Connection, PostgresLink

BATCH_ROWS: Final = 1000
KEPT_DAYS: Final = 30
"""Statistics by the hour, and firings of schedules."""

# statement_timestamp() and not clock_timestamp(): a volatile bound cannot use an index.
EXPIRED: Final = """
SELECT count(*) FROM idempotency_record
 WHERE expires_at <= statement_timestamp() AND state <> 'poisoned'
"""
# By ANY(ARRAY), since a join may be planned as a scan of the whole table; by ctid, which stays what
# it is while the row is locked, and saves a look into the index for each row.
# Statistics are locked in their order, as their writers do, so that the two cannot deadlock.
DELETE: Final = """
WITH old AS (
    SELECT ctid FROM idempotency_record
     WHERE expires_at <= statement_timestamp() AND state <> 'poisoned'
     ORDER BY expires_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM idempotency_record WHERE ctid = ANY (ARRAY(SELECT ctid FROM old))
    RETURNING endpoint, scope),
counted AS (
    SELECT endpoint, scope, count(*) AS rows FROM gone GROUP BY endpoint, scope),
locked AS (
    SELECT s.endpoint, s.scope, c.rows
      FROM endpoint_stats AS s JOIN counted AS c USING (endpoint, scope)
     ORDER BY s.endpoint, s.scope FOR NO KEY UPDATE OF s),
lowered AS (
    UPDATE endpoint_stats AS s SET records = greatest(0, s.records - l.rows)
      FROM locked AS l WHERE s.endpoint = l.endpoint AND s.scope = l.scope)
SELECT coalesce(sum(rows), 0)::bigint FROM counted
"""
DELETE_BUCKETS: Final = """
DELETE FROM endpoint_bucket WHERE hour < statement_timestamp() - make_interval(days => %(days)s)
"""
DELETE_FIRINGS: Final = """
DELETE FROM schedule_firing WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM schedule_firing
     WHERE due_at < statement_timestamp() - make_interval(days => %(days)s)
       AND outcome <> 'pending'
     ORDER BY due_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED))
"""


def expired(link: PostgresLink) -> int:
    """How many records a purge would delete now."""
    row = link.run(lambda connection: connection.execute(EXPIRED).fetchone())
    return int(row[0]) if row else 0


def purge(
    link: PostgresLink,
    *,
    batch_rows: int = BATCH_ROWS,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Delete batch after batch, each in a transaction of its own; yields the rows of each.

    Ends when nothing is left, or `stop` says so. Poisoned keys stay.
    """
    link.run(lambda connection: connection.execute(DELETE_BUCKETS, {"days": KEPT_DAYS}))
    deleted = batch_rows
    while deleted == batch_rows:
        if stop():
            return
        deleted = link.run(lambda connection: _delete(connection, batch_rows))
        if deleted:
            yield deleted
    while not stop():
        if link.run(lambda connection: _delete_firings(connection, batch_rows)) < batch_rows:
            return


def _delete(connection: Connection, batch_rows: int) -> int:
    row = connection.execute(DELETE, {"rows": batch_rows}).fetchone()
    return int(row[0]) if row else 0


def _delete_firings(connection: Connection, batch_rows: int) -> int:
    return connection.execute(DELETE_FIRINGS, {"days": KEPT_DAYS, "rows": batch_rows}).rowcount
