"""Follows the master of a service that Redis Sentinels watch.

The sentinels are asked when a connection is made, and again once a second while there is work, by
the call that comes then: an old master that was cut off or stood still, and answers as if nothing
had happened, is left within a second.

Invariants: what was connected to said itself that it is a master (ROLE); an answer of an older
epoch than one that was followed is followed only when every sentinel gave an answer, none a newer
one (their memory was wiped). When no sentinel answers, the master stays that is connected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from .breaker import Breaker
from .errors import StoreUnavailable
from .redis_link import RedisLink, pool_of, told
from .redis_urls import Address, Places

CHECK_SECONDS: Final = 1.0
LATER_SECONDS: Final = 5.0
"""When the sentinels are asked again after none of those asked gave an answer."""
SENTINEL_TIMEOUT_SECONDS: Final = 0.25
_NAMED: Final = frozenset({"ip", "port"})


class Master(NamedTuple):
    """Whom a sentinel names; the epoch grows with each failover."""

    epoch: int
    address: Address


class NoMaster(RedisConnectionError):
    """No sentinel leads to a master."""


class Sentinels:
    """Asks the sentinels of one service, the one that answered last first."""

    def __init__(self, places: Places, timeout_seconds: float) -> None:
        timeout = min(timeout_seconds, SENTINEL_TIMEOUT_SECONDS)
        self._service = places.service
        self._order = [
            RedisLink(pool_of(places.sentinel_url(one), timeout), "sentinel", _NeverOpen())
            for one in places.addresses
        ]
        self._shown = {
            id(link): f"sentinel {host}:{port}"
            for link, (host, port) in zip(self._order, places.addresses, strict=True)
        }

    def answers(self) -> Iterator[Master | str]:
        """What each says in turn: the master, or why it names none."""
        for link in tuple(self._order):
            yield self._answer(link)

    def first(self) -> Master | str:
        """The answer of one, of the next one when that is none."""
        problem = ""
        for link in tuple(self._order)[:2]:
            found = self._answer(link)
            if isinstance(found, Master):
                return found
            problem = found
        return problem

    def states(self) -> list[tuple[str, dict[str, str] | str]]:
        """What each sentinel tells of the service, or why it does not, beside its name."""
        return [(self._shown[id(link)], self._state(link)) for link in tuple(self._order)]

    def replicas(self) -> list[Address]:
        """Those that a failover may make the master; none where no sentinel tells."""
        for link in tuple(self._order):
            try:
                (reply,) = link.call_many([("SENTINEL", "REPLICAS", self._service)])
            except StoreUnavailable:
                continue  # another may tell
            if isinstance(reply, list):
                states = [_fields(words) for words in reply]
                return [(one["ip"], int(one["port"])) for one in states if one.keys() >= _NAMED]
        return []

    def close(self) -> None:
        """Close all connections."""
        for link in self._order:
            link.drop()

    def _answer(self, link: RedisLink) -> Master | str:
        state = self._state(link)
        if isinstance(state, str):
            self._put_last(link)
            return f"{self._shown[id(link)]}: {state}"
        return Master(int(state["config-epoch"]), (state["ip"], int(state["port"])))

    def _state(self, link: RedisLink) -> dict[str, str] | str:
        try:
            (reply,) = link.call_many([("SENTINEL", "MASTER", self._service)])
        except StoreUnavailable as error:
            return error.reason
        if isinstance(reply, ResponseError):
            return told(reply)
        state = _fields(reply)
        numbers = (state.get("config-epoch", ""), state.get("port", ""))
        right = "ip" in state and all(one.isascii() and one.isdigit() for one in numbers)
        return state if right else "its answer is not that of a sentinel"

    def _put_last(self, link: RedisLink) -> None:
        self._order = [*(one for one in self._order if one is not link), link]


class SentinelLink(RedisLink):
    """Calls to the master of a service."""

    def __init__(
        self,
        places: Places,
        *,
        timeout_seconds: float,
        name: str = "redis",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(pool_of(places.url_of(places.addresses[0]), timeout_seconds), name)
        self.sentinels = Sentinels(places, timeout_seconds)
        self._places, self._timeout_seconds = places, timeout_seconds
        self._clock = clock
        self._followed: Master | None = None
        self._ask_at = self._asked_at = 0.0
        self._asking = threading.Lock()

    @property
    def master(self) -> Address | None:
        """The master that is followed; None before the first call."""
        return None if self._followed is None else self._followed.address

    def replicas(self) -> Sequence[tuple[str, RedisLink]]:
        return [
            (
                f"{host}:{port}",
                RedisLink(pool_of(self._places.url_of((host, port)), self._timeout_seconds)),
            )
            for host, port in self.sentinels.replicas()
        ]

    def close(self) -> None:
        super().close()
        self.sentinels.close()

    def _take(self) -> Any:
        if self._idle and self._clock() >= self._ask_at:
            self._ask_again()
        return super()._take()

    def _give_back(self, connection: Any, *, usable: bool) -> None:
        """A connection to a master that was left meanwhile is not kept."""
        super()._give_back(connection, usable=usable and _leads(connection, self.master))

    def _ask_again(self) -> None:
        """One call at a time does it; the others go on."""
        if not self._asking.acquire(blocking=False):
            return
        try:
            found = self.sentinels.first()
            if isinstance(found, Master):
                self._follow(found)
            self._ask_at = self._clock() + (
                CHECK_SECONDS if isinstance(found, Master) else LATER_SECONDS
            )
        finally:
            self._asking.release()

    def _follow(self, found: Master) -> None:
        """Leave the connections to another master; an older answer changes nothing."""
        if self._followed is not None and found.epoch < self._followed.epoch:
            return
        moved = found.address != self.master
        self._followed = found
        if moved:
            self.drop()

    def _connect(self, **changed: Any) -> Any:
        """A connection to a master. Raises StoreUnavailable: to ask once more would be no use."""
        problems: list[str] = []
        try:
            for found in self._candidates(problems):
                connection = self._connected(found, problems, changed)
                if connection is not None:
                    self._asked_at = self._clock()
                    self._ask_at = self._asked_at + CHECK_SECONDS
                    return connection
        except ResponseError as error:
            raise self.refused(error) from error
        lost = NoMaster(f"no sentinel leads to a master ({'; '.join(problems)})")
        raise self.breaker.failed(str(lost)) from lost

    def _candidates(self, problems: list[str]) -> Iterator[Master]:
        """Masters to try: as the sentinels are asked, older ones last."""
        known = -1 if self._followed is None else self._followed.epoch
        tried: set[Address] = set()
        older: list[Master] = []
        silent = False
        for answer in self.sentinels.answers():
            if isinstance(answer, str):
                problems.append(answer)
                silent = True
            elif answer.epoch < known:
                older.append(answer)
            elif answer.address not in tried:
                tried.add(answer.address)
                yield answer
        if older and not (silent or tried):
            self._followed = None
            yield max(older)
        elif older:
            problems.append("others name a master of the past")

    def _connected(self, found: Master, problems: list[str], changed: dict[str, Any]) -> Any | None:
        host, port = found.address
        connection = super()._connect(host=host, port=port, **changed)
        try:
            connection.send_command("ROLE")
            role = connection.read_response()[0]
        except (ResponseError, RedisError, OSError) as error:
            connection.disconnect()
            if isinstance(error, ResponseError):
                raise
            problems.append(f"{host}:{port}: {told(error)}")
            return None
        if role != b"master":
            connection.disconnect()
            problems.append(f"{host}:{port} is a {role.decode(errors='replace')}")
            return None
        self._follow(found)
        return connection

    def _moved(self, error: ResponseError) -> bool:
        if "NOREPLICAS" in str(error):  # an old master that is alone says so; or the master itself
            return self._clock() - self._asked_at > CHECK_SECONDS
        return super()._moved(error)


class _NeverOpen(Breaker):
    """Of a sentinel: one that failed is asked last instead."""

    def __init__(self) -> None:
        super().__init__("sentinel", show=lambda _: None)

    def failed(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(self._store, reason)


def _fields(reply: list[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


def _leads(connection: Any, address: Address | None) -> bool:
    return (connection.host, connection.port) == address
