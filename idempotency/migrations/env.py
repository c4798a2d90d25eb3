"""Alembic's entry: runs the steps on the connection that idempotency/migrate.py hands over."""

from __future__ import annotations

from typing import Any

from alembic import context
from idemwatch.idempotency.schema import VERSION_TABLE

# Each step commits by itself, since CREATE INDEX CONCURRENTLY runs in no transaction.
OPTIONS: dict[str, Any] = {
    "version_table": VERSION_TABLE,
    "transaction_per_migration": True,
    "target_metadata": None,
}


def run() -> None:
    """Print the SQL, or run it."""
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, **OPTIONS)
    else:
        context.configure(connection=context.config.attributes["connection"], **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


run()
