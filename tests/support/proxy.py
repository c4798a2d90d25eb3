"""A TCP proxy before a server, that can delay, hold back, swallow and reset what goes through.

It runs in a thread of its own. Each direction has one state; `heal` sets everything right again,
and what was held then arrives, even if its sender has given up and gone meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

DEADLINE_SECONDS = 30.0
_LINGER_RESET = struct.pack("ii", 1, 0)


class Flow(enum.Enum):
    """What happens to the bytes of one direction."""

    PASS = "pass"
    HOLD = "hold"
    DROP = "drop"


class Direction:
    """The state of one direction of all connections. Belongs to the proxy's loop."""

    def __init__(self) -> None:
        self.flow = Flow.PASS
        self.changed = asyncio.Event()

    def become(self, flow: Flow) -> None:
        """Change, and let those that hold look again."""
        self.flow = flow
        self.changed.set()
        self.changed = asyncio.Event()


class TcpProxy:
    """A proxy on a loopback port of its own before `host:port`. Close it, or use it in `with`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.caught = threading.Event()
        """Set when bytes were held or swallowed since the state last changed."""
        self._delay_seconds = 0.0
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._start)

    @classmethod
    def before(cls, url: str) -> TcpProxy:
        """A proxy before the server of a URL."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        return cls(parts.hostname, parts.port)

    def url(self, url: str) -> str:
        """The same URL, through the proxy."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        there = f"127.0.0.1:{self.port}"
        return parts._replace(netloc=f"{login}@{there}" if login else there).geturl()

    def delay(self, seconds: float) -> None:
        """From now on each chunk of bytes takes so much longer, in both directions."""
        self._delay_seconds = seconds

    def hold_requests(self) -> None:
        """Requests arrive only after `heal`."""
        self._become(self._requests, Flow.HOLD)

    def hold_replies(self) -> None:
        """Requests arrive and are carried out; replies arrive only after `heal`."""
        self._become(self._replies, Flow.HOLD)

    def drop_requests(self) -> None:
        """Requests are swallowed for good."""
        self._become(self._requests, Flow.DROP)

    def drop_replies(self) -> None:
        """Requests arrive and are carried out; their replies are swallowed for good."""
        self._become(self._replies, Flow.DROP)

    def blackhole(self) -> None:
        """Both directions are swallowed for good; connections stay open."""
        self._become(self._requests, Flow.DROP)
        self._become(self._replies, Flow.DROP)

    def reset(self) -> None:
        """Reset (RST) every open connection; new ones pass."""
        self._call(self._reset)

    def refuse(self) -> None:
        """Reset every open connection, and every new one, until `heal`."""
        self._refusing = True
        self.reset()

    def heal(self) -> None:
        """Pass everything from now on, and what was held."""
        self._delay_seconds, self._refusing = 0.0, False
        self._become(self._requests, Flow.PASS)
        self._become(self._replies, Flow.PASS)

    def close(self) -> None:
        """End all connections and the thread."""
        self._call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_SECONDS)
        self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _become(self, direction: Direction, flow: Flow) -> None:
        async def change() -> None:
            self.caught.clear()
            direction.become(flow)

        self._call(change)

    def _call(self, step: Callable[[], object]) -> None:
        """Run a coroutine function in the loop, and wait for it."""

        async def run() -> None:
            await step()  # type: ignore[misc]

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_SECONDS)

    async def _start(self) -> None:
        self._requests, self._replies = Direction(), Direction()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

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
        if self._refusing:
            return _reset(client_out)
        server_in, server_out = await asyncio.open_connection(*self._target)
        both = {client_out, server_out}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(client_in, server_out, self._requests),
                self._pump(server_in, client_out, self._replies),
            )
        finally:
            self._writers -= both
            for writer in both:
                writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Pass bytes on until the source ends; a target that has gone does not stop us."""
        while data := await _read(source):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            if await self._may_pass(direction) and not target.is_closing():
                target.write(data)
        if not target.is_closing() and target.can_write_eof():
            target.write_eof()

    async def _may_pass(self, direction: Direction) -> bool:
        while direction.flow is Flow.HOLD:
            changed = direction.changed
            self.caught.set()
            await changed.wait()
        if direction.flow is Flow.DROP:
            self.caught.set()
        return direction.flow is Flow.PASS


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(65536)
    except ConnectionError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
