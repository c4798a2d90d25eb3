"""The caller's transaction: the record and the effect commit together, or not at all.

There is no lease: PostgreSQL makes a second claim of the key wait until the first transaction ends,
and rolls both the record and the effect back when the process dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from . import postgres_sql as sql
from .errors import AlreadyRunning, LeaseLost, StoreUnavailable
from .postgres_link import Connection, PostgresLink, unavailable
from .postgres_store import PostgresStore, insert, swap_values
from .record import Answer, Claim, Outcome, is_gone, judge
from .store import ATTEMPTS, Result

AUTHORITY: Final = "transaction"
RESET: Final = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"
PREPARE_THRESHOLD: Final = 5
"""psycopg's own: what is prepared at once may not be several statements, as callers send them."""


class TransactionStore:
    """Claims and completes keys inside a transaction."""

    name = "postgres"

    def __init__(
        self, link: PostgresLink, lender: PostgresLink, namespace: str, region: str = ""
    ) -> None:
        self._lender = lender
        self._rows = PostgresStore(link, namespace, region)

    def finished(self, claim: Claim) -> Answer | None:
        """The answer of a key that is finished, by one statement; None when it is not."""
        found = self._rows.find(claim.key)
        if found is None or is_gone(found.record, found.now_us):
            return None
        verdict = judge(found.record, claim, found.now_us)
        return verdict.answer if verdict.write is None else None

    @contextmanager
    def begin(self, lock_timeout: timedelta) -> Iterator[Connection]:
        """A transaction of our own; its COMMIT has returned when this ends without an error.

        Its connection is one that claims and renewals never wait for, and what the caller sets on
        it ends with the transaction.
        """
        with self._lender.connection() as connection:
            shared = self._lender.shares(connection)
            try:
                connection.isolation_level = IsolationLevel.READ_COMMITTED
                connection.prepare_threshold = None if shared else PREPARE_THRESHOLD
                with connection.transaction():
                    _limit_lock_wait(connection, _as_setting(lock_timeout))
                    yield connection
                    if shared:  # after the COMMIT the session is another client's
                        connection.execute(RESET, prepare=False)
            except ReadOnlySqlTransaction as error:  # as after a failover: they lead to a standby
                connection.close()
                self._lender.drop()
                raise unavailable(error) from error
            except psycopg.Error as error:  # of any kind: a server's and a pooler's last words
                if not connection.broken:
                    raise
                self._lender.drop()  # after a restart all of them are dead
                raise unavailable(error) from error
            finally:
                _restore(connection, shared=shared)

    def claim(self, connection: Connection, claim: Claim) -> Answer:
        """Claim within the transaction. Raises AlreadyRunning past its lock_timeout."""
        values = self._rows.claim_values(claim)
        cursor = connection.cursor(row_factory=tuple_row)  # the caller's rows may be dicts
        try:
            for _ in range(ATTEMPTS):
                met = insert(cursor, values, claim.key)
                if isinstance(met, int):
                    return Answer(Outcome.GRANTED, met)
                if met is None:
                    continue
                verdict = judge(met.record, claim, met.now_us)
                if verdict.write is None:
                    return verdict.answer
                swap = swap_values(values["key"], met, verdict.write)
                if connection.execute(sql.SWAP, swap).rowcount == 1:
                    return verdict.answer
        except psycopg.errors.LockNotAvailable as error:
            raise AlreadyRunning(claim.key) from error
        raise StoreUnavailable(self.name, f"{claim.key} changed {ATTEMPTS} times while it was read")

    def complete(self, connection: Connection, claim: Claim, fence: int, result: Result) -> None:
        """Write the result within the transaction. Raises LeaseLost, which rolls it back."""
        values = {
            "key": self._rows.row_key(claim.key),
            "owner": claim.owner,
            "fence": fence,
            "ttl": timedelta(microseconds=result.ttl_us),
            "result_type": result.content_type or None,
            "result": result.data,
        }
        if connection.execute(sql.COMPLETE, values).rowcount != 1:
            raise LeaseLost(claim.key)


def _restore(connection: Connection, *, shared: bool) -> None:
    """Undo what a caller has set for the connection, and for a session that is ours alone."""
    connection.row_factory, connection.cursor_factory = tuple_row, psycopg.Cursor
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return  # it broke, and will be closed
    try:
        connection.isolation_level = connection.read_only = connection.deferrable = None
        if not shared:
            connection.execute(RESET, prepare=False)
    except psycopg.Error:
        connection.close()


@contextmanager
def joined(connection: Connection, lock_timeout: timedelta) -> Iterator[None]:
    """A savepoint in the caller's transaction, which has its own lock_timeout again afterwards.

    The first statement begins that transaction where the caller has not; only a connection in
    autocommit mode has none, and then this is the transaction.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    before = cursor.execute("SELECT current_setting('lock_timeout')").fetchone()
    with connection.transaction():
        _limit_lock_wait(connection, _as_setting(lock_timeout))
        yield
        _limit_lock_wait(connection, str(before[0]) if before else "0")


def _as_setting(lock_timeout: timedelta) -> str:
    return f"{max(1, lock_timeout // timedelta(milliseconds=1))}ms"


def _limit_lock_wait(connection: Connection, setting: str) -> None:
    """How long to wait for another transaction on the same key, until this one ends."""
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (setting,))
