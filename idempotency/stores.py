"""The stores of one process, made when first needed, since no client may be shared by a fork."""

from __future__ import annotations

import logging
import threading
from typing import Final, cast

from .cached_store import CachedStore, DoneCache
from .errors import ConfigurationError, StoreUnavailable
from .keep_last_store import KeepLastStore
from .memory_store import MemoryStore
from .postgres_link import ANSWER_SECONDS, PostgresLink
from .postgres_store import PostgresStore
from .redis_link import CACHE_TIMEOUT_SECONDS, RedisLink
from .redis_store import RedisStore
from .settings import Settings
from .store import Store, SwapStore

log = logging.getLogger(__name__)

MEMORY: Final = MemoryStore()
"""The records of IDEMWATCH_STORE=memory; they live as long as the process."""


class Stores:
    """Stores by authority, over one link to each server.

    `answer_seconds`: what PostgreSQL may take for a statement; None: as long as it likes.
    """

    def __init__(self, settings: Settings, answer_seconds: float | None = ANSWER_SECONDS) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._made: dict[str, Store] = {}
        self._making = threading.RLock()
        self._database: PostgresLink | None = None
        self._lender: PostgresLink | None = None

    def get(self, authority: str) -> Store:
        """The deciding store; `<authority>/keep_last` is the same for tasks that keep the last.

        Raises ConfigurationError when its address is not set.
        """
        store = self._made.get(authority)
        if store is None:
            with self._making:
                store = self._made.get(authority) or self._made.setdefault(
                    authority, self._make(authority)
                )
        return store

    def notes(self) -> Store:
        """Where publishers leave notes: Redis if there is one, since losing them costs little."""
        memory = self._settings.store == "memory"
        return self.get("redis" if self._settings.redis_url and not memory else "postgres")

    def database(self) -> PostgresLink | None:
        """The link to PostgreSQL, if it is configured."""
        if self._settings.database_url is None or self._settings.store == "memory":
            return None
        with self._making:
            if self._database is None:
                self._database = PostgresLink(
                    self._settings.database_url,
                    self._answer_seconds,
                    pooled=self._settings.database_pooled,
                )
            return self._database

    def lender(self) -> PostgresLink | None:
        """Connections for the transactions of callers, who may keep them for long."""
        url = self._settings.database_url
        if url is None or self._settings.store == "memory":
            return None
        with self._making:
            if self._lender is None:
                self._lender = PostgresLink(url, pooled=self._settings.database_pooled)
            return self._lender

    def _make(self, authority: str) -> Store:
        decider, _, kept = authority.partition("/")
        if kept:
            return KeepLastStore(self._uncached(decider))
        if self._settings.store == "memory":
            return MEMORY
        if authority == "redis":
            return self._make_redis()
        return self._make_postgres()

    def _uncached(self, authority: str) -> SwapStore:
        """The deciding store without what Redis knows: a key that keeps the last is done anew."""
        if authority == "postgres" and self._settings.store != "memory":
            link = self._postgres_link()
            return PostgresStore(link, self._settings.namespace, self._settings.region)
        return cast(SwapStore, self.get(authority))

    def _make_redis(self) -> RedisStore:
        url = self._settings.redis_url
        if url is None:
            raise ConfigurationError("idempotency_redis_url", _unset("redis", "redis://host/0"))
        return RedisStore(RedisLink.from_url(url), self._settings.namespace)

    def _make_postgres(self) -> PostgresStore:
        link = self._postgres_link()
        settings = self._settings
        if settings.redis_url is None:
            return PostgresStore(link, settings.namespace, settings.region)
        redis_link = RedisLink.from_url(settings.redis_url, timeout_seconds=CACHE_TIMEOUT_SECONDS)
        cache = DoneCache(redis_link, settings.namespace)
        return CachedStore(link, settings.namespace, settings.region, cache=cache)

    def _postgres_link(self) -> PostgresLink:
        link = self.database()
        if link is None:
            raise ConfigurationError(
                "idempotency_database_url", _unset("postgres", "postgresql://user@host/database")
            )
        return link

    def close(self) -> None:
        """Give back all connections."""
        for store in self._made.values():
            store.close()
        for link in (self._database, self._lender):
            if link is not None:
                link.close()


def _unset(authority: str, example: str) -> str:
    return (
        f"is not set, and authority {authority!r} needs it (for example {example}); "
        "or set IDEMWATCH_STORE=memory in unit tests"
    )


def warn_of_eviction(store: RedisStore) -> None:
    """Say so when Redis may drop records that decide."""
    try:
        policy = store.eviction_policy()
    except StoreUnavailable:
        return  # the first claim will say so
    if policy not in ("noeviction", "unknown"):
        log.warning(
            "Redis may evict idempotency records (maxmemory-policy %s): work may be repeated; "
            "set maxmemory-policy noeviction, or use authority postgres",
            policy,
        )
