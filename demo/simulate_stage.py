"""Where a simulation takes place: servers of its own, and two fresh places in them.

Invariants: no server of the user's is ever asked; plain Celery and idemwatch share none of their
data; what an outage takes away is taken from one side alone, and never the ledger or the broker.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idemwatch.idempotency.migrate import upgrade

from .processes import uninterrupted
from .servers import PostgresServer, RedisServer
from .simulate_proxy import Relay
from .simulate_redirect import Servers

PLAIN: Final = "plain"
IDEMWATCH: Final = "idemwatch"
SIDES: Final = (PLAIN, IDEMWATCH)
_MIGRATED: Final = "migrated"


@dataclass(frozen=True, slots=True)
class Place:
    """One side's: its servers, and the relays by which its stores are taken away. `folder`: of the
    whole stage."""

    side: str
    servers: Servers
    relays: dict[str, Relay]
    folder: Path

    @property
    def protected(self) -> bool:
        """Whether this is the side of idemwatch."""
        return self.side == IDEMWATCH


class Stage:
    """The running servers. `place` gives each side its own."""

    def __init__(self, folder: Path, postgres: PostgresServer, redis: RedisServer) -> None:
        self.folder = folder
        self._postgres, self._redis = postgres, redis
        upgrade(postgres.create_database(_MIGRATED))

    @contextmanager
    def place(self, side: str) -> Iterator[Place]:
        """A fresh place, until the block ends."""
        numbers = iter(range(3 * SIDES.index(side), 3 * SIDES.index(side) + 3))
        broker, backend, cache = (self._redis.database(number) for number in numbers)
        database = self._postgres.create_database(f"simulated_{side}", _MIGRATED)
        with ExitStack() as stack:
            relays = {"postgres": Relay(database), "redis": Relay(cache)}
            for relay in relays.values():
                stack.callback(relay.close)
            servers = Servers(
                broker_url=broker,
                backend_url=backend,
                redis_url=relays["redis"].url(cache),
                database_url=relays["postgres"].url(database),
                ledger_url=database,
            )
            yield Place(side, servers, relays, self.folder)


@contextmanager
def set_stage() -> Iterator[Stage]:
    """Start the servers; leave nothing behind. Raises ConfigurationError or ProcessFailed."""
    with ExitStack() as stack:
        with uninterrupted():
            folder = Path(tempfile.mkdtemp(prefix="idemwatch-simulate-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = RedisServer.start(directory=folder)
        stack.callback(redis.stop)
        postgres = PostgresServer.start(directory=folder, durable=False)
        stack.callback(postgres.stop)
        yield Stage(folder, postgres, redis)
