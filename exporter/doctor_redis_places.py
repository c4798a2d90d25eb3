"""Sentinels and Clusters in `idemwatch doctor`: whether a master that dies is replaced, and left.

Invariant: it only reads; what a sentinel or node does not tell is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from idemwatch.idempotency.redis_cluster import ClusterLink
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_sentinel import SentinelLink

from .doctor_findings import Finding, error, listed, ok, warning
from .doctor_redis_store import Server

LEAST_SENTINELS: Final = 3
States = list[tuple[str, dict[str, str] | str]]


def place_findings(
    link: RedisLink, servers: Mapping[str, Server], *, decides: bool
) -> Iterator[Finding]:
    """What is to be said of several servers; nothing of a single one."""
    if isinstance(link, SentinelLink):
        yield from sentinel_findings(link.sentinels.states())
        (server,) = servers.values()
        yield from replica_findings(server, decides=decides)
    elif isinstance(link, ClusterLink):
        yield from cluster_findings(link.unserved(), servers, decides=decides)


def sentinel_findings(states: States) -> Iterator[Finding]:
    """Whether the sentinels of the URL answer, and are enough to agree."""
    told = {name: state for name, state in states if isinstance(state, dict)}
    for name, state in states:
        if isinstance(state, str):
            change = "start it, or correct its address or its login in the URL"
            yield warning("redis", f"{name} does not answer: {state}", change)
    if not told:
        return
    state = next(iter(told.values()))
    number = _number(state, "num-other-sentinels") + 1
    quorum = _number(state, "quorum")
    if len({(one["ip"], one["port"]) for one in told.values()}) > 1:
        yield error(
            "redis", f"the sentinels name different masters ({listed(_named(told))})",
            "wait for a failover to end; else SENTINEL RESET the sentinels that are wrong",
        )  # fmt: skip
    if number < LEAST_SENTINELS:
        yield warning(
            "redis", f"{number} sentinel{'s' * (number != 1)} watch the master: when one dies "
            "too, no failover is agreed on", "run three, on three hosts",
        )  # fmt: skip
    elif quorum > number:
        found = f"the quorum is {quorum}, and there are {number} sentinels: none will fail over"
        yield error("redis", found, "SENTINEL SET ... quorum 2, at each of them")
    else:
        yield ok("redis", f"{number} sentinels watch the master, quorum {quorum}")


def replica_findings(server: Server, *, decides: bool) -> Iterator[Finding]:
    """Whether another can take the master's place, and the master notices that it is alone."""
    if server.replicas == 0:
        yield warning("redis", "the master has no replica: none can take its place", "start one")
    if not decides or server.least_replicas is None:
        return
    if server.least_replicas:
        yield ok("redis", f"min-replicas-to-write is {server.least_replicas}")
        return
    yield warning(
        "redis",
        "min-replicas-to-write is 0, and Redis decides: a master that is cut off from the others "
        "goes on granting claims beside the new one",
        "CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 10 at all of them; with two "
        "replicas or more, else the loss of the only one stops all claims",
    )


def cluster_findings(
    unserved: int, servers: Mapping[str, Server], *, decides: bool
) -> Iterator[Finding]:
    """Whether each slot has a master, and each master a replica."""
    if unserved:
        found = f"{unserved} of the cluster's slots are served by no node"
        yield error("redis", found, "redis-cli --cluster fix, or bring the lost nodes back")
    else:
        yield ok("redis", f"{len(servers)} masters serve all slots of the cluster")
    alone = [address for address, server in servers.items() if server.replicas == 0]
    if alone:
        effect = "its keys cannot be claimed" if decides else "its results are no longer cached"
        yield warning(
            "redis", f"masters without a replica: {listed(alone)}; when one dies, {effect}",
            "redis-cli --cluster add-node ... --cluster-slave",
        )  # fmt: skip


def _number(state: Mapping[str, str], name: str) -> int:
    digits = state.get(name, "")
    return int(digits) if digits.isdigit() else 0


def _named(told: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [f"{name}: {one['ip']}:{one['port']}" for name, one in told.items()]
