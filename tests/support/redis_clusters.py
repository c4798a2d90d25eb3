"""A Redis Cluster of real nodes on loopback ports: slots that move, nodes that die.

Invariant: everything that was started here is ended with the `with`, by its pid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
from redis.crc import key_slot

from .redis_nodes import Node, cluster_port, data_lines, offset, start_all
from .stores import wait_until

SLOTS: Final = 16384
_GONE: Final = (redis.ConnectionError, redis.TimeoutError)


@dataclass
class Cluster:
    """`nodes`: the first three are the masters at the start, the others their replicas in turn."""

    nodes: list[Node]
    masters_at_start: int = 3

    @property
    def url(self) -> str:
        """The URL of the cluster, by its first masters."""
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[: self.masters_at_start])
        login = f":{self.nodes[0].password}@" if self.nodes[0].password else ""
        return f"redis+cluster://{login}{places}"

    @property
    def masters(self) -> list[Node]:
        """The nodes that have slots now."""
        owners = {port for _, _, port in self.slots()}
        return [node for node in self.nodes if node.port in owners]

    def slots(self) -> list[tuple[int, int, int]]:
        """First slot, last slot and port of its master, as a node that answers has it."""
        for node in self.nodes:
            with suppress(*_GONE), redis.Redis.from_url(node.url, socket_timeout=1) as client:
                client.response_callbacks.clear()
                rows = client.execute_command("CLUSTER", "SLOTS")
                return [(row[0], row[1], row[2][1]) for row in rows]
        raise LookupError("no node of the cluster answers")

    def owner(self, name: str, slots: list[tuple[int, int, int]] | None = None) -> Node:
        """The master of a Redis key; `slots`: as they were told before."""
        slot = key_slot(name.encode())
        rows = self.slots() if slots is None else slots
        port = next(port for first, last, port in rows if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def begin_move(self, name: str, to: Node, *, keys: bool = True) -> int:
        """Start to move the slot of a Redis key: what was moved is answered with ASK.

        keys: the keys that are there are moved at once. Returns the slot, for `end_move`.
        """
        slot, source = key_slot(name.encode()), self.owner(name)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(to))
        if keys:
            self.move_keys(slot, source, to)
        return slot

    def move_keys(self, slot: int, source: Node, to: Node) -> None:
        """Move all keys of a slot."""
        login = ("AUTH", to.password) if to.password else ()
        while found := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.call("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, *login, "KEYS", *found)

    def end_move(self, slot: int, to: Node) -> None:
        """The slot is the other's: the old owner answers MOVED."""
        source = next(
            node for first, last, port in self.slots() if first <= slot <= last
            for node in self.nodes if node.port == port
        )  # fmt: skip
        self.move_keys(slot, source, to)
        for node in (to, *(node for node in self.masters if node is not to)):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", _id(to))

    def move(self, name: str, to: Node) -> None:
        """Move the slot of a Redis key, with all its keys; nothing if it is there."""
        if self.owner(name) is not to:
            self.end_move(self.begin_move(name, to), to)

    def wait_until_ok(self, *, without: Node | None = None) -> None:
        """Until all nodes that live say that all slots are served."""
        living = [node for node in self.nodes if node is not without]
        wait_until(lambda: all(_state(node) == "ok" for node in living))

    def replica_of(self, master: Node) -> Node:
        """Its first replica. StopIteration without one."""
        number = self.nodes.index(master)
        return self.nodes[number + self.masters_at_start]

    def wait_until_replicated(self, master: Node) -> None:
        """Until its replica has what has been written so far."""
        written = master.info("replication")["master_repl_offset"]
        wait_until(lambda: offset(self.replica_of(master)) >= written)

    def fail_over(self, master: Node) -> Node:
        """Kill a master, wait until its replica serves its slots; returns the replica."""
        replica = self.replica_of(master)
        master.kill()
        wait_until(lambda: _role(replica) == "master")
        self.wait_until_ok(without=master)
        return replica

    def flush(self) -> None:
        """Empty all masters."""
        for node in self.masters:
            node.call("FLUSHALL")

    def close(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.stop()


@contextmanager
def open_cluster(
    *,
    binary: Path | None = None,
    replicas: int = 0,
    config: Mapping[str, str] | None = None,
    password: str | None = None,
    node_timeout_ms: int = 1000,
) -> Iterator[Cluster]:
    """Three masters that share all slots, with so many replicas each."""
    own = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(node_timeout_ms),
        "cluster-replica-validity-factor": "0",
    }
    lines = data_lines({**own, **(config or {})}, password)
    with ExitStack() as stack:
        nodes = [
            Node(lines, binary=binary, password=password, new_port=cluster_port)
            for _ in range(3 * (replicas + 1))
        ]
        for node in nodes:
            stack.callback(node.stop)
        start_all(nodes)
        cluster = Cluster(nodes)
        _join(nodes)
        cluster.wait_until_ok()
        yield cluster


def _join(nodes: list[Node]) -> None:
    bounds = [0, 5461, 10923, SLOTS]
    for number, node in enumerate(nodes):
        node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number < 3:
            node.call("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
    for node in nodes[1:]:
        nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port)
    wait_until(lambda: all(_known(node) == len(nodes) for node in nodes))
    for number, node in enumerate(nodes[3:]):
        master = _id(nodes[number % 3])
        node.call("CLUSTER", "REPLICATE", master)
    for node in nodes[3:]:
        wait_until(lambda node=node: node.info("replication")["master_link_status"] == "up")  # type: ignore[misc]


def _id(node: Node) -> str:
    with redis.Redis.from_url(node.url, socket_timeout=5) as client:
        client.response_callbacks.clear()
        found: bytes = client.execute_command("CLUSTER", "MYID")
        return found.decode()


def _told(node: Node) -> dict[str, str]:
    try:
        with redis.Redis.from_url(node.url, socket_timeout=1) as client:
            client.response_callbacks.clear()
            text: bytes = client.execute_command("CLUSTER", "INFO")
    except _GONE:
        return {}
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def _state(node: Node) -> str:
    return _told(node).get("cluster_state", "")


def _known(node: Node) -> int:
    return int(_told(node).get("cluster_known_nodes", 0))


def _role(node: Node) -> str:
    with suppress(*_GONE):
        return str(node.info("replication")["role"])
    return ""
