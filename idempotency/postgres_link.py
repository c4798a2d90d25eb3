"""Connections to PostgreSQL: a pool, one retry where a connection broke, one kind of error.

Every statement sent here may be sent twice: claims name their owner, writes their owner and fence.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import SerializationFailure
from psycopg_pool import ConnectionPool, PoolTimeout

from .breaker import Breaker
from .errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from .schema import REQUIRED_REVISION, VERSION_TABLE

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]
T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS: Final = 2
POOL_TIMEOUT_SECONDS: Final = 3.0
POOL_SIZE: Final = 8
TRIES: Final = 10
"""How often a statement runs that met another's commit, under a strict default isolation."""
# A server that is gone without a word is noticed within seconds. No `options`: poolers refuse them.
_KEEPALIVE: Final = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "idemwatch",
}
_BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError)


class PostgresLink:
    """Statements to one database. Safe among threads; make a new one after a fork."""

    name = "postgres"

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ConfigurationError(
                "idempotency_database_url", "not a PostgreSQL URL: postgresql://user@host/database"
            ) from None
        self.breaker = Breaker(self.name)
        self._checked = False
        self._pool = ConnectionPool(
            url,
            kwargs={
                **{k: v for k, v in _KEEPALIVE.items() if k not in given},
                "autocommit": True,
                "prepare_threshold": 0,
            },
            min_size=1,
            max_size=POOL_SIZE,
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=1.0,
            num_workers=1,
            name="idemwatch",
            open=False,
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit mode. Raises StoreUnavailable when there is none."""
        self.breaker.require()
        try:
            self._pool.open()
            connection = self._pool.getconn()
        except (PoolTimeout, psycopg.Error) as error:
            raise self.breaker.failed(_told(error)) from error
        if self.breaker.is_open:
            self.breaker.succeeded()
        try:
            if not self._checked:
                check_schema(connection)
                self._checked = True
            yield connection
        finally:
            self._pool.putconn(connection)

    def run(self, work: Callable[[Connection], T]) -> T:
        """`work` on a connection, once more when the connection broke under it."""
        try:
            return self._run(work)
        except StoreUnavailable as error:
            cause = error.__cause__
            if not isinstance(cause, _BROKEN) or isinstance(cause, SerializationFailure):
                raise
            if self.breaker.is_open:
                raise
        self._replace_broken()
        return self._run(work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self.connection() as connection:
            return _try(work, connection)

    def _replace_broken(self) -> None:
        """After a restart of the server every pooled connection is dead, not only this one."""
        try:
            self._pool.check()
        except psycopg.Error as error:
            log.info("idle connections to PostgreSQL were broken: %s", type(error).__name__)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close(timeout=1.0)


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the schema of this code."""
    try:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
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
        except psycopg.Error as error:
            raise unavailable(error) from error
    raise AssertionError("unreachable")


def unavailable(error: BaseException) -> StoreUnavailable:
    """A driver's error as ours; the text of a failed connection may hold a host, no password."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaMismatch("postgres", "a table is missing: run `idemwatch db upgrade`")
    return StoreUnavailable("postgres", _told(error))


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200] or "no reason given"
    return f"{type(error).__name__}: {text}"
