"""What a Redis Cluster's nodes cost that are away, and when they count; nodes are the test's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from idemwatch.idempotency import redis_cluster
from idemwatch.idempotency.breaker import Breaker
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.metrics import REGISTRY
from idemwatch.idempotency.redis_cluster import REFRESH_SECONDS, ClusterLink
from idemwatch.idempotency.redis_scripts import Script
from idemwatch.idempotency.redis_urls import Address, places_of

A, B, C = ("a", 1), ("b", 1), ("c", 1)
KEYS = {"low": "bar", "high": "foo"}
"""Keys of the lower and of the upper half of the slots."""


class Node:
    """One node: it answers, or it does not; CLUSTER SLOTS names the two masters."""

    masters: ClassVar[tuple[Address | None, Address | None]]
    away: ClassVar[set[Address]]

    def __init__(self, pool: Any, _name: str, breaker: Breaker) -> None:
        given = pool.connection_kwargs
        self.address, self.breaker = (given["host"], given["port"]), breaker

    def call(self, *command: Any) -> Any:
        if self.address in self.away:
            raise self.breaker.failed("as the test says")
        self.breaker.succeeded()
        low, high = self.masters
        if command[:2] == ("CLUSTER", "SLOTS"):
            rows = ((0, 8191, low), (8192, 16383, high))
            return [[a, b, _row(owner)] for a, b, owner in rows if owner is not None]
        return self.address

    def call_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [self.call(*command) for command in commands]

    def drop(self) -> None:
        """It has no connections."""

    def close(self) -> None:
        self.breaker.close()


def _row(address: Address) -> list[Any]:
    return [address[0].encode(), address[1], b"id"]


class Cluster:
    """A link whose clock stands until the test sets it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._name = uuid4().hex
        places = places_of("redis+cluster://a:1,b:1")
        assert places is not None
        self.link = ClusterLink(
            places, timeout_seconds=1.0, name=self._name, clock=lambda: self.now
        )

    def ask(self, half: str) -> Any:
        self.now += REFRESH_SECONDS
        return self.link.call("GET", KEYS[half])

    @property
    def left_out(self) -> float | None:
        return REGISTRY.get_sample_value("idemwatch_circuit_open", {"store": self._name})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(redis_cluster, "RedisLink", Node)
    monkeypatch.setattr(Node, "masters", (A, B), raising=False)
    monkeypatch.setattr(Node, "away", set(), raising=False)
    made = Cluster()
    yield made
    made.link.close()


def test_a_cluster_is_left_out_while_a_node_with_slots_is(cluster: Cluster) -> None:
    assert (cluster.ask("low"), cluster.ask("high"), cluster.left_out) == (A, B, 0)
    Node.away.add(B)
    with pytest.raises(StoreUnavailable):
        cluster.ask("high")
    assert cluster.ask("low") == A and cluster.left_out == 1
    Node.away.clear()
    assert cluster.ask("high") == B and cluster.left_out == 0


def test_after_an_outage_of_all_nodes_those_that_answer_again_are_enough(cluster: Cluster) -> None:
    cluster.ask("low")
    Node.away.update((A, B))
    for half in KEYS:
        with pytest.raises(StoreUnavailable):
            cluster.ask(half)
    assert cluster.left_out == 1
    Node.away.clear()
    assert (cluster.ask("low"), cluster.ask("high"), cluster.left_out) == (A, B, 0)


def test_who_finds_no_node_at_first_is_told_of_by_the_gauge(cluster: Cluster) -> None:
    Node.away.update((A, B))
    with pytest.raises(StoreUnavailable, match="no node tells the slots"):
        cluster.ask("low")
    assert cluster.left_out == 1


def test_a_dead_node_whose_slots_another_has_is_not_left_out(cluster: Cluster) -> None:
    """Nobody asks it any more, so nobody would learn that it is back."""
    cluster.ask("high")
    Node.away.add(B)
    with pytest.raises(StoreUnavailable):
        cluster.ask("high")
    assert cluster.left_out == 1
    Node.masters = (A, C)
    assert cluster.ask("high") == C and cluster.left_out == 0


def test_a_call_that_fails_after_its_node_was_forgotten_leaves_nothing_behind(
    cluster: Cluster,
) -> None:
    Node.masters = (A, C)
    assert cluster.ask("high") == C
    waits = cluster.link._link(C)
    Node.masters = (A, B)
    Node.away.add(A)
    with pytest.raises(StoreUnavailable):
        cluster.ask("low")
    Node.away.add(C)
    assert waits not in cluster.link._links.values()
    with pytest.raises(StoreUnavailable):
        waits.call("GET", KEYS["high"])
    Node.away.clear()
    assert cluster.ask("low") == A and cluster.left_out == 0


def test_in_a_batch_a_slot_that_nobody_has_costs_no_other(cluster: Cluster) -> None:
    """Else the leases of all nodes would run out because of one slot."""
    Node.masters = (A, None)
    commands = [("GET", KEYS["high"]), ("GET", KEYS["low"])]
    lost, kept = cluster.link.call_many(commands)
    assert kept == A and "serves slot" in str(lost)
    script = Script("return 1")
    lost, kept = cluster.link.run_many(script, [(one[1], ()) for one in commands])
    assert kept == A and isinstance(lost, StoreUnavailable)
    with pytest.raises(StoreUnavailable, match="serves slot"):
        cluster.link.call_many(commands[:1])
