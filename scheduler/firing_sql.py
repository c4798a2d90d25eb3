"""The statements of the beat. None of them waits for a lock: what others hold is passed over."""

from __future__ import annotations

from typing import Final

from .rows import columns

_ACTIVE: Final = "status IN ('PENDING', 'IN_PROGRESS')"
_READ: Final = f"""
SELECT {columns("s")}, s.next_due_at, s.updated_at, clock_timestamp() AS now
  FROM schedule AS s WHERE s.{_ACTIVE}
"""  # noqa: S608

# Two ways into one index, each bounded: an OR would read it to its end. The locks end with the
# statement; they are asked for so that what another transaction keeps locked hides nothing behind.
# NULLS FIRST as the index has it, which would not be read in its order otherwise.
DUE: Final = f"""
WITH unplanned AS (
    {_READ} AND s.next_due_at IS NULL LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED),
due AS (
    {_READ} AND s.next_due_at <= statement_timestamp()
    ORDER BY s.next_due_at NULLS FIRST LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED)
SELECT * FROM unplanned UNION ALL SELECT * FROM due
"""  # noqa: S608
# A schedule is advanced only from where it was read, and its due times are written with it, so of
# any number of beats one claims each.
ADVANCE: Final = """
WITH given AS (
    SELECT s.id, g.next_due_at, g.message
      FROM unnest(%(ids)s::bigint[], %(versions)s::timestamptz[], %(planned)s::timestamptz[],
                  %(next)s::timestamptz[], %(messages)s::json[])
        AS g (id, version, planned, next_due_at, message)
      JOIN schedule AS s ON s.id = g.id AND s.updated_at = g.version
       AND s.next_due_at IS NOT DISTINCT FROM g.planned
       FOR NO KEY UPDATE OF s SKIP LOCKED),
claimed AS (
    INSERT INTO schedule_firing
        (schedule_id, due_at, outcome, late, message, task_id, publish_until, beat)
    SELECT f.id, f.due_at, f.outcome, f.late,
           CASE f.outcome WHEN 'pending' THEN given.message END, f.task_id, f.publish_until,
           %(beat)s
      FROM unnest(%(of)s::bigint[], %(due)s::timestamptz[], %(outcomes)s::text[],
                  %(late)s::boolean[], %(task_ids)s::text[], %(until)s::timestamptz[])
        AS f (id, due_at, outcome, late, task_id, publish_until)
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
FREEZE: Final = "SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'"
OUTBOX: Final = """
SELECT f.ctid::text AS place, f.schedule_id, f.due_at, f.late, f.message::text AS message,
       f.task_id, nullif(f.publish_until, 'infinity') AS publish_until,
       s.identifier, s.catch_up, s.overlap, s.status, clock_timestamp() AS now,
       coalesce(s.next_due_at > f.due_at AND s.next_due_at <= statement_timestamp(), false)
           OR EXISTS (SELECT FROM schedule_firing AS n WHERE n.schedule_id = f.schedule_id
                         AND n.due_at > f.due_at AND n.outcome IN ('pending', 'fired', 'late'))
           AS superseded
  FROM schedule_firing AS f JOIN schedule AS s ON s.id = f.schedule_id
 WHERE f.outcome = 'pending' AND f.publish_after <= statement_timestamp()
 ORDER BY f.publish_after, f.due_at LIMIT %(most)s FOR UPDATE OF f SKIP LOCKED
"""
# The firings are locked by us, so they are where they were read; asked for by outcome, all that
# are pending would be read for a few. Their schedules may be another's, for as long as an operator
# thinks: what could not be counted there is told, and is counted with a later mark.
MARK: Final = """
WITH marked AS (
    UPDATE schedule_firing AS f
       SET outcome = g.outcome, record_key = g.record_key, beat = %(beat)s,
           message = CASE g.outcome WHEN 'pending' THEN f.message END,
           publish_after = clock_timestamp() + make_interval(secs => g.after_seconds),
           publish_until = CASE WHEN g.endless THEN 'infinity' ELSE f.publish_until END,
           published_at = CASE WHEN g.outcome IN ('fired', 'late') THEN clock_timestamp() END
      FROM unnest(%(places)s::tid[], %(outcomes)s::text[], %(keys)s::text[], %(after)s::float[],
                  %(endless)s::boolean[])
        AS g (place, outcome, record_key, after_seconds, endless)
     WHERE f.ctid = g.place AND f.message IS NOT NULL
    RETURNING f.schedule_id),
counted AS (
    SELECT * FROM unnest(%(counted)s::bigint[], %(fired)s::int[], %(late)s::int[],
                         %(missed)s::int[], %(skipped)s::int[])
        AS c (id, fired, late, missed, skipped)),
free AS (
    SELECT s.id FROM schedule AS s WHERE s.id = ANY (%(counted)s)
       FOR NO KEY UPDATE OF s SKIP LOCKED),
updated AS (
    UPDATE schedule AS s
       SET execution_count = s.execution_count + c.fired, late_count = s.late_count + c.late,
           missed_count = s.missed_count + c.missed, skipped_count = s.skipped_count + c.skipped,
           last_execution_at = CASE WHEN c.fired > 0
               THEN greatest(s.last_execution_at, clock_timestamp()) ELSE s.last_execution_at END
      FROM counted AS c JOIN free USING (id) WHERE s.id = c.id
    RETURNING s.id)
SELECT (SELECT count(*) FROM marked),
       ARRAY(SELECT id FROM schedule WHERE id = ANY (%(counted)s)
             EXCEPT SELECT id FROM updated)
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
