"""The indexes of records, built while the table is in use. The table of them is in step 0001.

A build that was broken off leaves an invalid index of that name: it is dropped first, so that the
step may be run again.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

INDEXES = {
    "idempotency_record_expires_at": "(expires_at)",
    "idempotency_record_endpoint": "(endpoint, created_at DESC)",
    "idempotency_record_poisoned": "(key) WHERE state = 'poisoned'",
}


def upgrade() -> None:
    """Build each index concurrently."""
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON idempotency_record {columns}")


def downgrade() -> None:
    """Drop each index concurrently."""
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
