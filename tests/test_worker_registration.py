"""Workers register themselves: the right address, once, and not longer than they live."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter import registration
from idemwatch.exporter.registration import (
    SETTING,
    Registration,
    begin,
    parse_advertised,
    target_of,
)
from idemwatch.exporter.worker_directory_store import Facts, WorkerDirectory
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.redis_link import RedisLink
from support.stores import wait_until
from support.worker import Worker

NAMESPACE = "registered"
SEEN = f"{NAMESPACE}:{{workers}}:seen"
APP = "support.metered_app"
NewWorker = Callable[..., Worker]
needs_worker = pytest.mark.worker


# -- the address -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("web-1", "web-1", None),
        ("web-1.example.org:9912", "web-1.example.org", 9912),
        (" 10.0.0.5 ", "10.0.0.5", None),
        ("10.0.0.5:80", "10.0.0.5", 80),
        ("[2001:db8::1]", "[2001:db8::1]", None),
        ("[::1]:9912", "[::1]", 9912),
    ],
)
def test_host_and_port_are_advertised_as_they_are_given(
    text: str, host: str, port: int | None
) -> None:
    assert parse_advertised(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", ":9912", "host:", "host:0", "host:65536", "http://host", "host/path", "a b", "::1",
        "2001:db8::1", "[::1", "[web-1]", "[::1%eth0]", "user@host", "a,b", "host:x", "x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused_by_the_settings_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{SETTING}: .* is not HOST or HOST:PORT"):
        parse_advertised(text)


def test_an_ipv6_address_without_brackets_is_hinted_at() -> None:
    with pytest.raises(ConfigurationError, match="put an IPv6 address in brackets"):
        parse_advertised("2001:db8::1")


@pytest.mark.parametrize(
    ("advertised", "listens", "target"),
    [
        ("web-1", ("127.0.0.1", 9913), "web-1:9913"),
        ("web-1:80", ("0.0.0.0", 9912), "web-1:80"),
        ("127.0.0.1", ("127.0.0.1", 9914), "127.0.0.1:9914"),
        ("localhost:9", ("127.0.0.1", 9914), "localhost:9"),
        ("[::1]", ("::1", 9914), "[::1]:9914"),
        (None, ("10.0.0.5", 9912), "10.0.0.5:9912"),
        (None, ("2001:db8::1", 9912), "[2001:db8::1]:9912"),
        (None, ("web-1", 9912), "web-1:9912"),
        (None, ("0.0.0.0", 9912), "this-host.example.org:9912"),
        (None, ("::", 9912), "this-host.example.org:9912"),
        (None, ("127.0.0.1", 9912), None),
        (None, ("127.8.8.8", 9912), None),
        (None, ("localhost", 9912), None),
        (None, ("::1", 9912), None),
        (None, ("fe80::1%eth0", 9912), None),
    ],
)  # fmt: skip
def test_others_are_told_where_they_reach_the_worker(
    advertised: str | None,
    listens: tuple[str, int],
    target: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "this-host.example.org")
    assert target_of(advertised, listens) == target


@pytest.mark.parametrize(
    ("host", "bound", "target"),
    [
        ("this-host", "127.0.1.1", None),
        ("this-host", "10.0.0.5", "this-host:1"),
        ("ip6-localhost", "::1", None),
        ("127.1", "127.0.0.1", None),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", None),
        ("0", "0.0.0.0", "web-1:1"),
    ],
)
def test_a_name_that_has_become_a_loopback_address_is_told_to_none(
    host: str, bound: str, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's installer writes `127.0.1.1 this-host` into /etc/hosts."""
    monkeypatch.setattr(socket, "getfqdn", lambda: "web-1")
    assert target_of(None, (host, 1), bound) == target


@pytest.mark.parametrize(
    ("full", "short", "target"),
    [("localhost", "web-1", "web-1:1"), ("localhost", "localhost", None)],
)
def test_a_host_that_knows_no_name_but_localhost_tells_none(
    full: str, short: str, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: full)
    monkeypatch.setattr(socket, "gethostname", lambda: short)
    assert target_of(None, ("0.0.0.0", 1)) == target


# -- the thread ------------------------------------------------------------------------------------


@pytest.fixture
def directory(redis_url: str) -> Iterator[WorkerDirectory]:
    directory = WorkerDirectory(RedisLink.from_url(redis_url), NAMESPACE)
    yield directory
    directory.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def registered(url: str, interval: float = 0.02, facts: Any = None) -> Registration:
    """A registration that comes often."""
    link = RedisLink.from_url(url, timeout_seconds=0.5)
    one = Facts("node", "host:1", "http", 2, "i")
    return Registration(WorkerDirectory(link, NAMESPACE), facts or (lambda: one), interval)


def test_it_registers_again_and_again_until_it_is_stopped(
    redis_url: str, directory: WorkerDirectory, client: redis.Redis
) -> None:
    running = registered(redis_url)
    running.start()
    wait_until(lambda: len(directory.workers()) == 1)
    first = client.zscore(SEEN, "node") or 0
    wait_until(lambda: (client.zscore(SEEN, "node") or 0) > first)
    running.stop()
    assert directory.workers() == []


def test_it_keeps_no_connection_that_a_child_could_inherit(
    redis_url: str, directory: WorkerDirectory, client: redis.Redis
) -> None:
    running = registered(redis_url, interval=60)
    before = len(client.client_list())
    running.start()
    wait_until(lambda: client.zscore(SEEN, "node") is not None)
    wait_until(lambda: len(client.client_list()) == before)
    running.stop()


def test_facts_are_those_of_now(redis_url: str, directory: WorkerDirectory) -> None:
    size = [2]
    running = registered(redis_url, facts=lambda: Facts("node", "h:1", "http", size[0], "i"))
    running.start()
    wait_until(lambda: [one.concurrency for one in directory.workers()] == [2])
    size[0] = 9
    wait_until(lambda: [one.concurrency for one in directory.workers()] == [9])
    running.stop()
    assert directory.workers() == []


def test_it_waits_for_a_redis_that_is_away_and_says_so_once(
    new_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = new_redis()
    url = server.database(0)
    server.kill()
    running = registered(url)
    running.start()
    tried = threading.Event()
    running._directory.register = _noting(running._directory.register, tried, times=20)  # type: ignore[method-assign]
    assert tried.wait(30)
    server.restart()
    directory = WorkerDirectory(RedisLink.from_url(url), NAMESPACE)
    wait_until(lambda: len(directory.workers()) == 1)
    running.stop()
    assert directory.workers() == []
    directory.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "redis is left out for a moment", "redis answers again",
    ]  # fmt: skip


def _noting(call: Callable[[Facts], bool], done: threading.Event, times: int) -> Any:
    left = [times]

    def noted(facts: Facts) -> bool:
        left[0] -= 1
        if left[0] <= 0:
            done.set()
        return call(facts)

    return noted


def test_a_redis_that_refuses_is_told_once_and_tried_again(
    redis_url: str,
    directory: WorkerDirectory,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    client.set(SEEN, "of another type")
    running = registered(redis_url)
    tried = threading.Event()
    running._directory.register = _noting(running._directory.register, tried, times=20)  # type: ignore[method-assign]
    running.start()
    assert tried.wait(30)
    client.delete(SEEN)
    wait_until(lambda: len(directory.workers()) == 1)
    wait_until(lambda: len(caplog.records) == 2)
    running.stop()
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("WARNING", "INFO")
    assert (
        first.message.startswith("this worker is not registered") and SETTING not in first.message
    )


def test_two_workers_of_one_name_are_told_of_it_once_each(
    redis_url: str, directory: WorkerDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> int:
        return caplog.text.count("another worker is named node too")

    one = registered(redis_url, facts=lambda: Facts("node", "one:1", "http", 2, "#1"))
    one.start()
    wait_until(lambda: len(directory.workers()) == 1)
    two = registered(redis_url, facts=lambda: Facts("node", "two:1", "http", 2, "#2"))
    two.start()
    wait_until(lambda: told() == 2)
    tried = threading.Event()
    two._directory.register = _noting(two._directory.register, tried, times=20)  # type: ignore[method-assign]
    assert tried.wait(30)
    assert told() == 2
    two.stop()
    one.stop()


def test_a_worker_that_takes_the_place_of_one_that_died_says_nothing(
    redis_url: str, directory: WorkerDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.register(Facts("node", "host:1", "http", 2, "died"))
    running = registered(redis_url)
    tried = threading.Event()
    running._directory.register = _noting(running._directory.register, tried, times=5)  # type: ignore[method-assign]
    running.start()
    assert tried.wait(30)
    running.stop()
    assert caplog.text == ""


def test_what_goes_wrong_unforeseen_ends_no_registration_and_tells_no_secret(
    redis_url: str, directory: WorkerDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    asked = itertools.count()

    def facts() -> Facts:
        if next(asked) == 0:
            raise RuntimeError("secret")
        return Facts("node", "h:1", "http", 1, "i")

    running = registered(redis_url, facts=facts)
    running.start()
    wait_until(lambda: len(directory.workers()) == 1)
    running.stop()
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text


def test_a_worker_that_has_ended_is_not_registered_by_a_slow_look_at_its_name(
    redis_url: str, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "END_SECONDS", 0.01)
    asked, goes_on = threading.Event(), threading.Event()

    def facts() -> Facts:
        asked.set()
        assert goes_on.wait(30)
        return Facts("node", "h:1", "http", 1, "i")

    running = registered(redis_url, facts=facts)
    running.start()
    assert asked.wait(30)
    running.stop()
    goes_on.set()
    running._thread.join(30)
    assert directory.workers() == []


def test_an_end_while_redis_is_away_is_in_order_all_the_same() -> None:
    running = registered("redis://127.0.0.1:1")
    running.start()
    running.stop()
    assert not running._thread.is_alive()


def test_an_end_while_redis_hangs_takes_seconds(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    directory = WorkerDirectory(RedisLink.from_url(server.url), NAMESPACE)
    running = registered(server.url)
    running.start()
    wait_until(lambda: len(directory.workers()) == 1)
    directory.close()
    server.freeze()
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 10
    server.thaw()


def test_loopback_is_told_once_with_what_to_set(
    redis_url: str, directory: WorkerDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    running = begin(
        redis_url, NAMESPACE, node="n" * 300, advertised=None, listens=("127.0.0.1", 1),
        scheme="http", concurrency=lambda: 3,
    )  # fmt: skip
    wait_until(lambda: len(directory.workers()) == 1)
    assert directory.workers()[0].target is None
    (record,) = [r for r in caplog.records if r.name == registration.__name__]
    assert record.levelname == "INFO" and SETTING in record.message
    running.stop()
