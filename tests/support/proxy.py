"""A TCP proxy before a server, that can delay, hold back, swallow and reset what goes through.

It runs in a thread of its own. Each direction has one state; `heal` sets everything right again,
and what was held then arrives, even if its sender has given up and gone meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from types import TracebackType

from idemwatch.demo.simulate_proxy import Relay


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


class TcpProxy(Relay):
    """A proxy on a loopback port before the server of a URL. Close it, or use it in `with`."""

    def __init__(self, url: str) -> None:
        self.caught = threading.Event()
        """Set when bytes were held or swallowed since the state last changed."""
        self._delay_seconds = 0.0
        super().__init__(url)

    @classmethod
    def before(cls, url: str) -> TcpProxy:
        """A proxy before the server of a URL."""
        return cls(url)

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
        self._call(self._reset_all)

    def refuse(self) -> None:
        """Reset every open connection, and every new one, until `heal`."""
        self._call(self._refuse)

    def heal(self) -> None:
        """Pass everything from now on, and what was held."""
        self._delay_seconds = 0.0
        self._call(self._pass)
        self._become(self._requests, Flow.PASS)
        self._become(self._replies, Flow.PASS)

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

    async def _start(self) -> None:
        self._requests, self._replies = Direction(), Direction()
        await super()._start()

    async def _may_pass(self, *, requests: bool) -> bool:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        direction = self._requests if requests else self._replies
        while direction.flow is Flow.HOLD:
            changed = direction.changed
            self.caught.set()
            await changed.wait()
        if direction.flow is Flow.DROP:
            self.caught.set()
        return direction.flow is Flow.PASS
