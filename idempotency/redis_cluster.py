"""Calls to a Redis Cluster: each command goes to the node that has the slot of its key.

The table of slots is read from a node at the first call, and again when a node says that a slot
has moved (MOVED) or does not answer; ASK holds for one command. Each node has a link of its own,
with its own breaker, so that a node that died holds up its own keys alone.

The table is our own: redis-py's NodesManager comes with its client object, which costs more than
the round trip. Invariant: a command goes to the node that owned its slot when one was last asked;
whether it still does, the node itself says.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import NoScriptError, ResponseError

from . import metrics
from .breaker import Breaker
from .errors import StoreUnavailable
from .redis_link import RedisLink, kind_of, pool_of
from .redis_scripts import Script
from .redis_urls import Address, Places

REFRESH_SECONDS: Final = 0.5
"""How soon the table is read again because a node does not answer."""
HOPS: Final = 5
TRY_AGAIN_SECONDS: Final = 0.05
_KEYLESS: Final = frozenset({"PING", "TIME", "INFO", "CONFIG", "SCAN", "SCRIPT", "CLUSTER"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})

Table = Sequence[Address | None]
"""The master of each slot; None: nobody has it."""


class ClusterLink(RedisLink):
    """Calls to the nodes of a cluster."""

    def __init__(
        self,
        places: Places,
        *,
        timeout_seconds: float,
        name: str = "redis",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pool = pool_of(places.url_of(places.addresses[0]), timeout_seconds)
        self._open: set[Address | None] = set()
        self._table: Table | None = None
        self._gauge = metrics.CIRCUIT_OPEN.labels(name)
        super().__init__(pool, name, Breaker(name, show=partial(self._show, None)))
        self._places, self._timeout_seconds, self._clock = places, timeout_seconds, clock
        self._links: dict[Address, RedisLink] = {}
        self._read_at = clock() - REFRESH_SECONDS
        self._changing = threading.RLock()

    def call(self, *command: Any) -> Any:
        address = self._place_of(command)
        try:
            return self._link(address).call(*command)
        except StoreUnavailable as error:
            return self._elsewhere(command, address, error)

    def call_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """As for one server; commands whose node does not answer answer that error.

        Raises StoreUnavailable when no node answers.
        """
        replies: list[Any] = [None] * len(commands)
        groups = self._grouped(commands, replies)
        for address, numbers in groups.items():
            found = self._batch(address, [commands[number] for number in numbers])
            for number, reply in zip(numbers, found, strict=True):
                replies[number] = reply
        if replies and all(isinstance(reply, StoreUnavailable) for reply in replies):
            raise replies[0]
        return replies

    def run_many(self, script: Script, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """As for one server; see `call_many` for what a node that is away answers."""
        commands = [("EVALSHA", script.sha, 1, key, *args) for key, args in calls]
        for address in self._grouped(commands, [None] * len(commands)):
            with suppress(StoreUnavailable):  # the batch answers that
                self._link(address).call("SCRIPT", "LOAD", script.source)
        replies = self.call_many(commands)
        return [
            self._anew(script, *call) if isinstance(reply, NoScriptError) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]

    def block(self, timeout_seconds: float, *command: Any) -> Any:
        """As for one server; None at once when the key is on its way to another node."""
        address = self._place_of(command)
        try:
            return self._link(address).block(timeout_seconds, *command)
        except StoreUnavailable as error:
            if not kind_of(error.__cause__):
                raise
            time.sleep(TRY_AGAIN_SECONDS)  # the caller looks again, and must not spin
            self._refresh_after(0.0)
            return None

    def nodes(self) -> Sequence[tuple[str, RedisLink]]:
        """All masters that have slots now."""
        self._refresh_after(REFRESH_SECONDS)
        return [(f"{host}:{port}", self._link((host, port))) for host, port in self._masters()]

    def replicas(self) -> Sequence[tuple[str, RedisLink]]:
        rows = self.call("CLUSTER", "SLOTS")
        known = {(bytes(one[0] or b"").decode(), int(one[1])) for row in rows for one in row[3:]}
        return [
            (f"{host}:{port}", self._link((host, port))) for host, port in sorted(known) if host
        ]

    def unserved(self) -> int:
        """How many slots nobody has."""
        self._refresh_after(REFRESH_SECONDS)
        return sum(owner is None for owner in self._known())

    def drop(self) -> None:
        for link in tuple(self._links.values()):
            link.drop()

    def close(self) -> None:
        super().close()
        for link in tuple(self._links.values()):
            link.close()

    # -- one command -------------------------------------------------------------------------------

    def _place_of(self, command: Sequence[Any]) -> Address:
        """The node to ask. Raises StoreUnavailable when nobody has the slot."""
        if command[0] in _KEYLESS:
            return self._any_master()
        key = command[3] if command[0] in _SCRIPTS else command[1]
        slot = key_slot(key if isinstance(key, bytes) else str(key).encode())
        owner = self._known()[slot]
        if owner is None and self._refresh_after(REFRESH_SECONDS):
            owner = self._known()[slot]
        if owner is None:
            raise StoreUnavailable(self.name, f"no node of the cluster serves slot {slot}")
        return owner

    def _grouped(
        self, commands: Sequence[tuple[Any, ...]], replies: list[Any]
    ) -> dict[Address, list[int]]:
        """The numbers of the commands for each node; one of a slot that nobody has is answered."""
        groups: dict[Address, list[int]] = {}
        for number, command in enumerate(commands):
            try:
                groups.setdefault(self._place_of(command), []).append(number)
            except StoreUnavailable as error:
                replies[number] = error
        return groups

    def _elsewhere(self, command: Sequence[Any], address: Address, error: StoreUnavailable) -> Any:
        """Ask where the node said, or where its slot is by now since it does not answer."""
        for _ in range(HOPS):
            cause = error.__cause__
            following = self._following(command, address, cause)
            if following is None:
                break
            address = following
            try:
                if kind_of(cause) == "ASK":
                    return _asked(self._link(address), command)
                return self._link(address).call(*command)
            except StoreUnavailable as again:
                error = again
        raise error

    def _following(
        self, command: Sequence[Any], address: Address, cause: BaseException | None
    ) -> Address | None:
        """Whom to ask next; None: nobody, the error stands."""
        kind = kind_of(cause)
        if kind in ("MOVED", "ASK"):
            told = place_told(cause, address)
            if kind == "MOVED":
                self._refresh_after(0.0, first=told)
            return told
        if kind == "TRYAGAIN":  # some of its keys are on their way
            time.sleep(TRY_AGAIN_SECONDS)
            return self._place_of(command)
        if isinstance(cause, ResponseError) and not kind:
            return None
        if not self._refresh_after(REFRESH_SECONDS):
            return None
        owner = self._place_of(command)
        return None if owner == address else owner

    def _batch(self, address: Address, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The replies of one node."""
        try:
            replies = self._link(address).call_many(commands)
        except StoreUnavailable as error:
            self._refresh_after(REFRESH_SECONDS)
            return [error] * len(commands)
        return [
            self._redirected(command, address, reply) if _is_turned(reply) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _redirected(self, command: Sequence[Any], address: Address, refusal: ResponseError) -> Any:
        error = self.refused(refusal)
        error.__cause__ = refusal
        try:
            return self._elsewhere(command, address, error)
        except StoreUnavailable as last:
            return last.__cause__ if isinstance(last.__cause__, ResponseError) else last

    def _anew(self, script: Script, key: str, args: Sequence[Any]) -> Any:
        """A script that its node did not know, since the key has just come there."""
        try:
            return self.run(script, (key,), *args)
        except StoreUnavailable as error:
            return error

    # -- the table ---------------------------------------------------------------------------------

    def _known(self) -> Table:
        table = self._table
        if table is not None:
            return table
        with self._changing:
            if self._table is None:
                self.breaker.require()
                self._table = self._read(None)
                self._set_gauge()
            return self._table

    def _refresh_after(self, seconds: float, first: Address | None = None) -> bool:
        """Read the table again unless that was tried just now; whether that was done."""
        if self._clock() - self._read_at < seconds:
            return False
        try:
            self._table = self._read(first)
        except StoreUnavailable:
            return False  # what is known stays: its nodes may answer again
        self._forget_others()
        return True

    def _read(self, first: Address | None) -> Table:
        """The table, from the first node that tells it. Raises StoreUnavailable."""
        self._read_at = self._clock()
        problem = ""
        for address in self._informants(first):
            try:
                rows = self._link(address).call("CLUSTER", "SLOTS")
                table = table_of(rows, address)
            except StoreUnavailable as error:
                problem = problem or error.reason
                continue
            if any(table):
                self.breaker.succeeded()
                return table
            problem = problem or f"{address[0]}:{address[1]} knows no slots"
        raise self.breaker.failed(f"no node tells the slots of the cluster ({problem})")

    def _informants(self, first: Address | None) -> Iterator[Address]:
        """Whom to ask for the table: those that answer first, in no order, so as to share it."""
        links = dict(self._links)  # another thread may forget some meanwhile
        known = {*links, *self._places.addresses} - {first}
        away = {one for one in known if one in links and links[one].breaker.is_open}
        if first is not None:
            yield first
        yield from random.sample(sorted(known - away), len(known - away))
        yield from sorted(away)

    def _masters(self) -> list[Address]:
        return list(dict.fromkeys(owner for owner in self._known() if owner is not None))

    def _any_master(self) -> Address:
        masters = self._masters()
        return next((one for one in masters if not self._link(one).breaker.is_open), masters[0])

    # -- the links ---------------------------------------------------------------------------------

    def _link(self, address: Address) -> RedisLink:
        link = self._links.get(address)
        if link is None:
            with self._changing:
                if address not in self._links:
                    pool = pool_of(self._places.url_of(address), self._timeout_seconds)
                    breaker = Breaker(self.name, show=partial(self._show, address))
                    self._links[address] = RedisLink(pool, self.name, breaker)
                link = self._links[address]
        return link

    def _forget_others(self) -> None:
        """Nodes that left the cluster are asked no more."""
        with self._changing:
            for address in {*self._links} - {*self._masters(), *self._places.addresses}:
                self._links.pop(address).close()
        self._set_gauge()

    def _show(self, address: Address | None, is_open: bool) -> None:
        """Note that a node, or with None all that could tell the table, is left out or is not."""
        (self._open.add if is_open else self._open.discard)(address)
        self._set_gauge()

    def _set_gauge(self) -> None:
        """1 while a node that has slots is left out; of others nobody learns that they are back."""
        asked = {None} if self._table is None else {*self._table} - {None}
        self._gauge.set(1 if self._open & asked else 0)


def table_of(rows: Sequence[Sequence[Any]], asked: Address) -> Table:
    """The table of a reply to CLUSTER SLOTS; a node without a host is at the one `asked`."""
    table: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_replicas in rows:
        owner = _host(bytes(host or b"").decode(), asked), int(port)
        table[first : last + 1] = [owner] * (last + 1 - first)
    return table


def _host(told: str, asked: Address) -> str:
    return asked[0] if told in ("", "?") else told


def _is_turned(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and kind_of(reply) != ""


def place_told(cause: BaseException | None, asked: Address) -> Address:
    """The last word of a MOVED or ASK; without a host it is that of the node that said so."""
    host, _, port = str(cause).rpartition(" ")[2].rpartition(":")
    return _host(host, asked), int(port)


def _asked(link: RedisLink, command: Sequence[Any]) -> Any:
    """One command at a node that is about to get the slot."""
    _, reply = link.call_many([("ASKING",), tuple(command)])
    if isinstance(reply, ResponseError):
        raise link.refused(reply) from reply
    return reply
