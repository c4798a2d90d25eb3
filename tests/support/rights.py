"""The files of docs/rights as an operator uses them: passwords added, users made members."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import redis
from idemwatch.demo.servers import RedisServer

from .table import Table
from .venv import ROOT

RIGHTS: Final = ROOT / "docs" / "rights"
ACL: Final = RIGHTS / "redis.acl"
REDIS_USERS: Final = ("worker", "publisher", "exporter", "operator")
ROLES: Final = ("owner", "worker", "publisher", "beat", "exporter", "operator", "purge")
PASSWORD: Final = "correct-horse"


def acl_text(users: Mapping[str, str]) -> str:
    """The ACL file with the line of a user replaced for each of `users`, and passwords for all."""
    lines = []
    for line in ACL.read_text().splitlines():
        name = line.split()[1]
        given = f"user {name} {users[name]}" if name in users else line
        lines.append(given.replace(" on ", f" on #{_sha256(PASSWORD)} ", 1))
    return "\n".join(lines) + "\n"


def rules(user: str) -> list[str]:
    """The words of a user of the ACL file, after the name."""
    (line,) = [one for one in ACL.read_text().splitlines() if one.split()[1] == f"idemwatch_{user}"]
    return line.split()[2:]


class LockedRedis:
    """A Redis server that has loaded the ACL file: nobody gets in without a password."""

    def __init__(self, server: RedisServer, file: Path) -> None:
        self.port = server.port
        self._first, self._file = server.url, file
        self.load()

    def url(self, user: str, database: int = 0) -> str:
        """The URL of a user of ours."""
        return f"redis://idemwatch_{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def load(self, **users: str) -> None:
        """Load the file, with other rules for some users of ours."""
        self._file.write_text(acl_text({f"idemwatch_{n}": words for n, words in users.items()}))
        with redis.Redis.from_url(self._first) as client:
            client.execute_command("ACL LOAD")
        self._first = self.url("admin")

    def admin(self, database: int = 0) -> redis.Redis:
        """A client that may do anything."""
        return redis.Redis.from_url(self.url("admin", database))


def acl_file(folder: Path) -> Path:
    """A file for `aclfile` that locks nobody out yet: the server is waited for at its start."""
    file = folder / "users.acl"
    file.write_text("user default on nopass ~* +@all\n")
    return file


def login_url(database_url: str, role: str) -> str:
    """The database as a member of one of our roles sees it."""
    parts = urlsplit(database_url)
    netloc = f"rights_{role}:{PASSWORD}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=netloc).geturl()


def make_roles(database_url: str) -> None:
    """Our roles, and a user in each, as a superuser makes them before the first migration."""
    table = Table(database_url)
    table.execute((RIGHTS / "postgresql-roles.sql").read_text())
    for role in ROLES:
        table.execute(
            f"CREATE ROLE rights_{role} LOGIN PASSWORD '{PASSWORD}' IN ROLE idemwatch_{role}"
        )
    table.execute("ALTER ROLE rights_owner SET role = idemwatch_owner")


def grant(database_url: str) -> None:
    """What the roles may do, as the owner of the tables says it after a migration."""
    with psycopg.connect(login_url(database_url, "owner"), autocommit=True) as connection:
        connection.execute((RIGHTS / "postgresql-grants.sql").read_text().encode())


def drop_roles(database_url: str) -> None:
    """Take all of it away."""
    table = Table(database_url)
    names = ", ".join([f"rights_{one}" for one in ROLES] + [f"idemwatch_{one}" for one in ROLES])
    table.execute(f"DROP OWNED BY {names}")
    table.execute(f"DROP ROLE {names}")


def granted(role: str) -> dict[str, set[str]]:
    """What the file of grants gives to a role: rights on whole tables, by table."""
    found: dict[str, set[str]] = {}
    text = re.sub(r"--.*", "", (RIGHTS / "postgresql-grants.sql").read_text())
    for statement in text.split(";"):
        match = re.fullmatch(r"\s*GRANT (.+?) ON (SEQUENCE )?(.+?)\s+TO (.+)", statement, re.DOTALL)
        if match and f"idemwatch_{role}" in re.split(r",\s*", match[4]):
            rights = re.findall(r"[A-Z]+\b(?! \()", match[1])
            for table in re.split(r",\s*", match[3]):
                found.setdefault(table, set()).update(rights)
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
