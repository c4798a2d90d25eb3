"""Raw bytes at an endpoint: each connection is answered in HTTP, or hung up on; none ends it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.exporter import endpoint
from idemwatch.exporter.endpoint import Endpoint
from support.fuzz import fuzz
from support.scraping import collect, get

PIECES = st.sampled_from([
    b"GET", b"HEAD", b"POST", b" ", b"/metrics", b"/-/ready", b"/", b"//", b"?a=%00",
    b"http://[::1", b"*", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"\r\n", b"\n", b"\r\n\r\n",
    b"Host: a", b"Authorization: Basic ", b"Authorization: Basic Og==",
    b"Accept: application/openmetrics-text; version=1.0.0", b"Accept: */*;q=x",
    b"Accept-Encoding: gzip;q=", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked",
    b": ", b"\0", b"\xff", b"x" * 5000, b"\r\n folded", b"Expect: 100-continue",
])  # fmt: skip
BYTES = st.binary(max_size=80) | st.lists(PIECES | st.binary(max_size=5), max_size=20).map(b"".join)
"""Requests by halves."""


@pytest.fixture(scope="module", params=["open", "with a password"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    config: Path | None = None
    if request.param != "open":
        config = tmp_path_factory.mktemp("web") / "web.yml"
        config.write_text(
            "basic_auth_users:\n  u: $2y$04$OqSjPPcUMHb7wWZqzQ1vJOr1pCzYsbdl0.Bz6VlQ7SG1OE8Y8PIuK\n"
        )
    started = endpoint.start("127.0.0.1:0", collect=collect, web_config=config)
    yield started
    started.close()


def answer_to(where: Endpoint, sent: bytes) -> bytes:
    """What comes back until the connection ends; all was sent, and no more will be."""
    with socket.create_connection(where.address, timeout=30) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answer:
            return answer.read()


@fuzz(150)
@given(st.lists(BYTES, min_size=1, max_size=8))
def test_any_bytes_are_answered_or_hung_up_on(
    running: Endpoint, caplog: pytest.LogCaptureFixture, requests: list[bytes]
) -> None:
    caplog.set_level(logging.WARNING)
    caplog.clear()
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda sent: answer_to(running, sent), requests))
    for sent, answer in zip(requests, answers, strict=True):
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), sent
        assert b"Traceback" not in answer and b" 500 " not in answer[:20], sent
        assert answer or b"\r\n\r\n" not in sent, f"a whole head was not answered: {sent!r}"
    assert not caplog.records, caplog.text
    assert get(running, "/-/healthy").status == 200
