"""A listening socket and its bounded set of connections, each in a thread of its own.

Invariants: there are never more than `MAX_CONNECTIONS` threads; a connection that waits for its
client (handshake, head, a body that is not read) holds its place only until someone else needs it:
when all places are taken, the one that has waited longest is closed. A forked child closes what it
inherited, or the port would outlive the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
GRACE_SECONDS: Final = 0.25
"""A new connection keeps its place this long: honest ones do not push each other out."""


class Connection:
    """A client's socket, and whether we wait for the client or it waits for us."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.waiting_since: float | None = time.monotonic()

    def waits(self, waiting: bool) -> None:
        self.waiting_since = time.monotonic() if waiting else None

    def close(self) -> None:
        """End it from any thread. `shutdown` comes first: forked children may hold the socket."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own method, which takes the TLS state away under the other thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class Server:
    """Accepts connections and hands each to `handle`, in a thread, until `close`."""

    def __init__(self, listener: socket.socket, handle: Callable[[Connection], None]) -> None:
        self._listener = listener
        self._handle = handle
        self._changed = threading.Condition()
        self._connections: dict[Connection, threading.Thread] = {}
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="idemwatch-web", daemon=True)
        _servers.add(self)

    def start(self) -> None:
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, end all connections, and wait a moment for their threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._changed.notify_all()
            threads = dict(self._connections)
        for connection, thread in threads.items():
            connection.close()
            thread.join(timeout=2)
        self._acceptor.join(timeout=2)
        self._listener.close()

    def forget(self) -> None:
        """In a forked child: close the inherited sockets, and end nobody's connection by it."""
        self._listener.close()
        for connection in list(self._connections):
            socket.socket.close(connection.sock)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():
                    log.warning("cannot accept a connection: %s", error)
                    self._closing.wait(0.2)
                continue
            self._wait_for_place()
            connection = Connection(sock, str(address[0]))
            if self._closing.is_set():
                self._ended(connection)
            else:
                self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        thread = threading.Thread(
            target=self._run, args=(connection,), name="idemwatch-web", daemon=True
        )
        try:
            with self._changed:  # `close` joins what it finds there, so it finds what has started
                thread.start()
                self._connections[connection] = thread
        except RuntimeError as error:
            log.warning("no thread for a connection from %s: %s", connection.peer, error)
            self._ended(connection)

    def _run(self, connection: Connection) -> None:
        try:
            self._handle(connection)
        except OSError as error:
            log.debug("connection from %s ended: %s", connection.peer, error)
        except Exception:
            log.exception("connection from %s failed", connection.peer)
        finally:
            self._ended(connection)

    def _ended(self, connection: Connection) -> None:
        connection.close()
        connection.sock.close()
        with self._changed:
            self._connections.pop(connection, None)
            self._changed.notify_all()

    def _wait_for_place(self) -> None:
        with self._changed:
            while len(self._connections) >= MAX_CONNECTIONS and not self._closing.is_set():
                self._changed.wait(self._end_longest_waiting())

    def _end_longest_waiting(self) -> float:
        """End one if it is due, and give the seconds after which to look again."""
        since = [(c.waiting_since, c) for c in self._connections if c.waiting_since is not None]
        if not since:
            return GRACE_SECONDS
        waiting_since, longest = min(since, key=lambda pair: pair[0])
        left = GRACE_SECONDS - (time.monotonic() - waiting_since)
        if left > 0:
            return left
        longest.waits(False)  # it is ended once; its thread then gives up the place
        longest.close()
        return GRACE_SECONDS


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _forked() -> None:
    for server in list(_servers):
        server.forget()
    _servers.clear()


os.register_at_fork(after_in_child=_forked)
