"""A link to PostgreSQL that gives up in time by the clock of this host.

A server's time-outs and TCP's keepalive end nothing while something answers for TCP and for nobody
else: a frozen server, a pooler or a tunnel that lost what it leads to. Without an end here, such a
connection would be waited for until the process is started again.
Invariant: `run` is over within a little more than twice its seconds, whatever the server does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg
from idemwatch.idempotency.postgres_link import Connection, PostgresLink

T = TypeVar("T")

ANSWER_SECONDS: Final = 60.0
"""Longer than a read may take by the server's clock, which ends it better."""


class BoundedLink(PostgresLink):
    """A link for one thread at a time: what takes too long loses its connection."""

    def __init__(self, url: str, seconds: float | None = None) -> None:
        super().__init__(url)
        self._seconds = seconds or ANSWER_SECONDS
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()

    def run(self, work: Callable[[Connection], T]) -> T:
        """As PostgresLink does. Raises StoreUnavailable for what takes too long, too."""
        ended = threading.Event()
        threading.Thread(
            target=self._guard, args=(ended,), name="idemwatch-guard", daemon=True
        ).start()
        try:
            return super().run(work)
        finally:
            ended.set()

    def _connect(self) -> Connection:
        connection = super()._connect()
        self._made.add(connection)
        return connection

    def _guard(self, ended: threading.Event) -> None:
        while not ended.wait(self._seconds):  # the link asks once more, on another connection
            for one in list(self._made):
                with contextlib.suppress(OSError, psycopg.Error):  # it is closed already
                    _shut(one)


def _shut(connection: Connection) -> None:
    """End it under the thread that waits for it, which then sees that it broke."""
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)
