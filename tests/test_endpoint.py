"""The endpoint over real sockets: routes, formats, TLS, passwords, clients that never finish."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
from idemwatch.exporter import connections, endpoint
from idemwatch.exporter.addresses import format_address, listen, parse_address
from idemwatch.exporter.requests import Answer
from idemwatch.idempotency.errors import ConfigurationError
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.scraping import Start, get
from support.stores import wait_until

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_metrics_in_the_text_format(start: Start) -> None:
    got = get(start(), "/metrics?x=1")
    assert got.status == 200
    assert got.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    (family,) = parse_text(got.body.decode())
    assert sum(sample.value for sample in family.samples) == sum(range(50))


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=1.x",
        "text/plain; version=,",
        "text/plain; version=; escaping=none",
        "\xff;;;q=",
    ],
)
def test_an_odd_wish_for_a_format_is_answered(
    start: Start, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    got = get(start(), "/metrics", {"Accept": accept})
    assert got.status == 200 and b"test_things_total" in got.body
    assert caplog.text == ""


def test_metrics_in_openmetrics_when_asked(start: Start) -> None:
    got = get(start(), "/metrics", OPENMETRICS)
    assert got.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    (family,) = parse_openmetrics(got.body.decode())  # type: ignore[no-untyped-call]
    assert family.type == "counter"
    assert len(family.samples) == 50


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("gzip;q=0", False), ("", False)],
)
def test_gzip_when_asked(start: Start, accepted: str, zipped: bool) -> None:
    got = get(start(), "/metrics", {"Accept-Encoding": accepted})
    assert (got.headers["Content-Encoding"] == "gzip") is zipped
    assert b"test_things" in (gzip.decompress(got.body) if zipped else got.body)


def test_landing_page_links_to_all_there_is(start: Start) -> None:
    extra = {"/sd": ("targets", lambda _: Answer(HTTPStatus.OK, b"[]", "application/json"))}
    running = start(routes=extra, title="a <title>")
    got = get(running, "/")
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("/metrics", "/-/healthy", "/-/ready", "/sd"):
        assert f'href="{path}"'.encode() in got.body
        assert get(running, path).status == 200
    assert b"a &lt;title&gt;" in got.body


def test_other_paths_and_methods_are_refused(start: Start) -> None:
    running = start()
    assert get(running, "/metrics/").status == 404
    assert get(running, "/../etc/passwd").status == 404
    got = get(running, "/metrics", method="POST")
    assert (got.status, got.headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_alone(start: Start) -> None:
    running = start()
    whole, head = get(running, "/metrics"), get(running, "/metrics", method="HEAD")
    assert head.status == 200
    assert head.body == b""
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


def test_an_unread_body_does_not_lose_the_answer(start: Start) -> None:
    running = start()
    with socket.create_connection(running.address, timeout=30) as sock:
        sock.sendall(b"POST /metrics HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000)
        with sock.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 405")


def test_readiness_names_the_problems(start: Start) -> None:
    problems = ["redis is away", "the database is not migrated"]
    running = start(ready=lambda: problems)
    got = get(running, "/-/ready")
    assert got.status == 503
    assert got.body.decode().splitlines() == problems
    assert get(running, "/-/healthy").status == 200
    assert get(start(), "/-/ready").status == 200


def test_a_flood_of_probes_asks_the_stores_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "READY_AGE_SECONDS", 600.0)
    asked: list[None] = []

    def ready() -> list[str]:
        asked.append(None)
        return []

    running = start(ready=ready)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: get(running, "/-/ready").status, range(20)))
    assert answers == [200] * 20
    assert len(asked) == 1


def test_a_look_that_hangs_makes_the_next_probe_unready(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "READY_SECONDS", 0.05)
    asked, done = threading.Event(), threading.Event()

    def ready() -> list[str]:
        asked.set()
        done.wait(30)
        return []

    running = start(ready=ready)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(get, running, "/-/ready")
        assert asked.wait(30)
        assert get(running, "/-/ready").status == 503
        done.set()
        assert first.result(30).status == 200


def test_a_failure_is_told_without_its_text(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> list[Metric]:
        raise RuntimeError("password=hunter2")

    running = start(collect=fails, ready=fails)
    for path, status in (("/metrics", 500), ("/-/ready", 503)):
        got = get(running, path)
        assert got.status == status
        assert b"hunter2" not in got.body
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"GET http://[bad HTTP/1.1\r\n\r\n", b"400"),
        (b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, b"431"),
        (b"GET http://host/-/healthy HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_any_head_is_answered(start: Start, head: bytes, status: bytes) -> None:
    with socket.create_connection(start().address, timeout=30) as sock:
        sock.sendall(head)
        with sock.makefile("rb") as answer:
            assert answer.readline().split()[1] == status


def test_half_open_clients_do_not_delay_a_scrape(start: Start) -> None:
    running = start()
    with contextlib.ExitStack() as stack:
        for number in range(50):
            sock = stack.enter_context(socket.create_connection(running.address, timeout=30))
            sock.sendall(b"GET /metrics HTTP/1.1\r\n"[: number % 24])
        began = time.monotonic()
        assert get(running, "/metrics").status == 200
        assert time.monotonic() - began < 3


def test_more_half_open_clients_than_places_lose_theirs(start: Start) -> None:
    running = start()
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(running.address, timeout=30))
            for _ in range(connections.MAX_CONNECTIONS + 10)
        ]
        assert get(running, "/metrics").status == 200
        assert socks[0].recv(1) == b"", "the one that waited longest was ended"
        assert len(_serving()) <= connections.MAX_CONNECTIONS + 1


def _serving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "idemwatch-web"]


def test_a_dripping_head_has_one_deadline(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HEAD_SECONDS", 0.3)
    pause = threading.Event()
    with socket.create_connection(start().address, timeout=30) as sock:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 20:
                sock.sendall(b"x")
                pause.wait(0.05)
        assert time.monotonic() - began < 10


def test_fifty_scrapes_at_once_are_all_answered(start: Start) -> None:
    running = start()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: get(running, "/metrics").body, range(50)))
    assert len(set(answers)) == 1
    assert b"test_things" in answers[0]


def test_a_forked_child_does_not_keep_the_port(start: Start) -> None:
    running = start()
    assert get(running, "/metrics").status == 200
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        running.close()
        again = start(format_address(running.address))
        assert get(again, "/metrics").status == 200
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def test_close_ends_everything(start: Start) -> None:
    running = start()
    with socket.create_connection(running.address, timeout=30) as sock:
        wait_until(lambda: len(_serving()) >= 2)
        running.close()
        assert sock.recv(1) == b""
    wait_until(lambda: not _serving())
    with pytest.raises(OSError):
        socket.create_connection(running.address, timeout=5)


def test_close_waits_for_a_connection_that_is_being_taken_in(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, pause = threading.Event(), threading.Event()

    class Slow(threading.Thread):
        def start(self) -> None:
            starting.set()
            pause.wait(0.3)  # so long, `close` finds a thread that has not begun
            super().start()

    running = start()
    monkeypatch.setattr("idemwatch.exporter.connections.threading.Thread", Slow)
    with socket.create_connection(running.address, timeout=30) as sock:
        assert starting.wait(30)
        running.close()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    wait_until(lambda: not _serving())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9912", ("127.0.0.1", 9912)),
        (":9912", ("127.0.0.1", 9912)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9912", ("::1", 9912)),
        ("worker.example:65535", ("worker.example", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("9912", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        ("localhost:http", "HOST:PORT"),
        ("::1:9912", "brackets"),
        ("localhost:70000", "above 65535"),
        ("localhost:-1", "HOST:PORT"),
        ("http://localhost:1", "HOST:PORT"),
        ("", "HOST:PORT"),
    ],
)
def test_wrong_addresses_are_explained(text: str, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted) as caught:
        parse_address(text, "idempotency_metrics_address")
    assert str(caught.value).startswith("idempotency_metrics_address: ")


def test_a_port_in_use_is_an_error_that_names_it(start: Start) -> None:
    taken = format_address(start().address)
    with pytest.raises(ConfigurationError, match=f"{taken} is in use; end what listens"):
        start(taken)


def test_the_next_free_port_is_taken_and_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start()
    second = start(format_address(first.address), further=100)
    assert first.address[1] < second.address[1] <= first.address[1] + 100
    assert f"listening on {second.address[1]}" in caplog.text
    assert get(second, "/metrics").status == 200


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_host_is_an_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen on {host}:9912"):
        listen((host, 9912))


def test_ipv6(start: Start) -> None:
    running = start("[::1]:0")
    assert running.url == f"http://[::1]:{running.address[1]}"
    assert get(running, "/metrics").status == 200
