"""One HTTP exchange, as far as an endpoint needs it: read a request head, write an answer.

Invariant: the whole head has one deadline and one size, however slowly its bytes drip in.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

HEAD_SECONDS: Final = 5.0
SEND_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0
MAX_HEAD: Final = 16 * 1024
GZIP_FROM: Final = 512


class BadRequest(Exception):
    """The head is no HTTP that we answer; `status` says why."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status
        super().__init__(status.phrase)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Message

    def header(self, name: str) -> str | None:
        value: str | None = self.headers.get(name)
        return value

    @property
    def gzip(self) -> bool:
        for token in (self.header("Accept-Encoding") or "").split(","):
            coding, _, weight = token.strip().partition(";")
            if coding.strip().lower() == "gzip":
                return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = field(default=())

    @classmethod
    def text(cls, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Answer:
        return cls(status, f"{text}\n".encode(), headers=headers)


def read_request(sock: socket.socket, deadline: float) -> Request:
    """The request's head; its body, if any, is not read. `deadline` is of the monotonic clock."""
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_HEAD:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request's head took too long")
        sock.settimeout(left)
        received = sock.recv(4096)
        if not received:
            raise ConnectionError("the client went away before its request was complete")
        head += received
    return _parse(head.partition(b"\r\n\r\n")[0])


def _parse(head: bytes) -> Request:
    line, _, rest = head.decode("latin-1").partition("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    try:
        path = urlsplit(words[1]).path
    except ValueError:
        raise BadRequest(HTTPStatus.BAD_REQUEST) from None
    return Request(words[0], path, Parser().parsestr(rest, headersonly=True))


def send_answer(
    sock: socket.socket,
    answer: Answer,
    request: Request | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> None:
    """Write the answer, compressed if the client takes it. The connection ends with it."""
    headers = [("Content-Type", answer.content_type), ("Connection", "close")]
    headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    body = answer.body
    if request and request.gzip and len(body) >= GZIP_FROM:
        body = gzip.compress(body, compresslevel=5)
        headers.append(("Content-Encoding", "gzip"))
    headers += [("Vary", "Accept, Accept-Encoding"), ("Content-Length", str(len(body)))]
    merged = {name.lower(): (name, value) for name, value in (*headers, *answer.headers, *extra)}
    status = f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"
    head = "\r\n".join([status, *(f"{name}: {value}" for name, value in merged.values()), "", ""])
    sock.settimeout(SEND_SECONDS)
    without_body = request is not None and request.method == "HEAD"
    sock.sendall(head.encode("latin-1") + (b"" if without_body else body))
    _linger(sock)


def _linger(sock: socket.socket) -> None:
    """Read what the client still sends: to close before would reset the answer on its way."""
    deadline = time.monotonic() + LINGER_SECONDS
    raw = socket.socket  # below TLS, whose own methods would answer or take its state away
    with contextlib.suppress(OSError):
        raw.shutdown(sock, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not raw.recv(sock, 65536):
                return
