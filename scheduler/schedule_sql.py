"""The statements on the table of schedules and on its changes."""

from __future__ import annotations

from typing import Final

from .rows import WRITTEN, columns

ACTIVE_HASH: Final = "(schedule_hash) WHERE status IN ('PENDING', 'IN_PROGRESS')"
SELECT: Final = f"SELECT {columns()} FROM schedule ORDER BY id"  # noqa: S608
INSERT: Final = f"""
INSERT INTO schedule ({", ".join(WRITTEN)})
VALUES ({", ".join(f"%({name})s" for name in WRITTEN)})
ON CONFLICT {ACTIVE_HASH} DO NOTHING RETURNING id
"""  # noqa: S608
# Two partial indexes, and a way into each.
KNOWN: Final = """
SELECT schedule_hash FROM schedule
 WHERE schedule_hash = ANY (%(hashes)s) AND status IN ('PENDING', 'IN_PROGRESS')
UNION ALL
SELECT schedule_hash FROM schedule
 WHERE schedule_hash = ANY (%(hashes)s) AND status IN ('PAUSED', 'CANCELLED')
"""

LOCK: Final = f"""
SELECT {columns()}, schedule_hash FROM schedule WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
"""  # noqa: S608
# Two schedules may change places: neither has its new hash while the other has it still.
SET_ASIDE: Final = """
UPDATE schedule SET schedule_hash = schedule_hash || ':' || id WHERE id = ANY(%s)
"""
IN_THE_WAY: Final = """
SELECT id, identifier FROM schedule
 WHERE schedule_hash = ANY(%s) AND status IN ('PENDING', 'IN_PROGRESS') LIMIT 1
"""
CHANGE: Final = """
UPDATE schedule AS s
   SET cron_expression = after->>'cron_expression',
       unmoved_expression = after->>'unmoved_expression',
       status = after->>'status', schedule_hash = after->>'schedule_hash'
  FROM unnest(%(ids)s::bigint[], %(before)s::json[], %(after)s::json[]) AS g (id, before, after)
 WHERE s.id = g.id AND s.status = before->>'status'
   AND s.cron_expression IS NOT DISTINCT FROM before->>'cron_expression'
RETURNING s.id
"""
NOTE: Final = """
INSERT INTO schedule_change
    (change_id, schedule_id, changed_by, reason, before, after, reverts)
SELECT %(change)s, g.id, %(by)s, g.reason, g.before, g.after, %(reverts)s
  FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(before)s::json[], %(after)s::json[])
    AS g (id, reason, before, after)
"""
NEXT_CHANGE: Final = "SELECT nextval('schedule_change_id')"
NOTED: Final = """
SELECT schedule_id, before::text, after::text,
       EXISTS (SELECT FROM schedule_change AS r WHERE r.reverts = c.change_id)
  FROM schedule_change AS c WHERE change_id = %s ORDER BY schedule_id
"""
LATEST: Final = """
SELECT DISTINCT change_id FROM schedule_change ORDER BY change_id DESC LIMIT %s
"""
HISTORY: Final = f"""
SELECT c.change_id, c.changed_at, c.changed_by, c.reason, c.before AS was, c.after AS became,
       (SELECT min(r.change_id) FROM schedule_change AS r WHERE r.reverts = c.change_id)
           AS reverted_by, {columns("s")}
  FROM schedule_change AS c JOIN schedule AS s ON s.id = c.schedule_id
 WHERE c.change_id = ANY (%(ids)s)
 ORDER BY c.change_id DESC, c.schedule_id
"""  # noqa: S608
