"""Services over each kind of store, and ways to end a lease behind a holder's back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

from idemwatch.idempotency import IdempotencyService, Settings
from idemwatch.idempotency.metrics import REGISTRY
from idemwatch.idempotency.record import Claim, Record
from idemwatch.idempotency.store import Held, SwapStore

from support.stores import KEY

KINDS = ("memory", "redis", "postgres", "cached")

_numbers = itertools.count()


def service_of(kind: str, url: Callable[[str], str], **changed: Any) -> IdempotencyService:
    """A service in a namespace of its own; `url` gives the address of `redis` or `database`."""
    given: dict[str, Any] = {"namespace": f"s{next(_numbers)}"}
    if kind == "memory":
        given["store"] = "memory"
    if kind in ("redis", "cached"):
        given["redis_url"] = url("redis")
    if kind in ("postgres", "cached"):
        given["database_url"] = url("database")
    given["authority"] = "redis" if kind == "redis" else "postgres"
    return IdempotencyService(Settings(**{**given, **changed}))


def hold(service: IdempotencyService, key: str = KEY, **changed: Any) -> Held:
    """Another process has a key."""
    given = {"owner": f"owner{next(_numbers)}", "authority": service.settings.authority}
    claim = Claim(key=key, **{**given, **changed})
    answer = service.store.claim(claim)
    assert answer.granted, answer
    created = answer.fence if answer.record is None else answer.record.created_us
    return Held(claim=claim, fence=answer.fence, created_us=created)


def end_lease(service: IdempotencyService, key: str = KEY) -> None:
    """Let the lease of a key run out now."""
    store = cast(SwapStore, service.store)
    found = store.find(key)
    assert found is not None
    assert store._swap(key, found, found.record._replace(due_us=found.now_us - 1))


def record(service: IdempotencyService, key: str = KEY) -> Record:
    """The record of a key, which must be there."""
    found = service.show(key)
    assert found is not None
    return found


def counted(sample: str, **labels: str) -> float:
    """A sample of our metrics; 0 where there is none."""
    return REGISTRY.get_sample_value(f"idemwatch_{sample}", labels) or 0
