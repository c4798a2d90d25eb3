"""The servers that a run measures on, and what one bench makes on them.

Each bench begins with an empty Redis, and nothing of the bench before it runs any more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final

import psycopg
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.migrate import upgrade
from idemwatch.idempotency.redis_link import TIMEOUT_SECONDS
from idemwatch.idempotency.settings import Settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from .progress import Progress

BENCH_SECONDS: Final = 35.0
"""After so long a bench is content with the turns it has had: all of them end in ten minutes."""
FEWEST_TURNS: Final = 5


class Servers:
    """A real Redis and a real, durable PostgreSQL of the run's own, started when first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @cached_property
    def redis_url(self) -> str:
        """An empty Redis."""
        server = RedisServer.start()
        self._stack.callback(server.stop)
        return server.url

    @cached_property
    def postgres(self) -> PostgresServer:
        """A PostgreSQL whose commits are flushed as its default has it."""
        server = PostgresServer.start(durable=True)
        self._stack.callback(server.stop)
        return server

    @cached_property
    def database_url(self) -> str:
        """A migrated database there."""
        upgrade(self.postgres.url)
        return self.postgres.url


class Lab:
    """What one bench works with; all of it ends with the bench."""

    def __init__(self, servers: Servers, progress: Progress) -> None:
        self._servers, self._progress = servers, progress
        self.stack = ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def turns(self, turns: int, *, seconds: float = BENCH_SECONDS) -> Iterator[int]:
        """0, 1, 2 ...: `turns` of them, or what there is time for; shown as progress."""
        end = time.monotonic() + seconds
        for turn in range(turns):
            if turn >= FEWEST_TURNS and time.monotonic() > end:
                return
            yield turn
            self._progress.turn(turn + 1, turns)

    @cached_property
    def redis_url(self) -> str:
        """A Redis that is empty when the bench begins."""
        url = self._servers.redis_url
        with redis.Redis.from_url(url) as client:
            client.flushall()
        return url

    @property
    def database_url(self) -> str:
        """A migrated database."""
        return self._servers.database_url

    @property
    def postgres(self) -> PostgresServer:
        """The server of all databases here."""
        return self._servers.postgres

    def new_database(self, name: str) -> str:
        """A migrated database of the bench's own, dropped after it."""
        url = self._servers.postgres.create_database(name)
        self.stack.callback(self._servers.postgres.drop_database, name)
        upgrade(url)
        return url

    @cached_property
    def client(self) -> redis.Redis:
        """redis-py's client, with hiredis and with the socket options of our own connections."""
        client = redis.Redis.from_url(
            self.redis_url,
            protocol=2,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        self.stack.callback(client.close)
        return client

    @cached_property
    def connection(self) -> psycopg.Connection[tuple[object, ...]]:
        """A bare connection to PostgreSQL."""
        connection = psycopg.connect(self.database_url, autocommit=True)
        self.stack.callback(connection.close)
        return connection

    @cached_property
    def folder(self) -> Path:
        """For logs and slot files."""
        return Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="idemwatch-bench-"))
        )

    def engine(self, *, redis_too: bool = False, database: bool = False) -> Engine:
        """An engine on some of the servers."""
        settings = Settings(
            redis_url=self.redis_url if redis_too else None,
            database_url=self.database_url if database else None,
        )
        engine = Engine(settings)
        self.stack.callback(engine.close)
        return engine
