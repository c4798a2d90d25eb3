-- What each role of idemwatch may do. Run it as the owner of the tables (idemwatch_owner) after each
-- `idemwatch db upgrade`. It takes everything back first, so that no right of an older version stays.
BEGIN;

REVOKE ALL ON idemwatch_alembic_version, idempotency_record, endpoint_stats, endpoint_bucket,
    schedule, schedule_firing, schedule_change, schedule_beat
    FROM PUBLIC, idemwatch_worker, idemwatch_publisher, idemwatch_beat, idemwatch_exporter,
    idemwatch_operator, idemwatch_purge;
REVOKE ALL ON SEQUENCE schedule_change_id
    FROM PUBLIC, idemwatch_worker, idemwatch_publisher, idemwatch_beat, idemwatch_exporter,
    idemwatch_operator, idemwatch_purge;
GRANT SELECT ON idemwatch_alembic_version TO idemwatch_worker, idemwatch_publisher, idemwatch_beat,
    idemwatch_exporter, idemwatch_operator, idemwatch_purge;

-- A worker, and every process that uses the service or `transaction()`.
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_record TO idemwatch_worker;
GRANT SELECT, INSERT, UPDATE ON endpoint_stats, endpoint_bucket TO idemwatch_worker;

-- Who calls `apply_async` with idempotency_at_publish, and has a redis_url for its notes. Without
-- Redis the notes are records: it then needs the rights of a worker.
GRANT SELECT ON idempotency_record TO idemwatch_publisher;

-- A beat with its schedules in PostgreSQL.
GRANT SELECT ON idempotency_record TO idemwatch_beat;
GRANT SELECT, INSERT, UPDATE ON schedule, schedule_firing TO idemwatch_beat;
GRANT SELECT, INSERT, UPDATE, DELETE ON schedule_beat TO idemwatch_beat;

-- The state exporter: it reads, and no results, users or devices.
GRANT SELECT (key, endpoint, scope, state, fence, created_at, completed_at, expires_at, ctid)
    ON idempotency_record TO idemwatch_exporter;
GRANT SELECT ON endpoint_stats, schedule, schedule_firing, schedule_beat TO idemwatch_exporter;

-- An operator: `keys`, `schedules`, `validate-schedules`, `doctor`, `purge --dry-run`.
GRANT SELECT, UPDATE, DELETE ON idempotency_record TO idemwatch_operator;
GRANT SELECT, INSERT, UPDATE ON schedule TO idemwatch_operator;
GRANT SELECT, INSERT ON schedule_change TO idemwatch_operator;
GRANT USAGE ON SEQUENCE schedule_change_id TO idemwatch_operator;
GRANT SELECT ON endpoint_stats, endpoint_bucket, schedule_firing, schedule_beat
    TO idemwatch_operator;
-- A schedule that is moved leaves what is due by now to the beat, by a trigger.
GRANT INSERT ON schedule_firing TO idemwatch_operator;

-- `idemwatch purge`. Rows are locked before they go, for which PostgreSQL asks a right to UPDATE:
-- one column of each table is enough.
GRANT SELECT (endpoint, scope, state, expires_at, ctid), UPDATE (region), DELETE
    ON idempotency_record TO idemwatch_purge;
GRANT SELECT, UPDATE (records) ON endpoint_stats TO idemwatch_purge;
GRANT SELECT, DELETE ON endpoint_bucket TO idemwatch_purge;
GRANT SELECT (due_at, outcome, ctid), UPDATE (beat), DELETE ON schedule_firing TO idemwatch_purge;

COMMIT;
