"""A PgBouncer of the test's own: a child process on a free loopback port, before a PostgreSQL.

With one session for a database (`sessions=1`) clients that take turns meet the same one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from idemwatch.demo.processes import Child, free_port
from idemwatch.demo.unprivileged import unprivileged

PROGRAM = Path("/usr/sbin/pgbouncer")
START_SECONDS = 30.0
_CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
query_wait_timeout = 60
server_login_retry = 0.2
ignore_startup_parameters = extra_float_digits
admin_users = {user}
"""


class PgBouncer:
    """A running pgbouncer. Made by `start`; ended by `stop`, or with this process."""

    def __init__(self, folder: Path, port: int, child: Child) -> None:
        self._folder, self._child, self.port = folder, child, port

    @classmethod
    def start(
        cls, url: str, *, folder: Path, mode: str = "transaction", sessions: int = 2
    ) -> PgBouncer:
        """Before the server of a URL, for all of its databases, with that URL's user."""
        assert PROGRAM.exists(), f"{PROGRAM} is missing: apt-get install pgbouncer"
        identity, port, parts = unprivileged(), free_port(), urlsplit(url)
        here = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=folder))
        users, config = here / "users.txt", here / "pgbouncer.ini"
        users.write_text(f'"{parts.username}" "{parts.password}"\n')
        told = {"server_port": parts.port, "port": port, "users": users, "user": parts.username}
        config.write_text(_CONFIG.format(mode=mode, size=sessions, **told))
        identity.own(here, users, config)
        command = [*identity.prefix, str(PROGRAM), str(config)]
        child = Child("pgbouncer", command, folder=here, cwd=here, **identity.popen)
        started = cls(here, port, child)
        try:
            child.wait_until(lambda: started._answers(url), START_SECONDS)
        except BaseException:
            child.kill()
            raise
        return started

    def url(self, url: str) -> str:
        """The URL of a database of the server behind, through this."""
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def _answers(self, url: str) -> bool:
        try:
            with psycopg.connect(self.url(url), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it."""
        self._child.stop()
