"""The servers that the demo and the tests start: ours, restartable, and gone when we are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from idemwatch.demo import postgres_server, redis_server
from idemwatch.demo.processes import descendants, free_port
from idemwatch.demo.servers import PostgresServer, ProcessFailed, RedisServer
from idemwatch.demo.unprivileged import NOBODY, Identity, unprivileged
from idemwatch.idempotency.errors import ConfigurationError
from support.proxy import TcpProxy

DEADLINE_SECONDS = 30.0
NewRedis = Callable[..., RedisServer]
NewPostgres = Callable[..., PostgresServer]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask until it holds, for no longer than the deadline."""
    pause = threading.Event()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def connected(url: str, socket_timeout: float | None = None) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=socket_timeout)


def test_redis_at_the_url_is_the_child(new_redis: NewRedis) -> None:
    server = new_redis()
    with connected(server.url) as client:
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("bind")["bind"] == "127.0.0.1"


def test_redis_takes_config_and_password(new_redis: NewRedis) -> None:
    server = new_redis(config={"requirepass": "secret", "maxmemory-policy": "allkeys-lru"})
    with connected(server.url) as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
    with (
        connected(server.url.replace(":secret@", "")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize("empty", [True, False])
def test_redis_restarts_on_its_port_with_or_without_data(new_redis: NewRedis, empty: bool) -> None:
    server = new_redis()
    with connected(server.url) as client:
        client.set("kept", "yes")
    before = server.pid, server.url
    server.restart(empty=empty)
    assert server.pid != before[0] and server.url == before[1]
    with connected(server.url) as client:
        assert client.get("kept") == (None if empty else b"yes")


def test_killed_redis_leaves_a_closed_port_until_restart(new_redis: NewRedis) -> None:
    server = new_redis()
    server.kill()
    with connected(server.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.restart()
    with connected(server.url) as client:
        assert client.ping()


def test_frozen_redis_answers_after_thaw(new_redis: NewRedis) -> None:
    server = new_redis()
    with connected(server.url, socket_timeout=0.2) as client:
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.thaw()
    with connected(server.url) as client:
        assert client.ping()


def test_redis_stop_removes_its_folder(tmp_path: Path) -> None:
    server = RedisServer.start(directory=tmp_path)
    pid = server.pid
    assert list(tmp_path.iterdir())
    server.stop()
    assert not list(tmp_path.iterdir()) and not alive(pid)


def test_taken_port_is_given_up_for_another(
    new_redis: NewRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_redis()
    ports = [first.port, free_port()]
    monkeypatch.setattr(redis_server, "free_port", lambda: ports.pop(0))
    second = new_redis()
    assert second.port != first.port and not ports


def test_taken_port_is_given_up_for_another_by_postgres(
    new_redis: NewRedis, new_postgres: NewPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [new_redis().port, free_port()]
    monkeypatch.setattr(postgres_server, "free_port", lambda: ports.pop(0))
    server = new_postgres()
    with psycopg.connect(server.url) as connection:
        assert connection.info.port == server.port


def test_failed_start_shows_the_log_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="Bad directive") as failure:
        RedisServer.start(directory=tmp_path, config={"no-such-option": "1"})
    assert "redis" in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_missing_binaries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="IDEMWATCH_REDIS_URL"):
        redis_server.redis_binary()
    with pytest.raises(ConfigurationError, match="IDEMWATCH_DATABASE_URL"):
        postgres_server.postgres_bindir()


def test_postgres_listens_on_loopback_for_its_password_only(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
        assert connection.execute("SHOW max_connections").fetchone() == ("200",)
    guessed = server.url.replace("://idemwatch:", "://idemwatch:x")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(guessed)


def test_postgres_keeps_its_data_over_kill_and_restart(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)
    server.restart()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_frozen_postgres_answers_after_thaw(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    answers: list[object] = []
    with psycopg.connect(server.url, autocommit=True) as connection:
        server.freeze()
        asking = threading.Thread(
            target=lambda: answers.append(connection.execute("SELECT 1").fetchone())
        )
        asking.start()
        asking.join(0.2)
        assert not answers
        server.thaw()
        asking.join(DEADLINE_SECONDS)
    assert answers == [(1,)]


def test_databases_are_made_from_a_template_and_dropped(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    with psycopg.connect(server.create_database("first")) as connection:
        connection.execute("CREATE TABLE copied (number int)")
    with psycopg.connect(server.create_database("second", template="first")) as connection:
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (0,)
    server.drop_database("second")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(server.database("second"))


def test_postgres_never_runs_as_root(new_postgres: NewPostgres) -> None:
    identity = unprivileged()
    assert bool(identity.prefix or identity.uid) == (os.geteuid() == 0)


def test_without_namespaces_root_becomes_nobody(
    new_postgres: NewPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also when nobody may not read the binaries where they are (a clone in /root)."""
    nobody = Identity(uid=NOBODY) if os.geteuid() == 0 else Identity()
    monkeypatch.setattr(postgres_server, "unprivileged", lambda: nobody)
    monkeypatch.setattr("idemwatch.demo.unprivileged._open_to_others", lambda _path: False)
    server = new_postgres()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert Path(f"/proc/{server.pid}").stat().st_uid == (NOBODY if nobody.uid else os.geteuid())


ORPHANS = """
import os, sys
from idemwatch.demo.servers import PostgresServer, RedisServer
servers = RedisServer.start(directory=sys.argv[1]), PostgresServer.start(directory=sys.argv[1])
print(*(server.pid for server in servers), flush=True)
sys.stdin.read()
"""


def test_servers_and_folders_end_with_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        servers = [int(word) for word in parent.stdout.readline().split()]
        pids: list[int] = []

        def settled() -> bool:
            """Whether all are alive that are seen: a server that starts has passing children."""
            pids[:] = [*servers, *(child for pid in servers for child in descendants(pid))]
            return all(alive(pid) for pid in pids)

        wait_until(settled)
        assert len(pids) > 2
        os.killpg(parent.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids) and not list(tmp_path.iterdir()))


STUBBORN = """
import os, subprocess, sys
from pathlib import Path
from idemwatch.demo.processes import Child
deaf = "trap '' QUIT; echo deaf; sleep 300 & wait; sleep 300"
child = Child("deaf", ["/bin/sh", "-c", deaf], folder=Path(sys.argv[1]))
child.wait_until(lambda: "deaf" in child.log.read_text(), 30, "it was deaf")
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_that_heeds_no_quit_ends_with_a_killed_parent(tmp_path: Path) -> None:
    folder = tmp_path / "child"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pids = [pid, *descendants(pid)]
        assert len(pids) > 1 and all(alive(one) for one in pids)
        os.killpg(parent.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(one) for one in pids) and not folder.exists())


def test_proxy_passes_what_it_held_after_the_client_gave_up(
    redis_url: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_url)
    with connected(proxy.url(redis_url), socket_timeout=0.2) as client:
        client.ping()
        proxy.hold_requests()
        with pytest.raises(redis.TimeoutError):
            client.set("late", "yes")
        assert proxy.caught.wait(DEADLINE_SECONDS)
    with connected(redis_url) as direct:
        assert direct.get("late") is None
        proxy.heal()
        wait_until(lambda: direct.get("late") == b"yes")


def test_proxy_swallows_a_reply_of_what_was_done(
    redis_url: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_url)
    with connected(proxy.url(redis_url), socket_timeout=0.2) as client:
        client.ping()
        proxy.drop_replies()
        with pytest.raises(redis.TimeoutError):
            client.set("done", "yes")
        proxy.heal()
        assert client.get("done") == b"yes"


def test_proxy_resets_and_refuses_until_healed(
    redis_url: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_url)
    with connected(proxy.url(redis_url)) as client:
        client.ping()
        proxy.refuse()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.heal()
        assert client.ping()


def test_proxy_delays(redis_url: str, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    proxy = tcp_proxy(redis_url)
    with connected(proxy.url(redis_url)) as client:
        client.ping()
        proxy.delay(0.1)
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began >= 0.2
