"""A sentinel that says what a test wants it to, in RESP on a loopback port."""

from __future__ import annotations

import socketserver
import threading
from types import TracebackType


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = [self._word() for _ in range(int(line[1:]))]
            self.server.asked.append(words)
            self.wfile.write(self.server.reply())

    def _word(self) -> str:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2].decode()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.named: tuple[int, tuple[str, int]] = (0, ("127.0.0.1", 1))
        super().__init__(("127.0.0.1", 0), _Handler)

    def reply(self) -> bytes:
        epoch, (host, port) = self.named
        fields = ("name", "m", "ip", host, "port", str(port), "config-epoch", str(epoch))
        told = "".join(f"${len(word)}\r\n{word}\r\n" for word in fields)
        return f"*{len(fields)}\r\n{told}".encode()


class FakeSentinel:
    """Names the master that it is told to, at the epoch that it is told. Use it in `with`."""

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def names(self, epoch: int, address: tuple[str, int]) -> None:
        """From now on."""
        self._server.named = (epoch, address)

    @property
    def place(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def times_asked(self) -> int:
        """How often it was asked for a master."""
        return sum(words[:2] == ["SENTINEL", "MASTER"] for words in self._server.asked)

    def __enter__(self) -> FakeSentinel:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._server.shutdown()
        self._server.server_close()
