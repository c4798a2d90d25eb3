"""What the doctor reads in Redis. What a managed Redis refuses to tell is not known, and no fault.

Invariant: it only reads; each question has the link's time-outs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_link import RedisLink
from redis.exceptions import NoPermissionError, ResponseError


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server says of itself. "" or None: it does not say."""

    version: str = ""
    role: str = ""
    policy: str = ""
    max_bytes: int | None = None
    used_bytes: int | None = None
    append_only: bool | None = None
    snapshots: bool | None = None
    replicas: int | None = None
    cluster: bool = False


@contextmanager
def connected(url: str) -> Iterator[RedisLink]:
    """A link. Raises ConfigurationError."""
    link = RedisLink.from_url(url)
    try:
        yield link
    finally:
        link.close()


def server(link: RedisLink) -> Server:
    """Its own words. Raises StoreUnavailable."""
    link.call("PING")
    told: dict[str, str] = {}
    for section in ("server", "memory", "persistence", "replication", "cluster"):
        told |= _section(link, section)
    aof = told.get("aof_enabled")
    return Server(
        version=told.get("redis_version", ""),
        role=told.get("role", ""),
        policy=told.get("maxmemory_policy", ""),
        max_bytes=_number(told.get("maxmemory")),
        used_bytes=_number(told.get("used_memory")),
        append_only=None if aof is None else aof == "1",
        snapshots=_snapshots(link),
        replicas=_number(told.get("connected_slaves")),
        cluster=told.get("cluster_enabled") == "1",
    )


def clock(link: RedisLink) -> float:
    """Its time, in seconds since 1970."""
    whole, micro = link.call("TIME")
    return int(whole) + int(micro) / 1e6


def poisoned(link: RedisLink, namespace: str) -> int:
    """How many keys it lists as poisoned."""
    return int(link.call("SCARD", f"{namespace}:poisoned"))


def _section(link: RedisLink, name: str) -> dict[str, str]:
    text = _allowed(link, "INFO", name)
    lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")


def _snapshots(link: RedisLink) -> bool | None:
    """Whether it saves itself now and then; CONFIG is often refused."""
    reply = _allowed(link, "CONFIG", "GET", "save")
    return bool(reply[1]) if isinstance(reply, list) and len(reply) == 2 else None


def _allowed(link: RedisLink, *command: str) -> object:
    """The reply, or None where it refuses that command."""
    try:
        reply: object = link.call(*command)
    except StoreUnavailable as refused:
        if isinstance(refused.__cause__, NoPermissionError | ResponseError):
            return None
        raise
    return reply


def _number(text: str | None) -> int | None:
    with suppress(ValueError, TypeError):
        return int(text or "")
    return None
