"""The servers that all sites of a comparison share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from idemwatch.demo.servers import PostgresServer, RedisServer


class Stopped(Exception):
    """The comparison was interrupted."""


@dataclass(frozen=True)
class Servers:
    """What all sites share."""

    calm: RedisServer
    stores: RedisServer
    postgres: PostgresServer
    folder: Path
    stop: threading.Event


@contextmanager
def open_servers(folder: Path) -> Iterator[Servers]:
    """Two Redis servers and a PostgreSQL."""
    with ExitStack() as stack:
        calm, stores = RedisServer.start(), RedisServer.start()
        stack.callback(calm.stop)
        stack.callback(stores.stop)
        postgres = PostgresServer.start(durable=False)
        stack.callback(postgres.stop)
        yield Servers(calm, stores, postgres, folder, threading.Event())
