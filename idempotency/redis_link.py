"""Connections to Redis: one command, one reply, one retry.

Commands go straight over redis-py's connections. Its client object and pool cost more than the
round trip itself (measured on redis-py 8: 94 against 52 microseconds of CPU), and a pool of ours is
a deque. A connection whose reply was not read is never used again.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from .breaker import Breaker
from .errors import ConfigurationError, StoreUnavailable, UnreadableRecord
from .redis_scripts import Script
from .redis_urls import CLUSTER_FORM, SETTING, places_of

CACHE_TIMEOUT_SECONDS: Final = 0.25
TIMEOUT_SECONDS: Final = 1.0
_KINDS: Final[dict[type[ResponseError], str]] = {
    MovedError: "MOVED",  # is an AskError too
    AskError: "ASK",
    TryAgainError: "TRYAGAIN",
    ClusterDownError: "CLUSTERDOWN",
}
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_SECRET: Final = re.compile(r"(://)[^@\s]*(@)|(password=)[^&\s]*")


class RedisLink:
    """Calls to one Redis. Safe among threads; make a new one after a fork."""

    def __init__(
        self, pool: redis.ConnectionPool, name: str = "redis", breaker: Breaker | None = None
    ) -> None:
        self.name = name
        self.breaker = breaker or Breaker(name)
        self._pool = pool
        self._idle: deque[Any] = deque()

    @classmethod
    def from_url(
        cls, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, name: str = "redis"
    ) -> RedisLink:
        """A link to `url`. Raises ConfigurationError for one that cannot be used.

        It connects when it is first asked, so it may be made before a fork.
        """
        places = places_of(url)
        if places is None:
            return cls(pool_of(url, timeout_seconds), name)
        if places.kind == "sentinel":
            from .redis_sentinel import SentinelLink

            return SentinelLink(places, timeout_seconds=timeout_seconds, name=name)
        from .redis_cluster import ClusterLink

        return ClusterLink(places, timeout_seconds=timeout_seconds, name=name)

    def call(self, *command: Any) -> Any:
        """Send one command, return its reply. Raises StoreUnavailable or UnreadableRecord.

        It is sent once more when the connection broke, so it must be safe to send twice. While
        the breaker is open it fails at once.
        """
        self.breaker.require()
        try:
            try:
                reply = self._call(command)
            except (*_LOST, ResponseError) as error:
                if isinstance(error, ResponseError) and not self._moved(error):
                    raise
                self.drop()
                reply = self._call(command)
        except ResponseError as error:
            if not self._moved(
                error
            ):  # a refusal is an answer: an unknown script must not keep it open
                self.breaker.succeeded()
            raise self.refused(error) from error
        except (RedisError, OSError) as error:
            raise self.breaker.failed(told(error)) from error
        if self.breaker.is_open:
            self.breaker.succeeded()
        return reply

    def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Run a script by its SHA-1, and by its text where Redis does not know it yet."""
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return self.call("EVAL", script.source, len(keys), *keys, *args)

    def run_many(self, script: Script, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Run a script for many single keys in one batch; a failed one answers its error."""
        self.call("SCRIPT", "LOAD", script.source)
        return self.call_many([("EVALSHA", script.sha, 1, key, *args) for key, args in calls])

    def call_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send all commands, then read all replies; a failed one answers its error."""
        self.breaker.require()
        connection, done = None, False
        try:
            connection = self._take()
            connection.send_packed_command(connection.pack_commands(commands))
            replies = [_reply(connection) for _ in commands]
            for reply in replies:
                if isinstance(reply, ResponseError) and self._moved(reply):
                    self.drop()
                    raise reply
            done = True
            return replies
        except (RedisError, OSError) as error:
            raise self.breaker.failed(told(error)) from error
        finally:
            if connection is not None:
                self._give_back(connection, usable=done)

    def block(self, timeout_seconds: float, *command: Any) -> Any:
        """One blocking command, on a connection of its own that reads longer than it blocks."""
        connection = None
        try:
            connection = self._connect(socket_timeout=timeout_seconds + TIMEOUT_SECONDS)
            connection.send_command(*command)
            return connection.read_response()
        except ResponseError as error:
            raise self.refused(error) from error
        except (RedisError, OSError) as error:
            raise self.breaker.failed(told(error)) from error
        finally:
            if connection is not None:
                connection.disconnect()

    def each(self, *command: Any) -> list[Any]:
        """The replies of all servers that keep records: for what names no key."""
        return [link.call(*command) for _, link in self.nodes()]

    def walk(self, pattern: str, count: int = 500) -> Iterator[list[bytes]]:
        """All keys that fit, of all servers, in batches; a key that moves may come twice."""
        for _, link in self.nodes():
            cursor = b"0"
            while True:
                cursor, names = link.call("SCAN", cursor, "MATCH", pattern, "COUNT", count)
                yield names
                if cursor == b"0":
                    break

    def nodes(self) -> Sequence[tuple[str, RedisLink]]:
        """The servers that keep records, each with its address ("" where there is but one)."""
        return (("", self),)

    def replicas(self) -> Sequence[tuple[str, RedisLink]]:
        """Those that may take a master's place, where that is known; close them after use."""
        return ()

    def drop(self) -> None:
        """Close all idle connections."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return

    def close(self) -> None:
        """Close all idle connections, for good."""
        self.drop()
        self.breaker.close()

    def _call(self, command: tuple[Any, ...]) -> Any:
        connection = self._take()
        done = False
        try:
            connection.send_packed_command((pack_command(command),), check_health=False)
            reply = connection.read_response()
            done = True
            return reply
        except ResponseError as error:
            done = not self._moved(error)
            raise
        finally:
            self._give_back(connection, usable=done)

    def _take(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self, **changed: Any) -> Any:
        return self._pool.connection_class(**{**self._pool.connection_kwargs, **changed})

    def _give_back(self, connection: Any, *, usable: bool) -> None:
        if usable:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def _moved(self, error: ResponseError) -> bool:
        """Whether the server is no longer the one to ask, as after a failover."""
        text = str(error)
        named = text.startswith(("LOADING", "MASTERDOWN")) or "READONLY" in text
        return named or isinstance(error, ReadOnlyError | MasterDownError)

    def refused(self, error: ResponseError) -> StoreUnavailable:
        """The error to raise for a refusal."""
        if "WRONGTYPE" in str(error):
            return UnreadableRecord(
                self.name, "the key holds a value of another type, which idemwatch did not write"
            )
        if kind_of(error) == "MOVED":
            problem = f"it is a node of a cluster: {SETTING} is written {CLUSTER_FORM}"
            return StoreUnavailable(self.name, f"{problem} ({told(error)})")
        return StoreUnavailable(self.name, told(error))


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def pool_of(url: str, timeout_seconds: float) -> redis.ConnectionPool:
    """How to connect to one server. Raises ConfigurationError for what redis-py refuses."""
    try:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_connect_timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            **({} if url.startswith("unix") else {"socket_keepalive": True}),
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        pool.connection_class(**pool.connection_kwargs)  # it refuses unknown options
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigurationError(SETTING, told(error)) from None
    return pool


def kind_of(error: BaseException | None) -> str:
    """What a node of a cluster refuses with: MOVED, ASK, TRYAGAIN, CLUSTERDOWN, or "".

    Older versions of redis-py know these only in their cluster's client, and leave the word.
    """
    if not isinstance(error, ResponseError):
        return ""
    for kind, word in _KINDS.items():
        if isinstance(error, kind):
            return word
    word = str(error).partition(" ")[0]
    return word if word in _KINDS.values() else ""


def told(error: BaseException) -> str:
    """An error of the driver in one line, without passwords."""
    text = _SECRET.sub(r"\1\3***\2", str(error)) or "no reason given"
    return f"{type(error).__name__}: {text[:200]}"
