"""The servers of a run: a broker and a ledger that nothing harms, and the stores that are harmed.

Invariant: all of them were started here; nothing else is ever killed, frozen or emptied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import psycopg
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.migrate import upgrade

from .ledger import EFFECTS, SCHEMA

DEBIAN_REDIS: Final = Path("/usr/bin/redis-server")
DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
DURABLE_REDIS: Final = {"appendonly": "yes", "appendfsync": "no"}
"""What was answered survives a kill of the process: it was handed to the kernel before."""
FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class RedisSite(Protocol):
    """A Redis of some topology. What loses data says so by its answer."""

    proxied: bool
    """Whether one address is all of it, so that a proxy can stand before it."""

    @property
    def url(self) -> str:
        """As idempotency_redis_url."""

    def data_urls(self) -> list[str]:
        """Servers that together hold all records."""

    def kill(self) -> bool:
        """SIGKILL to it, or to a part of it; whether data may be lost by it."""

    def freeze(self) -> bool:
        """SIGSTOP; whether data may be lost by it."""

    def fail_over(self) -> bool:
        """Lose the last writes with a failover, where there can be one, else as `kill`."""

    def heal(self) -> None:
        """Set right what was done to it."""

    def empty(self) -> None:
        """Remove everything."""


@dataclass
class SingleRedis:
    """One server, whose data survives its death."""

    server: RedisServer
    proxied: bool = True
    _killed: bool = False

    @property
    def url(self) -> str:
        """The server's."""
        return self.server.url

    def data_urls(self) -> list[str]:
        """The one."""
        return [self.server.url]

    def kill(self) -> bool:
        """Until `heal` nothing answers."""
        self.server.kill()
        self._killed = True
        return False

    def freeze(self) -> bool:
        """Until `heal` nothing answers, and connections stay."""
        self.server.freeze()
        return False

    def fail_over(self) -> bool:
        """There is nothing to fail over to."""
        return self.kill()

    def heal(self) -> None:
        """Start or thaw it."""
        if self._killed:
            self.server.restart(empty=False)
            self._killed = False
        else:
            self.server.thaw()

    def empty(self) -> None:
        """FLUSHALL, at the very process that was started here."""
        with redis.Redis.from_url(self.url, socket_timeout=10) as client:
            if client.info("server")["process_id"] != self.server.pid:
                raise RuntimeError("another server answers at our port: it is not emptied")
            client.flushall()


@dataclass
class Site:
    """All servers of a run, those of a topology made when first needed."""

    folder: Path
    broker: RedisServer
    ledger_url: str
    postgres: PostgresServer
    stack: ExitStack
    _redis: dict[str, RedisSite] = field(default_factory=dict)

    def redis(self, topology: str) -> RedisSite:
        """The Redis of a topology."""
        if topology not in self._redis:
            self._redis[topology] = self._open(topology)
        return self._redis[topology]

    def _open(self, topology: str) -> RedisSite:
        if topology == "single":
            server = RedisServer.start(binary=redis_program(), config=DURABLE_REDIS)
            self.stack.callback(server.stop)
            return SingleRedis(server)
        from .topologies import open_topology

        return self.stack.enter_context(open_topology(topology, redis_program()))

    def broker_url(self, number: int) -> str:
        """An empty database of the broker."""
        url = self.broker.database(number % 256)
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Start what every round needs; all is ended with it."""
    with ExitStack() as stack:
        broker = RedisServer.start(binary=redis_program())
        stack.callback(broker.stop)
        ledger = PostgresServer.start(bindir=postgres_programs(), durable=False)
        stack.callback(ledger.stop)
        postgres = PostgresServer.start(bindir=postgres_programs(), durable=False)
        stack.callback(postgres.stop)
        upgrade(postgres.url)
        _execute(postgres.url, EFFECTS)
        _execute(ledger.url, SCHEMA)
        yield Site(folder, broker, ledger.url, postgres, stack)


def _execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements)


def redis_program() -> Path | None:
    """Debian's redis-server where there is one; None for the embedded one."""
    return DEBIAN_REDIS if _debian() and DEBIAN_REDIS.exists() else None


def postgres_programs() -> Path | None:
    """Debian's PostgreSQL where there is one; None for the embedded one."""
    return DEBIAN_POSTGRES if _debian() and DEBIAN_POSTGRES.exists() else None


def _debian() -> bool:
    return os.environ.get("IDEMWATCH_TEST_SERVERS", "debian") == "debian"
