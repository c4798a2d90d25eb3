"""A master with replicas under Sentinels, and a Cluster: real ones, on loopback ports.

    with open_sentinels(binary=redis_program()) as servers:   # or open_cluster(...)
        servers.url            # as idempotency_redis_url
        servers.hold_replication(); ...writes...; servers.fail_over()   # those writes are lost

Invariant: everything that was started here is ended with the `with`, by its pid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from .redis_clusters import Cluster as Cluster
from .redis_clusters import open_cluster as open_cluster
from .redis_nodes import Node, data_lines, offset, start_all
from .stores import wait_until

SERVICE: Final = "mymaster"
DOWN_MS: Final = 500
_GONE: Final = (redis.ConnectionError, redis.TimeoutError)


@dataclass
class Sentinels:
    """`nodes`: a master and its replicas; `sentinels` watch them, two of three decide."""

    nodes: list[Node]
    sentinels: list[Node]

    @property
    def url(self) -> str:
        """The URL that asks the sentinels for the master."""
        return self.url_of(self.sentinels)

    def url_of(self, sentinels: list[Node], hosts: Mapping[int, str] | None = None) -> str:
        """The same by some sentinels; `hosts`: other addresses than their own, by port."""
        told = hosts or {}
        places = ",".join(told.get(s.port, f"127.0.0.1:{s.port}") for s in sentinels)
        login = f":{self.nodes[0].password}@" if self.nodes[0].password else ""
        secret = self.sentinels[0].password
        query = f"?sentinel_password={secret}" if secret else ""
        return f"redis+sentinel://{login}{places}/{SERVICE}/0{query}"

    @property
    def master(self) -> Node:
        """The node that most sentinels name. LookupError when there is none."""
        named = [self._named(sentinel) for sentinel in self.sentinels]
        for node in self.nodes:
            if named.count(node.port) * 2 > len(self.sentinels):
                return node
        raise LookupError(f"the sentinels name {named}")

    @property
    def replicas(self) -> list[Node]:
        """All nodes but the master."""
        master = self.master
        return [node for node in self.nodes if node is not master]

    def hold_replication(self) -> None:
        """From now on what is written reaches no replica: they are cut off, and frozen."""
        master = self.master
        for node in self.replicas:
            node.freeze()
        with suppress(redis.ResponseError):
            master.call("CLIENT", "KILL", "TYPE", "replica")

    def release_replication(self) -> None:
        """Replicas go on, and catch up."""
        for node in self.nodes:
            node.thaw()

    def fail_over(self, *, kill: bool = True, freeze: bool = False) -> Node:
        """Make a replica the master, and wait for it; returns the old master.

        kill: the old master dies (`restart` it, it becomes a replica). freeze: it stands still
        instead, and after `thaw` goes on as a master until a sentinel tells it otherwise. Neither:
        an orderly SENTINEL FAILOVER, whose old master answers READONLY.
        """
        old = self.master
        if freeze:
            old.freeze()
        elif kill:
            old.kill()
        for node in self.nodes:
            if node is not old:
                node.thaw()
        if not (kill or freeze):
            wait_until(lambda: self._asked(self.sentinels[0], "FAILOVER", SERVICE) is not None)
        wait_until(lambda: self._follows(old))
        return old

    def rejoin(self, node: Node, *, restart: bool = True) -> None:
        """Bring an old master back as a replica at once; the sentinels would take ten seconds."""
        if restart:
            node.restart(empty=True)
        node.call("REPLICAOF", *map(str, self.master.address))
        self.wait_for_replicas()
        self.wait_until_watched()

    def heal(self) -> None:
        """Bring all back that were killed, with all nodes but the master as its replicas."""
        for sentinel in self.sentinels:
            if not sentinel.answers():
                sentinel.restart()
        wait_until(self._has_master)
        master = self.master
        for node in self.nodes:
            if not node.answers():
                node.restart(empty=True)
            if node is not master and self._is_astray(node, master):
                node.call("REPLICAOF", *map(str, master.address))
        self.wait_for_replicas()
        self.wait_until_watched()

    def wait_for_replicas(self, count: int | None = None) -> None:
        """Until so many replicas (default: all nodes but one) are online at the master."""
        wanted = len(self.nodes) - 1 if count is None else count
        wait_until(lambda: self._online() >= wanted)

    def wait_until_replicated(self) -> None:
        """Until all replicas have what has been written so far."""
        written = self.master.info("replication")["master_repl_offset"]
        for node in self.replicas:
            wait_until(lambda node=node: offset(node) >= written)  # type: ignore[misc]

    def wait_until_watched(self) -> None:
        """Until each sentinel knows all the others and all replicas: it may fail over then."""
        wait_until(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels))

    def flush(self) -> None:
        """Empty the master, and with it the replicas."""
        self.master.call("FLUSHALL")

    def close(self) -> None:
        """End all of them."""
        for node in (*self.sentinels, *self.nodes):
            node.stop()

    def _has_master(self) -> bool:
        with suppress(LookupError, *_GONE):
            return bool(self.master.info("replication")["role"] == "master")
        return False

    def _is_astray(self, node: Node, master: Node) -> bool:
        told = node.info("replication")
        return bool(told["role"] == "master" or told["master_port"] != master.port)

    def _online(self) -> int:
        told = self.master.info("replication")
        return sum(
            told[f"slave{n}"]["state"] == "online" for n in range(int(told["connected_slaves"]))
        )

    def _knows_all(self, sentinel: Node) -> bool:
        state = self._state(sentinel)
        known = state.get("num-slaves"), state.get("num-other-sentinels"), state.get("flags")
        return known == (str(len(self.nodes) - 1), str(len(self.sentinels) - 1), "master")

    def _follows(self, old: Node) -> bool:
        with suppress(LookupError, *_GONE):
            new = self.master
            return new is not old and bool(new.info("replication")["role"] == "master")
        return False

    def _named(self, sentinel: Node) -> int | None:
        found = self._asked(sentinel, "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return None if found is None else int(found[1])

    def _state(self, sentinel: Node) -> dict[str, str]:
        flat = self._asked(sentinel, "MASTER", SERVICE) or []
        words = [word.decode() for word in flat]
        return dict(zip(words[::2], words[1::2], strict=True))

    def _asked(self, sentinel: Node, *command: str) -> Any:
        """The raw reply; None from one that is away or refuses."""
        try:
            with redis.Redis.from_url(sentinel.url, socket_timeout=1, protocol=2) as client:
                client.response_callbacks.clear()
                return client.execute_command("SENTINEL", *command)
        except (*_GONE, redis.ResponseError):
            return None


@contextmanager
def open_sentinels(
    *,
    binary: Path | None = None,
    replicas: int = 1,
    config: Mapping[str, str] | None = None,
    password: str | None = None,
    sentinel_password: str | None = None,
    down_ms: int = DOWN_MS,
) -> Iterator[Sentinels]:
    """A master, its replicas and three sentinels, which fail over in 1-2 s.

    config: lines of redis.conf for the nodes that keep data. The passwords: of those, and of the
    sentinels.
    """
    with ExitStack() as stack:
        lines = data_lines(config or {}, password)
        nodes = [Node(lines, binary=binary, password=password) for _ in range(replicas + 1)]
        for node in nodes:
            stack.callback(node.stop)
        start_all(nodes)
        master, others = nodes[0], nodes[1:]
        watched = _watch_lines(master.port, down_ms, password, sentinel_password)
        sentinels = [
            Node(watched, binary=binary, password=sentinel_password, words=("--sentinel",))
            for _ in range(3)
        ]
        for sentinel in sentinels:
            stack.callback(sentinel.stop)
        for node in others:
            node.call("REPLICAOF", "127.0.0.1", str(master.port))
            node.call("CONFIG", "REWRITE")
        start_all(sentinels)
        servers = Sentinels(nodes, sentinels)
        servers.wait_for_replicas()
        servers.wait_until_watched()
        yield servers


def _watch_lines(
    port: int, down_ms: int, password: str | None, sentinel_password: str | None
) -> list[str]:
    lines = [
        f"sentinel monitor {SERVICE} 127.0.0.1 {port} 2",
        f"sentinel down-after-milliseconds {SERVICE} {down_ms}",
        f"sentinel failover-timeout {SERVICE} 1000",
        f"sentinel parallel-syncs {SERVICE} 1",
    ]
    if password:
        lines.append(f"sentinel auth-pass {SERVICE} {password}")
    if sentinel_password:
        lines.append(f"sentinel sentinel-pass {sentinel_password}")
    return lines
