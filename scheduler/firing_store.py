"""Due times in PostgreSQL: who claims them, and the outbox of their messages.

Claiming is one statement: it advances a schedule only from where it was read, and writes its due
times with it, so of any number of beats one claims each. A claimed message is published by whoever
locks its row, and is marked in the transaction that holds the lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from idemwatch.idempotency.postgres_link import Connection, PostgresLink

from .due import Advance
from .model import Overlap
from .rows import COLUMNS
from .schedule_store import fetch_rows, transaction

_ACTIVE: Final = "status IN ('PENDING', 'IN_PROGRESS')"
FROZEN_SECONDS: Final = 5
"""How long a beat may be silent within a transaction: then its rows are another's."""
PREVIOUS: Final = 10
"""Firings before, whose runs may still hold a lease."""

# Two ways into one index, each bounded: an OR would read it to its end.
_READ: Final = f"SELECT {COLUMNS}, next_due_at, updated_at, clock_timestamp() AS now FROM schedule"  # noqa: S608
DUE: Final = f"""
({_READ} WHERE {_ACTIVE} AND next_due_at IS NULL LIMIT %(most)s)
UNION ALL
({_READ} WHERE {_ACTIVE} AND next_due_at <= statement_timestamp()
  ORDER BY next_due_at LIMIT %(most)s)
"""
ADVANCE: Final = """
WITH given AS (
    SELECT s.id, g.next_due_at
      FROM unnest(%(ids)s::bigint[], %(versions)s::timestamptz[], %(planned)s::timestamptz[],
                  %(next)s::timestamptz[]) AS g (id, version, planned, next_due_at)
      JOIN schedule AS s ON s.id = g.id AND s.updated_at = g.version
       AND s.next_due_at IS NOT DISTINCT FROM g.planned
       FOR NO KEY UPDATE OF s SKIP LOCKED),
claimed AS (
    INSERT INTO schedule_firing
        (schedule_id, due_at, outcome, late, message, task_id, publish_until, beat)
    SELECT f.id, f.due_at, f.outcome, f.late, f.message, f.task_id, f.publish_until, %(beat)s
      FROM unnest(%(of)s::bigint[], %(due)s::timestamptz[], %(outcomes)s::text[],
                  %(late)s::boolean[], %(messages)s::json[], %(task_ids)s::text[],
                  %(until)s::timestamptz[])
        AS f (id, due_at, outcome, late, message, task_id, publish_until)
      JOIN given USING (id)
    ON CONFLICT DO NOTHING RETURNING schedule_id, outcome),
counted AS (
    SELECT schedule_id, count(*) FILTER (WHERE outcome = 'missed') AS missed
      FROM claimed GROUP BY schedule_id)
UPDATE schedule AS s
   SET next_due_at = g.next_due_at, missed_count = s.missed_count + coalesce(c.missed, 0)
  FROM given AS g LEFT JOIN counted AS c ON c.schedule_id = g.id
 WHERE s.id = g.id
RETURNING s.id, coalesce(c.missed, 0)
"""
FREEZE: Final = f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'"
OUTBOX: Final = """
SELECT f.schedule_id, f.due_at, f.late, f.message::text AS message, f.task_id,
       nullif(f.publish_until, 'infinity') AS publish_until,
       s.identifier, s.overlap, s.status, clock_timestamp() AS now,
       EXISTS (SELECT FROM schedule_firing AS n WHERE n.schedule_id = f.schedule_id
                  AND n.outcome = 'pending' AND n.due_at > f.due_at) AS superseded
  FROM schedule_firing AS f JOIN schedule AS s ON s.id = f.schedule_id
 WHERE f.outcome = 'pending' AND f.publish_after <= statement_timestamp()
 ORDER BY f.publish_after, f.due_at LIMIT %(most)s FOR UPDATE OF f SKIP LOCKED
"""
# Schedules are locked in the order of their ids, so that two beats cannot deadlock.
MARK: Final = """
WITH marked AS (
    UPDATE schedule_firing AS f
       SET outcome = g.outcome, record_key = g.record_key, beat = %(beat)s,
           message = CASE g.outcome WHEN 'pending' THEN f.message END,
           publish_after = clock_timestamp() + make_interval(secs => g.after_seconds),
           publish_until = CASE WHEN g.endless THEN 'infinity' ELSE f.publish_until END,
           published_at = CASE WHEN g.outcome IN ('fired', 'late') THEN clock_timestamp() END
      FROM unnest(%(ids)s::bigint[], %(due)s::timestamptz[], %(outcomes)s::text[],
                  %(keys)s::text[], %(after)s::float[], %(endless)s::boolean[])
        AS g (id, due_at, outcome, record_key, after_seconds, endless)
     WHERE f.schedule_id = g.id AND f.due_at = g.due_at AND f.outcome = 'pending'
    RETURNING f.schedule_id, f.outcome, f.published_at),
counted AS (
    SELECT schedule_id, max(published_at) AS published_at,
           count(*) FILTER (WHERE outcome IN ('fired', 'late')) AS fired,
           count(*) FILTER (WHERE outcome = 'late') AS late,
           count(*) FILTER (WHERE outcome = 'missed') AS missed,
           count(*) FILTER (WHERE outcome = 'skipped_overlap') AS skipped
      FROM marked WHERE outcome <> 'pending' GROUP BY schedule_id),
locked AS (
    SELECT s.id FROM schedule AS s JOIN counted AS c ON c.schedule_id = s.id
     ORDER BY s.id FOR NO KEY UPDATE OF s),
updated AS (
    UPDATE schedule AS s
       SET execution_count = s.execution_count + c.fired, late_count = s.late_count + c.late,
           missed_count = s.missed_count + c.missed, skipped_count = s.skipped_count + c.skipped,
           last_execution_at = greatest(s.last_execution_at, c.published_at)
      FROM counted AS c JOIN locked AS l ON l.id = c.schedule_id WHERE s.id = c.schedule_id)
SELECT count(*) FROM marked
"""
RUNS_BEFORE: Final = """
SELECT record_key FROM schedule_firing
 WHERE schedule_id = %(id)s AND outcome IN ('fired', 'late') AND record_key IS NOT NULL
 ORDER BY due_at DESC LIMIT %(most)s
"""
WAKE: Final = f"""
SELECT extract(epoch FROM least(
    (SELECT next_due_at FROM schedule WHERE {_ACTIVE} AND next_due_at < 'infinity'
      ORDER BY next_due_at NULLS FIRST LIMIT 1),
    (SELECT min(publish_after) FROM schedule_firing WHERE outcome = 'pending'))
    - clock_timestamp())
"""  # noqa: S608
TICK: Final = """
INSERT INTO schedule_beat AS b (name, started_at, last_tick_at)
VALUES (%(beat)s, clock_timestamp(), clock_timestamp())
ON CONFLICT (name) DO UPDATE SET last_tick_at = excluded.last_tick_at
"""
FORGET_BEATS: Final = """
DELETE FROM schedule_beat WHERE last_tick_at < clock_timestamp() - interval '1 day'
"""
LEAVE: Final = "DELETE FROM schedule_beat WHERE name = %(beat)s"


class Step(NamedTuple):
    """A schedule to advance: as it was read, and what is due. `message`: of each due time."""

    row: dict[str, Any]
    advance: Advance
    message: str
    task_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Firing:
    """A message that waits in the outbox. `superseded`: a later one of its schedule waits too."""

    schedule_id: int
    due_at: datetime
    late: bool
    message: dict[str, Any]
    task_id: str
    until: datetime | None
    identifier: str
    overlap: Overlap
    active: bool
    superseded: bool
    now: datetime


class Mark(NamedTuple):
    """What became of a firing: an outcome, or `pending` again after some seconds."""

    firing: Firing
    outcome: str
    record_key: str | None = None
    after_seconds: float = 0.0
    endless: bool = False


class FiringStore:
    """The due times in one database, for the beat of this name. May raise StoreUnavailable."""

    def __init__(self, link: PostgresLink, beat: str) -> None:
        self._link, self._beat = link, beat

    def due(self, most: int) -> list[dict[str, Any]]:
        """Rows of schedules that are due or were never planned, with `now` by the database."""
        return self._link.run(lambda connection: fetch_rows(connection, DUE, {"most": most}))

    def advance(self, steps: Sequence[Step]) -> dict[int, int]:
        """Claim what is due; the schedules that are ours, with how many of theirs were missed."""
        given = _steps(steps) | {"beat": self._beat}
        rows = self._link.run(lambda connection: connection.execute(ADVANCE, given).fetchall())
        return {int(one): int(missed) for one, missed in rows}

    @contextmanager
    def outbox(self, most: int) -> Iterator[Outbox]:
        """Messages that are locked for us while the block runs; none for long."""
        with transaction(self._link) as connection:
            connection.execute(FREEZE)
            rows = fetch_rows(connection, OUTBOX, {"most": most})
            yield Outbox(connection, self._beat, [_firing(row) for row in rows])

    def wake_seconds(self) -> float | None:
        """Seconds until something is due; None if nothing ever is."""
        row = self._link.run(lambda connection: connection.execute(WAKE).fetchone())
        return None if row is None or row[0] is None else float(row[0])

    def tick(self) -> None:
        """Note that this beat is alive."""
        self._link.run(lambda connection: connection.execute(TICK, {"beat": self._beat}))

    def forget_beats(self) -> None:
        """Remove beats that have not been seen for a day."""
        self._link.run(lambda connection: connection.execute(FORGET_BEATS))

    def leave(self) -> None:
        """Note that this beat ends in order."""
        self._link.run(lambda connection: connection.execute(LEAVE, {"beat": self._beat}))


class Outbox:
    """Locked firings, and what became of them."""

    def __init__(self, connection: Connection, beat: str, firings: list[Firing]) -> None:
        self._connection, self._beat, self.firings = connection, beat, firings

    def runs_before(self, firing: Firing) -> list[str]:
        """The keys of the records of the runs before, the latest first."""
        asked = {"id": firing.schedule_id, "most": PREVIOUS}
        return [row[0] for row in self._connection.execute(RUNS_BEFORE, asked)]

    def mark(self, marks: Sequence[Mark]) -> int:
        """Write it down; how many were still ours to mark."""
        given = {
            "beat": self._beat,
            "ids": [one.firing.schedule_id for one in marks],
            "due": [one.firing.due_at for one in marks],
            "outcomes": [one.outcome for one in marks],
            "keys": [one.record_key for one in marks],
            "after": [one.after_seconds for one in marks],
            "endless": [one.endless for one in marks],
        }
        row = self._connection.execute(MARK, given).fetchone()
        return int(row[0]) if row else 0


def _steps(steps: Sequence[Step]) -> dict[str, Any]:
    due = [
        (s, one, task) for s in steps for one, task in zip(s.advance.due, s.task_ids, strict=True)
    ]
    return {
        "ids": [s.row["id"] for s in steps],
        "versions": [s.row["updated_at"] for s in steps],
        "planned": [s.row["next_due_at"] for s in steps],
        "next": [_text(s.advance.next_at) for s in steps],
        "of": [s.row["id"] for s, _, _ in due],
        "due": [one.at for _, one, _ in due],
        "outcomes": ["missed" if one.missed else "pending" for _, one, _ in due],
        "late": [one.late for _, one, _ in due],
        "messages": [None if one.missed else s.message for s, one, _ in due],
        "task_ids": [task for _, _, task in due],
        "until": [one.until for _, one, _ in due],
    }


def _text(moment: datetime | None) -> str:
    return "infinity" if moment is None else moment.isoformat()


def _firing(row: dict[str, Any]) -> Firing:
    return Firing(
        schedule_id=row["schedule_id"],
        due_at=row["due_at"],
        late=row["late"],
        message=json.loads(row["message"]),
        task_id=row["task_id"],
        until=row["publish_until"],
        identifier=row["identifier"],
        overlap=Overlap(row["overlap"]),
        active=row["status"] in ("PENDING", "IN_PROGRESS"),
        superseded=row["superseded"],
        now=row["now"],
    )
