"""Where the demo plays: servers of its own, or the user's, and a place of its own in them.

Invariant: in a server that is not ours only a schema and keys of one fresh name are made, and at
the end exactly those are removed; nothing is ever flushed.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
import redis
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings
from psycopg import sql

from .processes import uninterrupted
from .servers import PostgresServer, RedisServer

CONNECT_SECONDS: Final = 10
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Stage:
    """The URLs, the name that everything in them bears, and a folder that ends with the demo."""

    redis_url: str
    database_url: str
    namespace: str
    folder: Path

    def environment(self, lease_seconds: float, metrics_address: str) -> dict[str, str]:
        """The settings of the worker."""
        return {
            "IDEMWATCH_REDIS_URL": self.redis_url,
            "IDEMWATCH_DATABASE_URL": self.database_url,
            "IDEMWATCH_NAMESPACE": self.namespace,
            "IDEMWATCH_LEASE": str(lease_seconds),
            "IDEMWATCH_METRICS_ADDRESS": metrics_address,
            "IDEMWATCH_METRICS_DIR": str(self.folder / "metrics"),
        }


@contextmanager
def set_stage(settings: Settings) -> Iterator[Stage]:
    """Start servers, or use those of `settings`; migrate; at the end leave nothing behind."""
    namespace = f"idemwatch-demo-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        with uninterrupted():
            folder = Path(tempfile.mkdtemp(prefix=f"{namespace}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis_url = stack.enter_context(_redis(settings.redis_url, namespace, folder))
        database_url = stack.enter_context(_database(settings.database_url, namespace, folder))
        yield Stage(redis_url, database_url, namespace, folder)


@contextmanager
def _redis(url: str | None, namespace: str, folder: Path) -> Iterator[str]:
    if url is None:
        server = RedisServer.start(directory=folder)
        try:
            yield server.url
        finally:
            server.stop()
        return
    with _connect_redis(url) as client:
        try:
            yield url
        finally:
            _remove_keys(client, namespace)


def _connect_redis(url: str) -> redis.Redis:
    client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS)
    try:
        client.ping()
    except redis.RedisError as error:
        raise ConfigurationError(
            "IDEMWATCH_REDIS_URL",
            f"cannot be used ({error}): start that Redis, correct the URL, or unset the variable "
            "to have the demo start one",
        ) from error
    return client


def _remove_keys(client: redis.Redis, namespace: str) -> None:
    keys = list(client.scan_iter(match=f"*{namespace}*", count=_BATCH))
    for first in range(0, len(keys), _BATCH):
        client.unlink(*keys[first : first + _BATCH])


@contextmanager
def _database(url: str | None, namespace: str, folder: Path) -> Iterator[str]:
    if url is None:
        server = PostgresServer.start(directory=folder)
        try:
            with _schema(server.url, namespace) as own:
                yield own
        finally:
            server.stop()
        return
    with _schema(url, namespace) as own:
        yield own


@contextmanager
def _schema(url: str, namespace: str) -> Iterator[str]:
    """The URL with a schema of our own, migrated, as its search_path."""
    from idemwatch.idempotency.migrate import upgrade

    name = sql.Identifier(namespace.replace("-", "_"))
    _execute(url, sql.SQL("CREATE SCHEMA {}").format(name))
    try:
        own = with_search_path(url, namespace.replace("-", "_"))
        upgrade(own)
        yield own
    finally:
        _execute(url, sql.SQL("DROP SCHEMA {} CASCADE").format(name))


def _execute(url: str, statement: sql.Composed) -> None:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            connection.execute(statement)
    except psycopg.OperationalError as error:
        raise ConfigurationError(
            "IDEMWATCH_DATABASE_URL",
            f"cannot be used ({str(error).strip()}): start that PostgreSQL, correct the URL, or "
            "unset the variable to have the demo start one",
        ) from error


def with_search_path(url: str, schema: str) -> str:
    """The URL, with `schema` in front of what its sessions see."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -csearch_path={schema}".strip()
    return parts._replace(query=urlencode(query, quote_via=quote)).geturl()
