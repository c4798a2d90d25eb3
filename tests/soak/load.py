"""What is published: works by chance, a part of them more than once; each message is counted."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter
from typing import Final

import redis
from celery import Celery

SHARES: Final = {
    "postgres": 25,
    "redis": 25,
    "transaction": 12,
    "once": 12,
    "retries": 12,
    "fails": 8,
    "locks": 6,
}
REPEATED: Final = 0.25
"""So many works are published again, up to MOST_COPIES times."""
MOST_COPIES: Final = 3
FULL: Final = 300
"""Messages that wait for a worker or are with one: there is always more to do."""
BURST: Final = 40


class Load:
    """Keeps the queue full. `works` and `messages` are counted by kind."""

    def __init__(self, broker: str, seed: int, latest_copy_seconds: float) -> None:
        self.works: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._latest = latest_copy_seconds
        self._numbers = itertools.count(1)
        self._copies: list[tuple[float, int, str]] = []
        self._app = Celery("soak-publisher", broker=broker, set_as_current=False)
        self._client = redis.Redis.from_url(broker)

    def waiting(self) -> int:
        """Messages that are not acknowledged."""
        return int(self._client.llen("celery")) + int(self._client.hlen("unacked"))

    def keep_full(self) -> bool:
        """Publish some if the queue is not full; whether it was."""
        now = time.monotonic()
        while self._copies and self._copies[0][0] <= now:
            self._send(*heapq.heappop(self._copies)[2:0:-1])
        if self.waiting() >= FULL:
            return True
        for kind in self._chance.choices(list(SHARES), list(SHARES.values()), k=BURST):
            self._begin(kind, now)
        return False

    def _begin(self, kind: str, now: float) -> None:
        number = next(self._numbers)
        self.works[kind] += 1
        self._send(kind, number)
        if self._chance.random() < REPEATED:
            for _ in range(self._chance.randint(1, MOST_COPIES)):
                due = now + self._chance.random() ** 2 * self._latest
                heapq.heappush(self._copies, (due, number, kind))

    def _send(self, kind: str, number: int) -> None:
        self._app.send_task(f"soak.{kind}", (number,))
        self.messages[kind] += 1

    def finish(self) -> None:
        """Publish the copies that were still to come."""
        while self._copies:
            self._send(*heapq.heappop(self._copies)[2:0:-1])

    def close(self) -> None:
        """Give back the connections."""
        self._app.close()
        self._client.close()
