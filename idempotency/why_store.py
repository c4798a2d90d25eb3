"""Finds records for `keys why`: by key, by the beginning of a key, by a task id.

Invariant: it only reads, and every search ends: PostgreSQL's statements and the walk through Redis
have a deadline, and a place that fails or is not searched to its end is said to be so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from .errors import ConfigurationError, StoreUnavailable, UnreadableRecord
from .listing_store import Entry, PostgresListing
from .postgres_link import PostgresLink
from .postgres_store import PostgresStore
from .redis_link import RedisLink
from .redis_store import RedisStore
from .settings import Settings
from .store import Found
from .why import Seen
from .wire import quoted

SEARCH_SECONDS: Final = 20.0
MOST: Final = 10
"""Keys that are listed of those that fit."""
_HEAD_BYTES: Final = 8192
_TASK_ID, _WAITERS = 10, 15
_SPECIAL: Final = re.compile(r"([\\*?\[\]])")

BY_HEAD: Final = """
SELECT key FROM idempotency_record
 WHERE starts_with(key, %(head)s) ORDER BY key LIMIT %(limit)s
"""
BY_TASK_ID: Final = """
SELECT key FROM idempotency_record
 WHERE starts_with(key, %(head)s)
   AND (task_id = %(task_id)s OR strpos(';' || waiters, %(waiter)s) > 0)
 ORDER BY created_at DESC LIMIT %(limit)s
"""


class Keys(NamedTuple):
    """Keys that were found, and what was not looked through."""

    names: tuple[str, ...]
    problems: tuple[str, ...] = ()


class Reader:
    """The records of the servers that the settings name."""

    def __init__(self, settings: Settings) -> None:
        namespace = settings.namespace
        self._head = f"{namespace}:"
        self._database = self._redis = None
        if settings.database_url is not None:
            self._database = PostgresLink(
                settings.database_url, SEARCH_SECONDS, pooled=settings.database_pooled
            )
            self._records = PostgresStore(self._database, namespace)
            self._listing = PostgresListing(self._database, namespace)
        if settings.redis_url is not None:
            self._redis = RedisLink.from_url(settings.redis_url)
            self._cache = RedisStore(self._redis, namespace)
        if self._database is None and self._redis is None:
            raise ConfigurationError(
                "idempotency_database_url",
                "is not set, nor is idempotency_redis_url: say --database-url or --redis-url",
            )

    def seen(self, key: str) -> list[Seen]:
        """What each place holds of a key."""
        found = []
        if self._database is not None:
            found.append(_seen("postgres", self._records.find, key))
        if self._redis is not None:
            found.append(_seen("redis", self._cache.find, key))
        return found

    def entry(self, key: str) -> Entry | None:
        """PostgreSQL's own columns of a record: its hits, its region."""
        if self._database is None:
            return None
        with suppress(StoreUnavailable):  # `seen` tells that
            return self._listing.get(key)
        return None

    def bare(self, key: str) -> str:
        """The key of a name as it stands in a server: NAMESPACE:KEY, NAMESPACE:{KEY}."""
        inner = key.removeprefix(self._head)
        if inner.startswith("{") and inner.endswith("}"):
            return inner[1:-1]
        return inner

    def beginning(self, head: str) -> Keys:
        """Keys that begin with `head`."""
        return self._search(
            lambda c: c.execute(BY_HEAD, {"head": self._head + head, "limit": MOST + 1}),
            lambda redis: self._walk(redis, head, None),
        )

    def of_task_id(self, task_id: str) -> Keys:
        """Keys whose record names a task id: that of its holder, or of a message that waits."""
        waiter = f";{quote(task_id, safe='')},"
        given = {"head": self._head, "task_id": task_id, "waiter": waiter, "limit": MOST + 1}
        return self._search(
            lambda c: c.execute(BY_TASK_ID, given),
            lambda redis: self._walk(redis, "", lambda raw: _names(raw, quoted(task_id), waiter)),
        )

    def close(self) -> None:
        """Give back all connections."""
        for link in (self._database, self._redis):
            if link is not None:
                link.close()

    def _search(
        self, ask: Callable[[Any], Any], walk: Callable[[RedisLink], Iterator[str]]
    ) -> Keys:
        names: dict[str, None] = {}
        problems = []
        if self._database is not None:
            try:
                rows = self._database.run(lambda c: ask(c).fetchall())
                names.update((key.removeprefix(self._head), None) for (key,) in rows)
            except StoreUnavailable as error:
                problems.append(str(error))
        if self._redis is not None:
            try:
                for name in walk(self._redis):
                    names[name] = None
                    if len(names) > 2 * MOST:
                        break
            except StoreUnavailable as error:
                problems.append(str(error))
        return Keys(tuple(names), tuple(problems))

    def _walk(
        self, redis: RedisLink, head: str, fits: Callable[[bytes], bool] | None
    ) -> Iterator[str]:
        """All keys in Redis that begin with `head`, whose record fits."""
        before = f"{self._head}{{"
        pattern = _SPECIAL.sub(r"\\\1", before + head) + "*"
        deadline = time.monotonic() + SEARCH_SECONDS
        for names in redis.walk(pattern, 1000):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    "redis", f"not all of its keys were looked at in {SEARCH_SECONDS:g} s"
                )
            records = [name for name in names if name.endswith(b"}")]  # not a lock's waiters
            for name in records if fits is None else _fitting(redis, records, fits):
                yield name.decode(errors="replace").removeprefix(before)[:-1]


def _fitting(
    redis: RedisLink, names: Sequence[bytes], fits: Callable[[bytes], bool]
) -> list[bytes]:
    if not names:
        return []
    heads = redis.call_many([("GETRANGE", n, 0, _HEAD_BYTES - 1) for n in names])
    pairs = zip(names, heads, strict=True)
    return [name for name, raw in pairs if isinstance(raw, bytes) and fits(raw)]


def _seen(place: str, find: Callable[[str], Found | None], key: str) -> Seen:
    try:
        return Seen(place, find(key))
    except UnreadableRecord as error:
        return Seen(place, problem=error.reason, unreadable=True)
    except StoreUnavailable as error:
        return Seen(place, problem=error.reason)


def _names(raw: bytes, task_id: str, waiter: str) -> bool:
    """Whether the first line of a record names a task id."""
    fields = raw.partition(b"\n")[0].decode("ascii", "replace").split(" ")
    if len(fields) <= _TASK_ID:
        return False
    waiters = fields[_WAITERS] if len(fields) > _WAITERS else ""
    return fields[_TASK_ID] == task_id or waiter in f";{waiters}"
