"""What the doctor reads in Redis. What a managed Redis refuses to tell is not known, and no fault.

Invariant: it only reads; each question has the link's time-outs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_link import RedisLink, kind_of
from redis.exceptions import NoPermissionError, ResponseError

# What the scripts of claims send, on a key that nobody has: SET ... XX writes nothing then, and is
# refused as any other write is, for want of rights, of memory or of a disk.
TRY: Final = """
redis.call('TIME')
redis.call('GET', KEYS[1])
redis.call('GETRANGE', KEYS[1], 0, 1)
redis.call('SET', KEYS[1], '', 'XX', 'PX', '1')
return redis.call('DEL', KEYS[1])
"""

_TRIES: Final = 1000
"""Keys that are tried until one is of the node that is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server says of itself. "" or None: it does not say."""

    version: str = ""
    role: str = ""
    policy: str = ""
    max_bytes: int | None = None
    append_only: bool | None = None
    snapshots: bool | None = None
    cluster: bool = False
    replicas: int | None = None
    least_replicas: int | None = None


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
    _allowed(link, "PING")
    told: dict[str, str] = {}
    for section in ("server", "memory", "persistence", "replication", "cluster"):
        told |= _section(link, section)
    aof = told.get("aof_enabled")
    return Server(
        version=told.get("redis_version", ""),
        role=told.get("role", ""),
        policy=told.get("maxmemory_policy", ""),
        max_bytes=_number(told.get("maxmemory")),
        append_only=None if aof is None else aof == "1",
        snapshots=_snapshots(link),
        cluster=told.get("cluster_enabled") == "1",
        replicas=_number(told.get("connected_slaves")),
        least_replicas=_number(_config(link, "min-replicas-to-write")),
    )


def refusal(link: RedisLink, namespace: str) -> str:
    """Why it would refuse what claims send, "" if it would not. Nothing is written."""
    for _ in range(_TRIES):
        try:
            link.call("EVAL", TRY, 1, f"{namespace}:{{doctor:{uuid.uuid4().hex}}}")
        except StoreUnavailable as refused:
            if kind_of(refused.__cause__) == "MOVED":
                continue  # a key of another node
            if isinstance(refused.__cause__, ResponseError):
                return refused.reason
            raise
        return ""
    return ""


def clock(link: RedisLink) -> float:
    """Its time, in seconds since 1970."""
    whole, micro = link.call("TIME")
    return int(whole) + int(micro) / 1e6


def poisoned(link: RedisLink, namespace: str) -> int | None:
    """How many keys it lists as poisoned; None where it does not tell."""
    number = _allowed(link, "SCARD", f"{namespace}:poisoned")
    return number if isinstance(number, int) else None


def is_refused(problem: StoreUnavailable) -> bool:
    """Whether it answered, and may not be asked that."""
    cause = problem.__cause__
    words = ("no permissions", "can't run this command")  # the second within scripts, in Redis 6
    return isinstance(cause, ResponseError) and any(one in str(cause) for one in words)


def _section(link: RedisLink, name: str) -> dict[str, str]:
    text = _allowed(link, "INFO", name)
    lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line and line[0] != "#")


def _snapshots(link: RedisLink) -> bool | None:
    """Whether it saves itself now and then; CONFIG is often refused."""
    value = _config(link, "save")
    return None if value is None else bool(value)


def _config(link: RedisLink, name: str) -> str | None:
    reply = _allowed(link, "CONFIG", "GET", name)
    told = isinstance(reply, list) and len(reply) == 2
    return bytes(reply[1]).decode(errors="replace") if told and isinstance(reply, list) else None


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
