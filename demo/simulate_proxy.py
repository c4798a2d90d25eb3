"""A TCP relay before a server of ours: the server can be taken away from one side alone.

Invariant: whatever `away` did, connections that are made after `back` pass; what was held while it
hung arrives then.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

_CALL_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 16
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class Relay:
    """A relay on a loopback port of its own, in a thread of its own, until `close`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 0))
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="relay")
        self._thread.start()
        self._call(self._start)

    def url(self, url: str) -> str:
        """The same URL, through the relay."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    def away(self, *, hangs: bool) -> None:
        """From now on nothing answers (`hangs`), or every connection is reset."""
        self._call(self._hang if hangs else self._refuse)

    def back(self) -> None:
        """From now on everything passes."""
        self._call(self._pass)

    def close(self) -> None:
        """End all connections and the thread."""
        self._call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    def _call(self, step: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(step(), self._loop).result(_CALL_SECONDS)

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _hang(self) -> None:
        self._open.clear()

    async def _refuse(self) -> None:
        self._refuses = True
        await self._reset_all()

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _pass(self) -> None:
        self._refuses = False
        self._open.set()

    async def _stop(self) -> None:
        self._server.close()
        await self._refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _may_pass(self, *, requests: bool) -> bool:  # noqa: ARG002  for those that tell
        """Wait until a chunk may pass; False swallows it."""
        await self._open.wait()
        return True

    async def _connected(
        self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(client_in, client_out)
        except (OSError, asyncio.CancelledError):
            _reset(client_out)
        finally:
            self._tasks.discard(task)

    async def _relay(
        self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter
    ) -> None:
        if self._refuses:
            return _reset(client_out)
        server_in, server_out = await asyncio.open_connection(*self._target)
        both = {client_out, server_out}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(client_in, server_out, requests=True),
                self._pump(server_in, client_out, requests=False),
            )
        finally:
            self._writers -= both
            for writer in both:
                writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        """Pass bytes on until the source ends; a target that has gone does not stop us."""
        while data := await _read(source):
            if await self._may_pass(requests=requests) and not target.is_closing():
                target.write(data)
        if not target.is_closing() and target.can_write_eof():
            target.write_eof()


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(_CHUNK)
    except ConnectionError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
