"""How many keys that Redis decides are poisoned.

Redis lists a key before its record is poisoned, so a listed key is looked up before it counts.
Invariant: a refresh asks for at most `MOST` records, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_link import RedisLink
from prometheus_client.metrics_core import Metric

from .record_collector import poisoned_family

MOST: Final = 1000
"""Beyond so many they are counted as they are listed."""
_HEAD_BYTES: Final = 300
_POISONED: Final = re.compile(rb"iw1 \S+ \S+ poisoned ").match


class PoisonedCollector:
    """Poisoned keys of authority `redis`."""

    name = "redis_records"

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link, self._namespace = link, namespace

    def collect(self) -> list[Metric]:
        return [poisoned_family("redis", self._count())]

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        self._link.close()

    def _count(self) -> int:
        listed = f"{self._namespace}:poisoned"
        number = int(self._link.call("SCARD", listed))
        if number == 0:
            return 0
        keys: list[bytes] = self._link.call("SRANDMEMBER", listed, MOST)
        heads = self._link.call_many([self._head(key) for key in keys])
        confirmed = sum(_confirmed(head) for head in heads)
        return confirmed + max(0, number - len(keys))

    def _head(self, key: bytes) -> tuple[Any, ...]:
        """Its first fields are all that is asked for: a result may be large."""
        name = f"{self._namespace}:{{".encode() + key + b"}"
        return ("GETRANGE", name, 0, _HEAD_BYTES - 1)


def _confirmed(head: Any) -> bool:
    """What is of another type is no record of ours; another refusal tells nothing of the key."""
    if isinstance(head, Exception):
        if "WRONGTYPE" in str(head):
            return False
        raise StoreUnavailable("redis", f"{type(head).__name__}: {str(head)[:200]}") from head
    return bool(_POISONED(head))
