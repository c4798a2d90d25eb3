"""Where the demo plays: servers of its own, or the user's, and a place of its own in them.

Invariant: in a server that is not ours only a schema and keys of one fresh name are made, and at
the end exactly those are removed; nothing is ever flushed, stopped or frozen there. The broker of
our own is another Redis than the cache, so that an outage of the one is none of the other.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
import redis
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.redis_urls import places_of
from idemwatch.idempotency.settings import Settings
from psycopg import sql

from .processes import uninterrupted
from .servers import PostgresServer, RedisServer

CONNECT_SECONDS: Final = 10
_BATCH: Final = 500
_SETTINGS: Final = ("IDEMWATCH_", "CELERY_", "DEMO_", "FACILITY_")


@dataclass(frozen=True, slots=True)
class Stage:
    """The URLs, the name that everything in them bears, and a folder that ends with the demo.

    `cache`: the Redis behind `redis_url` if it is ours. `facility_schema`: a second schema beside
    that of the URL, for the tables of the facility application.
    """

    redis_url: str
    broker_url: str
    database_url: str
    namespace: str
    folder: Path
    cache: RedisServer | None = None

    @property
    def facility_schema(self) -> str:
        """A name as fresh as the namespace."""
        return _facility_schema(self.namespace)

    @property
    def reports(self) -> Path:
        """The folder of reports."""
        return self.folder / "reports"

    def environment(self, lease_seconds: float, metrics_address: str) -> dict[str, str]:
        """The settings of every service; only a worker uses those of metrics."""
        return {
            "FACILITY_DATABASE_URL": self.database_url,
            "FACILITY_SCHEMA": self.facility_schema,
            "FACILITY_REPORT_FOLDER": str(self.reports),
            "CELERY_BROKER_URL": self.broker_url.replace("unix://", "redis+socket://", 1),
            "IDEMWATCH_REDIS_URL": self.redis_url,
            "IDEMWATCH_DATABASE_URL": self.database_url,
            "IDEMWATCH_NAMESPACE": self.namespace,
            "IDEMWATCH_LEASE": str(lease_seconds),
            "IDEMWATCH_METRICS_ADDRESS": metrics_address,
            "IDEMWATCH_METRICS_DIR": str(self.folder / "metrics"),
        }


def without_settings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (default: our own) without what would change the settings of a service."""
    given = os.environ if environ is None else environ
    return {name: value for name, value in given.items() if not name.startswith(_SETTINGS)}


@contextmanager
def set_stage(settings: Settings) -> Iterator[Stage]:
    """Start servers, or use those of `settings`; at the end leave nothing behind.

    The schema is empty: its tables come by `idemwatch db upgrade`.
    """
    namespace = f"idemwatch-demo-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        with uninterrupted():
            folder = Path(tempfile.mkdtemp(prefix=f"{namespace}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "reports").mkdir()
        cache = None
        if settings.redis_url is None:
            cache = stack.enter_context(_redis(folder))
            redis_url, broker_url = cache.url, stack.enter_context(_redis(folder)).url
        else:
            redis_url = broker_url = stack.enter_context(_keys(settings.redis_url, namespace))
        database_url = stack.enter_context(_database(settings.database_url, namespace, folder))
        yield Stage(redis_url, broker_url, database_url, namespace, folder, cache)


@contextmanager
def _redis(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer.start(directory=folder)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _keys(url: str, namespace: str) -> Iterator[str]:
    """The URL of the user's Redis, in which keys with our name are removed."""
    with _connect_redis(url) as client:
        try:
            yield url
        finally:
            _remove_keys(client, namespace)


def _connect_redis(url: str) -> redis.Redis:
    if places_of(url, "IDEMWATCH_REDIS_URL") is not None:
        raise ConfigurationError(
            "IDEMWATCH_REDIS_URL",
            "the demo's broker needs a single Redis (redis://host/0): give it one, or unset the "
            "variable to have the demo start one",
        )
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
    """The URL with a schema of our own as its search_path; that of the facility goes with it."""
    own = _own_schema(namespace)
    _execute(url, sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(own)))
    try:
        yield with_search_path(url, own)
    finally:
        for name in (_facility_schema(namespace), own):
            _execute(url, sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _own_schema(namespace: str) -> str:
    return namespace.replace("-", "_")


def _facility_schema(namespace: str) -> str:
    return f"{_own_schema(namespace)}_facility"


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
