"""Redis's part of `idemwatch doctor`: version, role, eviction, persistence.

Invariant: what matters depends on whether Redis decides (authority `redis`) or only caches.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import doctor_redis_store as store
from .doctor_clock import clock_finding, looks, skew
from .doctor_findings import Finding, error, info, ok, warning
from .doctor_postgres import poisoned_finding
from .doctor_redis_store import Server
from .doctor_versions import redis_finding


class Redis:
    """The checks on one Redis; `decides`: some task has authority `redis`."""

    def __init__(self, url: str, namespace: str, *, decides: bool) -> None:
        self._url, self._namespace, self._decides = url, namespace, decides

    def answers(self) -> Iterator[Finding]:
        """Does it answer, and is it set up for what it is used for."""
        with store.connected(self._url) as link:
            server = store.server(link)
            refusal = store.refusal(link, self._namespace)
        yield from server_findings(server, decides=self._decides)
        if server.role != "slave":  # which is told
            yield refusal_finding(refusal, decides=self._decides)

    def clock(self) -> Iterator[Finding]:
        """Its clock beside that of this host."""
        with store.connected(self._url) as link:
            found = skew(looks(lambda: store.clock(link)))
        yield clock_finding("Redis", found)

    def records(self) -> Iterator[Finding]:
        """Poisoned keys of authority `redis`."""
        with store.connected(self._url) as link:
            number = store.poisoned(link, self._namespace)
        if number is None:
            yield info("records", "poisoned keys in Redis are not told (SCARD is refused)")
        else:
            yield poisoned_finding("Redis", number)


def server_findings(server: Server, *, decides: bool) -> Iterator[Finding]:
    """Whether a Redis may keep records."""
    yield redis_finding(server.version)
    if server.role == "slave":
        told = "this Redis is a replica: it refuses to be written to"
        yield error("redis", told, "give the address of the master, or one that leads to it")
    if server.cluster:
        told = "this Redis is a node of a cluster, whose redirections are not followed"
        yield warning("redis", told, "use a Redis that is no cluster, or a proxy before it")
    yield _eviction(server, decides)
    yield from _persistence(server) if decides else ()


def refusal_finding(refusal: str, *, decides: bool) -> Finding:
    """Whether a claim could be written; `refusal`: why not."""
    if not refusal:
        return ok("redis", "the commands of a claim are accepted")
    told = f"this Redis refuses what a claim sends ({refusal})"
    change = (
        "give the user what a worker needs (ACL SETUSER, in docs/operations.md); or, where it is "
        "full or cannot save, memory or disk"
    )
    if decides:
        return error("redis", f"{told}: no work with authority redis is done", change)
    return warning("redis", f"{told}: PostgreSQL answers each duplicate itself", change)


def _eviction(server: Server, decides: bool) -> Finding:
    policy = server.policy
    if not policy:
        return info("redis", "maxmemory-policy is not told", "see that it is noeviction")
    if policy == "noeviction":
        return ok("redis", "maxmemory-policy is noeviction")
    told = f"maxmemory-policy is {policy}"
    if not decides:
        evicts = " and only finished results are kept there: a lost one costs a look in PostgreSQL"
        return ok("redis", told + "," + evicts)
    change = "CONFIG SET maxmemory-policy noeviction, or use authority postgres"
    told += ": it may drop records that decide, and then work is repeated"
    # Without a limit nothing is dropped yet.
    return (warning if server.max_bytes == 0 else error)("redis", told, change)


def _persistence(server: Server) -> Iterator[Finding]:
    if server.append_only:
        yield ok("redis", "appendonly is on")
        return
    if server.append_only is None:
        yield info("redis", "persistence is not told", "see that appendonly is on")
        return
    change = "CONFIG SET appendonly yes (appendfsync everysec), or use authority postgres"
    saves = "only snapshots are saved" if server.snapshots else "nothing is saved to disk"
    if server.snapshots is None:
        saves = "appendonly is off"
    told = f"{saves}, and Redis decides: after a restart lost records mean repeated work"
    yield warning("redis", told, change)
