"""Redis's part of `idemwatch doctor`: version, role, eviction, persistence.

Invariant: what matters depends on whether Redis decides (authority `redis`) or only caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_cluster import ClusterLink
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_urls import CLUSTER_FORM, SETTING

from . import doctor_redis_store as store
from .doctor_clock import clock_finding, looks, skew
from .doctor_findings import Finding, error, info, listed, ok, warning
from .doctor_postgres import poisoned_finding
from .doctor_redis_places import place_findings
from .doctor_redis_store import Server
from .doctor_versions import redis_finding


class Redis:
    """The checks on one Redis; `decides`: some task has authority `redis`."""

    def __init__(self, url: str, namespace: str, *, decides: bool) -> None:
        self._url, self._namespace, self._decides = url, namespace, decides

    def answers(self) -> Iterator[Finding]:
        """Does it answer, and is it set up for what it is used for."""
        with store.connected(self._url) as link:
            servers = {address: store.server(one) for address, one in link.nodes()}
            refusals = {
                address: store.refusal(one, self._namespace) for address, one in link.nodes()
            }
            of_places = list(place_findings(link, servers, decides=self._decides))
        yield from of_places
        several = isinstance(link, ClusterLink)
        yield from of_all(
            {
                address: [
                    *server_findings(server, decides=self._decides, several=several),
                    *_refusals(server, refusals.get(address, ""), self._decides),
                ]
                for address, server in servers.items()
            }
        )

    def clock(self) -> Iterator[Finding]:
        """Its clock beside that of this host, and of those that may take its place.

        Leases are judged by the clock of the server that has them, after a failover by another.
        """
        with store.connected(self._url) as link:
            for address, one in link.nodes():
                yield _clock(f"Redis {address}".strip(), one)
            for address, one in link.replicas():
                with closing(one):
                    yield _clock_of_replica(address, one)

    def records(self) -> Iterator[Finding]:
        """Poisoned keys of authority `redis`."""
        with store.connected(self._url) as link:
            number = store.poisoned(link, self._namespace)
        if number is None:
            yield info("records", "poisoned keys in Redis are not told (SCARD is refused)")
        else:
            yield poisoned_finding("Redis", number)


def _clock(whose: str, link: RedisLink) -> Finding:
    return clock_finding(whose, skew(looks(partial(store.clock, link))))


def _clock_of_replica(address: str, link: RedisLink) -> Finding:
    try:
        return _clock(f"the replica {address}", link)
    except StoreUnavailable as away:
        return info("clocks", f"the replica {address} does not tell its clock: {away.reason}")


def of_all(found: Mapping[str, Sequence[Finding]]) -> Iterator[Finding]:
    """The findings of all nodes, by address: what is said of several is said once."""
    whose: dict[Finding, list[str]] = {}
    for address, findings in found.items():
        for one in findings:
            whose.setdefault(one, []).append(address)
    for one, addresses in whose.items():
        named = f" ({listed(addresses)})" if any(addresses) else ""
        yield replace(one, found=one.found + named)


def _refusals(server: Server, refusal: str, decides: bool) -> Iterator[Finding]:
    if server.role != "slave":  # which is told
        yield refusal_finding(refusal, decides=decides)


def server_findings(server: Server, *, decides: bool, several: bool = False) -> Iterator[Finding]:
    """Whether a Redis may keep records; `several`: it is asked as a node of a cluster."""
    yield redis_finding(server.version)
    if server.role == "slave":
        told = "this Redis is a replica: it refuses to be written to"
        yield error("redis", told, "give the address of the master, or one that leads to it")
    if server.cluster and not several:
        told = "this Redis is a node of a cluster: alone it refuses the keys of the others"
        change = f"write {SETTING} as {CLUSTER_FORM}, with two or three of its nodes"
        yield error("redis", told, change)
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
