"""A reply that gets lost: the statement was executed, and the link sends it once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from idemwatch.idempotency.cached_store import CachedStore
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.store import SwapStore


class LossyLinks:
    """The links of a store; `lose` the reply to one of the next statements or scripts."""

    def __init__(self, store: SwapStore) -> None:
        self._left = -1
        if isinstance(store, MemoryStore):
            return  # nothing lies between it and its records
        links = [store._link]  # type: ignore[attr-defined]
        if isinstance(store, CachedStore):
            links.append(store.cache._link)
        for link in links:
            for name in ("run", "call"):
                if hasattr(link, name):
                    setattr(link, name, self._lossy(getattr(link, name)))

    def lose(self, after: int) -> None:
        """Lose one reply, when so many others have come."""
        self._left = after

    def _lossy(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def sent(*args: Any) -> Any:
            reply = send(*args)
            self._left -= 1
            return send(*args) if self._left == -1 else reply

        return sent
