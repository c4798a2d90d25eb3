"""One redis-server, node of a cluster or sentinel: a child process with a folder and config file.

Its configuration is a file, as Sentinel and Cluster need one that they can write to; what they
wrote there outlives a `kill`, and `empty=True` removes data alone.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis
from idemwatch.demo.processes import Child, ChildServer, ProcessFailed, free_port
from idemwatch.demo.redis_server import redis_binary
from redis.backoff import ConstantBackoff
from redis.retry import Retry

START_SECONDS: Final = 60.0
BUS_OFFSET: Final = 10_000
_PORT_TRIES: Final = 10
_CLUSTER_PORTS: Final = range(15000, 22000)  # so that the bus's ports lie where `free_port` looks
_DATA: Final = ("dump.rdb", "appendonly.aof", "appendonlydir")
_LOST: Final = (redis.ConnectionError, redis.TimeoutError)


class Node(ChildServer):
    """A running server on a loopback port. Killed by its pid; started again on the same port."""

    def __init__(
        self,
        lines: Iterable[str],
        *,
        binary: Path | None = None,
        words: Iterable[str] = (),
        password: str | None = None,
        new_port: Callable[[], int] = free_port,
    ) -> None:
        self.password = password
        self._lines, self._words = tuple(lines), tuple(words)
        self._binary = binary or redis_binary()
        self._folder = Path(tempfile.mkdtemp(prefix="idemwatch-node-"))
        self._new_port = new_port
        self.port = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Its own URL, as if it were alone."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def call(self, *command: Any) -> Any:
        """One command over a connection of its own; the reply as redis-py parses it.

        Sent again when the connection is closed: a sentinel does that to what it demotes.
        """
        again = Retry(ConstantBackoff(0.05), 3)
        with redis.Redis.from_url(self.url, socket_timeout=5, protocol=2, retry=again) as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        """INFO."""
        found: dict[str, Any] = self.call("INFO", section)
        return found

    def answers(self) -> bool:
        """Whether it is this very process that answers at the port."""
        with suppress(*_LOST):
            return bool(self.info("server")["process_id"] == self.pid)
        return False

    def restart(self, *, empty: bool = False) -> None:
        """Start again on the same port, with the data that it saved or without."""
        self._running().kill()
        for name in _DATA if empty else ():
            path = self._folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._launch()
        self.wait()

    def start(self) -> None:
        """Start on a free port, without waiting for it: `wait` does that."""
        self._configure()
        self._launch()

    def wait(self) -> None:
        """Wait until it answers; another port if this one was taken meanwhile."""
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                self._running().wait_until(self.answers, START_SECONDS)
                return
            except ProcessFailed as failure:
                if "Address already in use" not in failure.log or not tries_left:
                    raise
                self._running().log.unlink()
                self.start()

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)
            self._child.kill()  # nothing of it is to be kept
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self) -> None:
        self.port = self._new_port()
        own = (f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}")
        secret = (f"requirepass {self.password}",) if self.password else ()
        text = "\n".join((*own, *secret, *self._lines, ""))
        (self._folder / "node.conf").write_text(text)

    def _launch(self) -> None:
        command = [str(self._binary), str(self._folder / "node.conf"), *self._words]
        self._child = Child("redis", command, folder=self._folder, cwd=self._folder)


def data_lines(config: Mapping[str, str], password: str | None) -> list[str]:
    """The configuration of a node that keeps data: in memory alone, unless `config` says else."""
    chosen = {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0", **config}
    chosen |= {"repl-ping-replica-period": "1", "repl-timeout": "5"}
    if password:
        chosen["masterauth"] = password
    return [f"{name} {value}" for name, value in chosen.items()]


def cluster_port() -> int:
    """A free port whose bus port (10000 higher) is free too."""
    for port in random.sample(_CLUSTER_PORTS, 200):
        if _is_free(port) and _is_free(port + BUS_OFFSET):
            return port
    raise OSError("no free pair of ports was found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def start_all(nodes: Iterable[Node]) -> None:
    """Start nodes side by side, and wait for all of them."""
    started = list(nodes)
    for node in started:
        node.start()
    for node in started:
        node.wait()


def offset(node: Node) -> int:
    """How much of the master's writes a replica has."""
    return int(node.info("replication").get("slave_repl_offset", 0))
