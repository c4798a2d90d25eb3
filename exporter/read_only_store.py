"""Reads of PostgreSQL that see one moment, change nothing and end in time.

Invariant: a read takes one connection, one read-only snapshot, and no statement of it runs longer
than its time-out: whatever an exporter asks, the workers' database is not held up by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import psycopg
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import Connection, PostgresLink

T = TypeVar("T")

STATEMENT_SECONDS: Final = 10.0
_ABANDONED_SECONDS: Final = 60
"""After so long without a word the server ends the transaction of an exporter that was stopped."""


def read(
    link: PostgresLink, work: Callable[[Connection], T], timeout: float = STATEMENT_SECONDS
) -> T:
    """What `work` gives in one READ ONLY, REPEATABLE READ transaction; `timeout` in seconds.

    Raises StoreUnavailable, also for a statement that takes longer.
    """
    begin = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
        f" SET LOCAL statement_timeout = {round(timeout * 1000)};"
        f" SET LOCAL idle_in_transaction_session_timeout = {_ABANDONED_SECONDS * 1000}"
    )
    return link.run(lambda connection: _read(connection, begin, work, timeout))


def _read(connection: Connection, begin: str, work: Callable[[Connection], T], timeout: float) -> T:
    try:
        with connection.transaction():
            connection.execute(begin, prepare=False)
            return work(connection)
    except psycopg.errors.QueryCanceled:
        # Without its cause: the link would take it for a broken connection and ask once more.
        raise StoreUnavailable(
            "postgres", f"a statement took longer than {timeout:g} s; see what holds it up there"
        ) from None
