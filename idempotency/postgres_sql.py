"""The SQL of the PostgreSQL store: each statement is the whole of one step.

Times are PostgreSQL's own (`clock_timestamp()`), also within a transaction that began long ago.
"""

from __future__ import annotations

from typing import Final

_COLUMNS: Final = """
    state, owner, fence, lease_until, created_at, expires_at, attempt, crashes, authority,
    request_hash, task_id, endpoint, scope, user_id, device_id, waiters, result_type, result
"""
READ_COLUMNS: Final = _COLUMNS + ", clock_timestamp()"

# The fence when the key was absent; no row when a record stands there.
CLAIM: Final = """
INSERT INTO idempotency_record (
    key, state, owner, fence, lease_until, created_at, expires_at, attempt, authority,
    request_hash, task_id, endpoint, scope, user_id, device_id, region)
SELECT %(key)s, 'running', %(owner)s, (extract(epoch FROM now) * 1000000)::bigint,
       now + %(lease)s, now, now + %(kept)s, %(attempt)s, %(authority)s,
       %(fingerprint)s, %(task_id)s, %(endpoint)s, %(scope)s, %(user_id)s, %(device_id)s,
       %(region)s
  FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
ON CONFLICT (key) DO NOTHING
RETURNING fence
"""

FIND: Final = f"SELECT {READ_COLUMNS} FROM idempotency_record WHERE key = %s"  # noqa: S608

# Exactly the record that was judged: a renewal moves lease_until, any other change moves the rest.
SWAP: Final = """
UPDATE idempotency_record
   SET state = %(state)s, owner = %(owner)s, fence = %(fence)s, lease_until = %(lease_until)s,
       created_at = %(created_at)s, expires_at = %(expires_at)s, attempt = %(attempt)s,
       crashes = %(crashes)s, authority = %(authority)s, request_hash = %(request_hash)s,
       task_id = %(task_id)s, endpoint = %(endpoint)s, scope = %(scope)s, user_id = %(user_id)s,
       device_id = %(device_id)s, waiters = %(waiters)s, result_type = %(result_type)s,
       result = %(result)s, completed_at = %(completed_at)s
 WHERE key = %(key)s AND owner = %(seen_owner)s AND fence = %(seen_fence)s
   AND state = %(seen_state)s AND lease_until = %(seen_lease_until)s AND waiters = %(seen_waiters)s
"""

COMPLETE: Final = """
UPDATE idempotency_record
   SET state = 'done', lease_until = clock.now, completed_at = clock.now, crashes = 0, waiters = '',
       expires_at = clock.now + %(ttl)s, result_type = %(result_type)s, result = %(result)s
  FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
 WHERE key = %(key)s AND owner = %(owner)s AND fence = %(fence)s
"""

PARK: Final = """
UPDATE idempotency_record
   SET state = 'waiting', lease_until = clock.now + %(open_after)s, crashes = 0, waiters = '',
       expires_at = clock.now + %(open_after)s + %(kept)s, attempt = %(attempt)s,
       request_hash = %(fingerprint)s
  FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
 WHERE key = %(key)s AND owner = %(owner)s AND fence = %(fence)s
   AND state IN ('running', 'waiting')
"""

# For a record that vanished: written again as it would have become. A result without a claim has
# neither fence nor date of its own.
RESTORE: Final = """
INSERT INTO idempotency_record (
    key, state, owner, fence, lease_until, created_at, completed_at, expires_at, attempt, authority,
    request_hash, task_id, endpoint, scope, user_id, device_id, result_type, result, region)
SELECT %(key)s, %(state)s, %(owner)s,
       coalesce(%(fence)s::bigint, (extract(epoch FROM now) * 1000000)::bigint),
       now + %(open_after)s, coalesce(%(created_at)s::timestamptz, now),
       CASE WHEN %(state)s = 'done' THEN now END, now + %(kept)s, %(attempt)s, %(authority)s,
       %(fingerprint)s, %(task_id)s, %(endpoint)s, %(scope)s, %(user_id)s, %(device_id)s,
       %(result_type)s, %(result)s, %(region)s
  FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
ON CONFLICT (key) DO NOTHING
"""

RELEASE: Final = """
DELETE FROM idempotency_record
 WHERE key = %(key)s AND owner = %(owner)s AND fence = coalesce(%(fence)s::bigint, fence)
   AND state IN ('running', 'waiting')
"""

# A lock's waiters listen: the notice leaves with the release, in one statement.
RELEASE_LOCK: Final = f"""
WITH gone AS ({RELEASE.strip()} RETURNING key)
SELECT pg_notify('idemwatch_released', md5(key)) FROM gone
"""  # noqa: S608  built of constants

EXISTS: Final = "SELECT 1 FROM idempotency_record WHERE key = %s"

# Locked in the order of keys, so that two batches cannot wait for each other.
RENEW: Final = """
WITH held AS (
    SELECT r.key, h.lease, h.kept
      FROM idempotency_record AS r
      JOIN unnest(%(keys)s::text[], %(owners)s::text[], %(fences)s::bigint[],
                  %(leases)s::interval[], %(kept)s::interval[])
           AS h (key, owner, fence, lease, kept)
        ON r.key = h.key AND r.owner = h.owner AND r.fence = h.fence
     WHERE r.state = 'running'
     ORDER BY r.key
       FOR NO KEY UPDATE OF r)
UPDATE idempotency_record AS r
   SET lease_until = clock_timestamp() + held.lease, expires_at = clock_timestamp() + held.kept
  FROM held
 WHERE r.key = held.key
RETURNING r.owner
"""

POISONED: Final = "SELECT key FROM idempotency_record WHERE state = 'poisoned' ORDER BY key"
