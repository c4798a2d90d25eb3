"""An end, by the clock of this host, for statements that nobody answers.

A server's time-outs and TCP's keepalive end nothing while something answers for TCP and for nobody
else: a frozen server, a pooler or a tunnel that lost what it leads to. Without an end here such a
statement would be waited for until the process is started again, and the heartbeat with it.
Invariant: what is watched is over within a little more than its seconds, whatever the server does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any, Final
from weakref import WeakSet

import psycopg

Connection = psycopg.Connection[Any]

LOOKS: Final = 8
"""Looks within the seconds that an answer may take."""


class AnswerGuard:
    """Cuts off connections whose statement takes longer than `seconds`. Safe among threads."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: dict[Connection, float] = {}
        self._cut: WeakSet[Connection] = WeakSet()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def begin(self, connection: Connection) -> None:
        """Watch it from now on."""
        self._began[connection] = time.monotonic()
        if self._thread is None:
            self._watch()

    def end(self, connection: Connection) -> None:
        """Watch it no more."""
        self._began.pop(connection, None)

    def has_cut(self, connection: Connection) -> bool:
        """Whether this guard cut it off."""
        return connection in self._cut

    def close(self) -> None:
        """End the watch."""
        self._closed.set()

    def _watch(self) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="idemwatch-answers", daemon=True
                )
                self._thread.start()

    def _loop(self) -> None:
        while not self._closed.wait(self.seconds / LOOKS):
            late = time.monotonic() - self.seconds
            for connection, began in list(self._began.items()):
                # Whoever takes the entry out decides: a statement that ended meanwhile is let be.
                if began < late and self._began.pop(connection, None) is not None:
                    self._cut.add(connection)
                    _shut(connection)


def _shut(connection: Connection) -> None:
    """End it under the thread that waits for it, which then sees that it broke."""
    with (
        contextlib.suppress(OSError, psycopg.Error),  # it is closed already
        socket.socket(fileno=os.dup(connection.fileno())) as sock,
    ):
        sock.shutdown(socket.SHUT_RDWR)
