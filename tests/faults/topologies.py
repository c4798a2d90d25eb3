"""Redis under Sentinel and as a Cluster, as a RedisSite: those of support.redis_topologies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.redis_nodes import Node
from support.redis_topologies import Cluster, Sentinels, open_cluster, open_sentinels

from .servers import DURABLE_REDIS, RedisSite

UNREPLICATED_SECONDS: Final = 0.7
"""For so long the writes go to a master alone that then dies: they are lost."""


@dataclass
class SentinelRedis:
    """A master and a replica: whatever becomes of the master, the last writes may be lost."""

    servers: Sentinels
    proxied: bool = False
    _old: Node | None = None
    _frozen: bool = False

    @property
    def url(self) -> str:
        """By the sentinels."""
        return self.servers.url

    def data_urls(self) -> list[str]:
        """The master of now."""
        return [self.servers.master.url]

    def kill(self) -> bool:
        """The master dies, its replica follows it."""
        self._old = self.servers.fail_over()
        return True

    def freeze(self) -> bool:
        """The master stands still, its replica takes its place; later it is told."""
        self._old, self._frozen = self.servers.fail_over(freeze=True), True
        return True

    def fail_over(self) -> bool:
        """The master dies after writes that its replica has not seen."""
        self.servers.hold_replication()
        threading.Event().wait(UNREPLICATED_SECONDS)
        self._old = self.servers.fail_over()
        return True

    def heal(self) -> None:
        """The old master becomes a replica of the new one."""
        old, self._old = self._old, None
        if old is not None:
            if self._frozen:
                old.thaw()
            self.servers.rejoin(old, restart=not self._frozen)
        self._frozen = False

    def empty(self) -> None:
        """The master, and with it its replica."""
        self.servers.flush()


@dataclass
class ClusterRedis:
    """Three masters, whose data survives their death: one of them is harmed at a time."""

    servers: Cluster
    proxied: bool = False
    _turns: int = 0
    _harmed: list[tuple[Node, bool]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """By the masters."""
        return self.servers.url

    def data_urls(self) -> list[str]:
        """All masters."""
        return [node.url for node in self.servers.nodes]

    def kill(self) -> bool:
        """One master dies."""
        node = self._next()
        node.kill()
        self._harmed.append((node, True))
        return False

    def freeze(self) -> bool:
        """One master stands still."""
        node = self._next()
        node.freeze()
        self._harmed.append((node, False))
        return False

    def fail_over(self) -> bool:
        """It has no replicas: one master dies."""
        return self.kill()

    def heal(self) -> None:
        """All masters serve all slots again."""
        while self._harmed:
            node, dead = self._harmed.pop()
            if dead:
                node.restart()
            else:
                node.thaw()
        self.servers.wait_until_ok()

    def empty(self) -> None:
        """All masters."""
        self.servers.flush()

    def _next(self) -> Node:
        self._turns += 1
        return self.servers.nodes[self._turns % len(self.servers.nodes)]


@contextmanager
def open_topology(name: str, binary: Path | None) -> Iterator[RedisSite]:
    """The servers of a topology; all of them end with it."""
    if name == "sentinel":
        with open_sentinels(binary=binary) as sentinels:
            yield SentinelRedis(sentinels)
    else:
        with open_cluster(binary=binary, config=DURABLE_REDIS) as cluster:
            yield ClusterRedis(cluster)
