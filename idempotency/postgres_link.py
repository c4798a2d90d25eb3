"""Connections to PostgreSQL: one retry where a connection broke, one kind of error.

Idle connections are kept in a deque: a pool with threads of its own costs 25 microseconds a
statement more, and has to be started again after each fork.

Every statement sent here may be sent twice: claims name their owner, writes their owner and fence.

Behind a pooler that shares sessions (PgBouncer with pool_mode = transaction) a statement meets
another session than the one before it. So nothing is prepared there: a name that another client
prepared stands for that one's statement. A pooler is seen by the process id that it gives a new
connection, which is not that of the server's process that answers.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import (
    DuplicatePreparedStatement,
    InvalidSqlStatementName,
    ReadOnlySqlTransaction,
    SerializationFailure,
)
from psycopg.pq import TransactionStatus

from .answer_guard import AnswerGuard
from .breaker import Breaker
from .errors import ConfigurationError, InvalidKey, SchemaMismatch, StoreUnavailable
from .schema import REQUIRED_REVISION, VERSION_TABLE

Connection = psycopg.Connection[Any]
T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS: Final = 2
PLACE_TIMEOUT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0
"""What a claim or a renewal may take. Twice that and the heartbeat's period are within a lease."""
POOL_SIZE: Final = 8
TRIES: Final = 10
"""How often a statement runs that met another's commit, under a strict default isolation."""
# A branch has a row of its own, which begins with its name; steps of the trunk are numbered.
TRUNK_REVISION: Final = f"SELECT version_num FROM {VERSION_TABLE} WHERE version_num ~ '^[0-9]'"  # noqa: S608
# A server that is gone without a word is noticed within seconds. No `options`: poolers refuse them.
_KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "idemwatch",
}
_POOLED: Final = "a pooler shares sessions: set idempotency_database_pooled to true"
_BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction)


class PostgresLink:
    """Statements to one database. Safe among threads; make a new one after a fork.

    `answer_seconds`: a statement of `run` that takes longer loses its connection; None: no limit.
    `pooled`: whether sessions are shared there with others; None: looked at with each connection.
    """

    name = "postgres"

    def __init__(
        self, url: str, answer_seconds: float | None = None, *, pooled: bool | None = None
    ) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ConfigurationError(
                "idempotency_database_url", "not a PostgreSQL URL: postgresql://user@host/database"
            ) from None
        self.breaker = Breaker(self.name)
        self._url = url
        self._options = {k: v for k, v in _KEEPALIVE.items() if k not in given}
        self._guard = None if answer_seconds is None else AnswerGuard(answer_seconds)
        self._checked = self._closed = False
        self._told_pooled, self.pooled = pooled, bool(pooled)
        """Told, and what is so of the newest connection."""
        self._sharing: WeakSet[Connection] = WeakSet()
        self._idle: deque[Connection] = deque()
        self._places = threading.BoundedSemaphore(POOL_SIZE)

    def shares(self, connection: Connection) -> bool:
        """Whether its next transaction may have another session, which others had before."""
        return connection in self._sharing

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit mode. Raises StoreUnavailable when there is none."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def run(self, work: Callable[[Connection], T]) -> T:
        """`work` on a connection, once more when the connection broke under it.

        Raises StoreUnavailable.
        """
        try:
            return self._run(work)
        except StoreUnavailable as error:
            if self.breaker.is_open or not _broken(error.__cause__):
                raise
        self.drop()  # after a restart of the server every idle connection is dead
        return self._run(work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        connection = self._take()
        try:
            return self._watched(work, connection)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, ReadOnlySqlTransaction):
                connection.close()  # as after a failover: it leads to a standby now
            raise
        finally:
            self._give_back(connection)

    def _watched(self, work: Callable[[Connection], T], connection: Connection) -> T:
        if self._guard is None:
            return _try(work, connection)
        self._guard.begin(connection)
        try:
            return _try(work, connection)
        except StoreUnavailable as error:
            if not self._guard.has_cut(connection):
                raise
            told = f"no answer within {self._guard.seconds:g} s"
            raise StoreUnavailable(self.name, told) from error.__cause__
        finally:
            self._guard.end(connection)

    def _take(self) -> Connection:
        if not self._places.acquire(timeout=PLACE_TIMEOUT_SECONDS):
            raise StoreUnavailable(self.name, f"all {POOL_SIZE} connections here are in use")
        try:
            connection = self._idle_one() or self._connect()
            if not self._checked:
                self._check(connection)
        except BaseException:
            self._places.release()
            raise
        return connection

    def _idle_one(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> Connection:
        self.breaker.require()
        try:
            connection = psycopg.connect(
                self._url, autocommit=True, prepare_threshold=None, **self._options
            )
        except psycopg.Error as error:
            raise self.breaker.failed(_told(error)) from error
        self._look_at_sessions(connection)
        self.breaker.succeeded()
        return connection

    def _look_at_sessions(self, connection: Connection) -> None:
        shared = self._told_pooled
        if shared is None:
            try:
                shared = self._or_close(is_pooled, connection)
            except StoreUnavailable as error:  # a pooler that has no server is as good as away
                raise self.breaker.failed(error.reason) from error.__cause__
        self.pooled = shared
        if shared:
            self._sharing.add(connection)
        else:
            connection.prepare_threshold = 0

    def _check(self, connection: Connection) -> None:
        self._or_close(check_schema, connection)
        self._checked = True

    def _or_close(self, work: Callable[[Connection], T], connection: Connection) -> T:
        """The answer to a first question: a pooler lets us in also when nothing behind it does."""
        try:
            return self._watched(work, connection)
        except BaseException:
            connection.close()
            raise

    def _give_back(self, connection: Connection) -> None:
        try:
            if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._closed:
                self._idle.append(connection)
            else:  # it broke, or was left within a transaction
                connection.close()
        finally:
            self._places.release()

    def drop(self) -> None:
        """Close all idle connections."""
        while connection := self._idle_one():
            connection.close()

    def close(self) -> None:
        """Close all connections; those in use when they are given back."""
        self._closed = True
        if self._guard is not None:
            self._guard.close()
        self.drop()
        self.breaker.close()


def _broken(error: BaseException | None) -> bool:
    return isinstance(error, _BROKEN) and not isinstance(error, SerializationFailure)


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between us and the process of the server."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the schema of this code."""
    try:
        row = connection.execute(TRUNK_REVISION).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.Error as error:
        raise unavailable(error) from error
    found = row[0] if row else None
    if found is None or found < REQUIRED_REVISION:
        raise SchemaMismatch(
            "postgres",
            f"the database is not migrated (it has {found or 'nothing'}, this code needs "
            f"{REQUIRED_REVISION}): run `idemwatch db upgrade`",
        )
    if found > REQUIRED_REVISION:
        raise SchemaMismatch(
            "postgres",
            f"the database is newer ({found}) than this code ({REQUIRED_REVISION}): upgrade "
            "idemwatch here, or run `idemwatch db downgrade` with the newer version",
        )


def _try(work: Callable[[Connection], T], connection: Connection) -> T:
    for tried in itertools.count(1):
        try:
            return work(connection)
        except SerializationFailure as error:
            if tried == TRIES:
                raise unavailable(error) from error
        except psycopg.DataError as error:  # trying again would not help
            raise InvalidKey(f"PostgreSQL refuses a value: {_told(error)}") from error
        except psycopg.Error as error:
            raise unavailable(error) from error
    raise AssertionError("unreachable")


def unavailable(error: BaseException) -> StoreUnavailable:
    """A driver's error as ours; the text of a failed connection may hold a host, no password."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaMismatch("postgres", "a table is missing: run `idemwatch db upgrade`")
    if isinstance(error, InvalidSqlStatementName | DuplicatePreparedStatement):
        return StoreUnavailable("postgres", f"{_told(error)}; {_POOLED}")
    return StoreUnavailable("postgres", _told(error))


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200] or "no reason given"
    return f"{type(error).__name__}: {text}"
