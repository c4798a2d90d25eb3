"""Records, and the statistics of endpoints.

The index of each query, beside those of the system that idemwatch replaces:

| theirs | ours | the query it serves |
|---|---|---|
| key, expires_at WHERE expires_at > now() | primary key (key) | every claim, complete, find: PostgreSQL refuses now() in a partial index, and a unique key needs no second column |
| expires_at, created_at | idempotency_record_expires_at | purge: the oldest expired first |
| scope, user_id, created_at | none | nothing of ours asks by user |
| scope, device_id, created_at | none | nothing of ours asks by device |
| endpoint, created_at, hit_count | idempotency_record_endpoint | keys list --task, newest first |
| last_hit_at, hit_count | none | endpoint_stats is kept by batches instead |
| request_hash, key | none | the fingerprint is compared in the row found by its key |
| key, expires_at, hit_count, last_hit_at (covering) | none | a duplicate needs its result, so the row is read anyway |
| - | idempotency_record_poisoned, partial | keys list --state poisoned, and the gauge of poisoned keys |

`expires_at` is indexed although it changes once in a record's life (RUNNING -> DONE), which makes
that update not HOT: a purge without the index would read the whole table, and no other indexed
column changes. A fill factor of 85 keeps the new version on the page. Renewals change it too, so
long tasks pay; their rows are few.
"""  # noqa: E501

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

UP = """
CREATE TABLE idempotency_record (
    key text PRIMARY KEY,
    endpoint text NOT NULL,
    scope text NOT NULL,
    user_id text,
    device_id text,
    request_hash text NOT NULL,
    authority text NOT NULL,
    state text NOT NULL
        CHECK (state IN ('running', 'waiting', 'done', 'poisoned', 'forgotten')),
    owner text NOT NULL,
    task_id text NOT NULL,
    attempt integer NOT NULL,
    fence bigint NOT NULL,
    crashes integer NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL,
    waiters text NOT NULL DEFAULT '',
    result bytea,
    result_type text,
    hit_count bigint NOT NULL DEFAULT 0,
    first_hit_at timestamptz,
    last_hit_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    expires_at timestamptz NOT NULL,
    region text NOT NULL DEFAULT ''
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE idempotency_record IS 'One row for each idempotency key; see idemwatch.';

CREATE TABLE endpoint_stats (
    endpoint text NOT NULL,
    scope text NOT NULL,
    records bigint NOT NULL DEFAULT 0,
    hits bigint NOT NULL DEFAULT 0,
    max_hit_count bigint NOT NULL DEFAULT 0,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_hit timestamptz,
    PRIMARY KEY (endpoint, scope)
) WITH (fillfactor = 50);

CREATE TABLE endpoint_bucket (
    endpoint text NOT NULL,
    scope text NOT NULL,
    hour timestamptz NOT NULL,
    checks bigint NOT NULL DEFAULT 0,
    hits bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint, scope, hour)
) WITH (fillfactor = 50);
CREATE INDEX endpoint_bucket_hour ON endpoint_bucket (hour);
"""

DOWN = """
DROP TABLE endpoint_bucket;
DROP TABLE endpoint_stats;
DROP TABLE idempotency_record;
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(UP)


def downgrade() -> None:
    """Drop them, with all records: every finished piece of work may then be done again."""
    op.execute(DOWN)
