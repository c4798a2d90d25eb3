"""Schedules, their firings, their changes, and the beats that are alive.

The index of each query, beside those of the system that idemwatch replaces:

| theirs | ours | the query it serves |
|---|---|---|
| unique schedule_hash, asset, client WHERE active | schedule_active_hash, unique, partial | no second active schedule of one meaning: the hash covers asset and client, NULL too, where theirs let a schedule without an asset through |
| unique schedule_hash, client, identifier WHERE no asset | the same | |
| check recurring OR cron <> '' | schedule_recurring_has_cron | theirs let a NULL through |
| job_schedule_hash_idx | schedule_active_hash | ensure_unique_schedule: who is in the way |
| - | schedule_inactive_hash, partial | insert: what was paused or cancelled does not come back by an import |
| job_cron_fromdate_idx | none | nothing of ours asks by expression |
| job_last_exec_idx | none | the beat asks for what is due: schedule_due, partial |
| job_schedule_lookup_idx | primary key (id) | |
| job_conflict_detect_idx | schedule_resource, partial | ensure_unique_schedule: who runs on the same asset |
| - | schedule_firing_pending, partial | the beat: what is to be published |
| - | schedule_firing_due_at | purge: the oldest first |

`next_due_at`: NULL is to be planned, 'infinity' never. The trigger makes every change of a
schedule's times, by whatever hand, one to be planned again from then on, and `updated_at`
its version. What was due before the change, and was claimed by no beat yet, it claims
itself: a schedule that is moved in the second in which it is due still fires.
"""  # noqa: E501

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

UP = """
CREATE TABLE schedule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identifier text NOT NULL,
    task text NOT NULL,
    args json NOT NULL DEFAULT '[]',
    kwargs json NOT NULL DEFAULT '{}',
    options json NOT NULL DEFAULT '{}',
    cron_expression text,
    unmoved_expression text,
    dialect text NOT NULL DEFAULT 'vixie'
        CHECK (dialect IN ('vixie', 'celery', 'quartz', 'sidekiq', 'k8s')),
    timezone text NOT NULL DEFAULT 'UTC',
    asset_id text,
    client_id text,
    status text NOT NULL DEFAULT 'PENDING'
        CHECK (status IN ('PENDING', 'IN_PROGRESS', 'PAUSED', 'CANCELLED')),
    is_recurring boolean NOT NULL DEFAULT true,
    fromdate timestamptz,
    uptodate timestamptz,
    priority smallint CHECK (priority BETWEEN 0 AND 9),
    duration_estimate_seconds double precision CHECK (duration_estimate_seconds > 0),
    movable boolean NOT NULL DEFAULT true,
    window_minutes integer NOT NULL DEFAULT 60 CHECK (window_minutes BETWEEN 0 AND 1439),
    misfire_grace_seconds integer NOT NULL DEFAULT 60 CHECK (misfire_grace_seconds >= 1),
    catch_up text NOT NULL DEFAULT 'one' CHECK (catch_up IN ('one', 'all', 'none')),
    overlap text NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip', 'queue_one')),
    schedule_hash text NOT NULL,
    origin text NOT NULL DEFAULT '',
    next_due_at timestamptz CHECK (next_due_at > '-infinity'),
    last_execution_at timestamptz,
    execution_count bigint NOT NULL DEFAULT 0,
    late_count bigint NOT NULL DEFAULT 0,
    missed_count bigint NOT NULL DEFAULT 0,
    skipped_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT schedule_recurring_has_cron
        CHECK (NOT is_recurring OR coalesce(cron_expression, '') <> ''),
    CONSTRAINT schedule_single_has_fromdate CHECK (is_recurring OR fromdate IS NOT NULL),
    CONSTRAINT schedule_ends_after_it_begins CHECK (uptodate > fromdate)
) WITH (fillfactor = 85);
COMMENT ON TABLE schedule IS 'When tasks are published; see idemwatch.';
CREATE UNIQUE INDEX schedule_active_hash ON schedule (schedule_hash)
    WHERE status IN ('PENDING', 'IN_PROGRESS');
CREATE INDEX schedule_inactive_hash ON schedule (schedule_hash)
    WHERE status IN ('PAUSED', 'CANCELLED');
CREATE INDEX schedule_due ON schedule (next_due_at NULLS FIRST)
    WHERE status IN ('PENDING', 'IN_PROGRESS');
CREATE INDEX schedule_resource ON schedule (asset_id, client_id)
    WHERE status IN ('PENDING', 'IN_PROGRESS') AND asset_id IS NOT NULL;

CREATE FUNCTION schedule_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    IF (OLD.cron_expression, OLD.dialect, OLD.timezone, OLD.fromdate, OLD.uptodate, OLD.status)
       IS DISTINCT FROM
       (NEW.cron_expression, NEW.dialect, NEW.timezone, NEW.fromdate, NEW.uptodate, NEW.status)
    THEN
        NEW.next_due_at := NULL;
        INSERT INTO schedule_firing (schedule_id, due_at, outcome, message, publish_until)
        SELECT OLD.id, OLD.next_due_at, 'pending',
               json_build_object('task', OLD.task, 'args', OLD.args, 'kwargs', OLD.kwargs,
                   'options', OLD.options, 'also', CASE WHEN OLD.priority IS NULL THEN '{}'
                   ELSE json_build_object('priority', OLD.priority) END),
               OLD.next_due_at + make_interval(secs => OLD.misfire_grace_seconds)
         WHERE OLD.status IN ('PENDING', 'IN_PROGRESS') AND OLD.next_due_at <= clock_timestamp()
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER schedule_version BEFORE UPDATE OF identifier, task, args, kwargs, options,
    cron_expression, unmoved_expression, dialect, timezone, status, is_recurring, fromdate,
    uptodate, priority, misfire_grace_seconds, catch_up, overlap
    ON schedule FOR EACH ROW EXECUTE FUNCTION schedule_version();

CREATE TABLE schedule_firing (
    schedule_id bigint NOT NULL REFERENCES schedule (id) ON DELETE CASCADE,
    due_at timestamptz NOT NULL,
    outcome text NOT NULL
        CHECK (outcome IN ('pending', 'fired', 'late', 'missed', 'skipped_overlap')),
    late boolean NOT NULL DEFAULT false,
    message json,
    task_id text NOT NULL DEFAULT '',
    record_key text,
    publish_after timestamptz NOT NULL DEFAULT clock_timestamp(),
    publish_until timestamptz NOT NULL,
    beat text NOT NULL DEFAULT '',
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    PRIMARY KEY (schedule_id, due_at)
) WITH (fillfactor = 70);
COMMENT ON TABLE schedule_firing IS 'One row for each due time, and the outbox of its message.';
CREATE INDEX schedule_firing_pending ON schedule_firing (publish_after) WHERE outcome = 'pending';
CREATE INDEX schedule_firing_due_at ON schedule_firing (due_at);

CREATE SEQUENCE schedule_change_id;
CREATE TABLE schedule_change (
    change_id bigint NOT NULL,
    schedule_id bigint NOT NULL REFERENCES schedule (id) ON DELETE CASCADE,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    reason text NOT NULL,
    before json NOT NULL,
    after json NOT NULL,
    reverts bigint,
    PRIMARY KEY (change_id, schedule_id)
);
CREATE UNIQUE INDEX schedule_change_reverted_once ON schedule_change (reverts, schedule_id)
    WHERE reverts IS NOT NULL;

CREATE TABLE schedule_beat (
    name text PRIMARY KEY,
    started_at timestamptz NOT NULL,
    last_tick_at timestamptz NOT NULL
) WITH (fillfactor = 50);
"""

DOWN = """
DROP TABLE schedule_beat;
DROP TABLE schedule_change;
DROP SEQUENCE schedule_change_id;
DROP TABLE schedule_firing;
DROP TABLE schedule;
DROP FUNCTION schedule_version();
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(UP)


def downgrade() -> None:
    """Drop them, with all schedules: what no other source has is lost."""
    op.execute(DOWN)
