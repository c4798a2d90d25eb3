"""Transactions on the tables of schedules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from idemwatch.idempotency.postgres_link import Connection, PostgresLink, unavailable
from psycopg import IsolationLevel
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.rows import dict_row

from .errors import ScheduleConflict

TAKE_TURNS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('idemwatch:schedule', 0))"
"""Whoever writes many schedules waits here for those before: they would deadlock otherwise."""


@contextmanager
def transaction(link: PostgresLink) -> Iterator[Connection]:
    """A connection in a transaction of its own, READ COMMITTED whatever the database's default is.

    Raises StoreUnavailable.
    """
    with link.connection() as connection:
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        try:
            with connection.transaction():
                yield connection
        except psycopg.errors.UniqueViolation as error:  # another transaction was first
            raise ScheduleConflict("a schedule", "", "", "duplicate", "added just now") from error
        except psycopg.Error as error:
            if isinstance(error, ReadOnlySqlTransaction):  # as after a failover: to a standby
                connection.close()
            if connection.closed:  # so are the idle ones, after a restart
                link.drop()
            raise unavailable(error) from error


def fetch_rows(
    connection: Connection, statement: str, values: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The rows of a statement as dicts."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()
