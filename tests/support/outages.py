"""A service over servers of the test's own, which it may kill, freeze and empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from idemwatch.idempotency import AlreadyRunning, IdempotencyService, Settings, StoreUnavailable

LEASE_SECONDS = 2.0


@dataclass
class Setting:
    """A service, as those use it who do a piece of work once."""

    service: IdempotencyService

    def finish(self, key: str, value: object = "first") -> None:
        """A piece of work that is done."""
        with self.service.once(key) as work:
            work.result = value

    def finished(self, key: str) -> object:
        """The result of a key; None when it is not finished."""
        found = self.service.check_duplicate(key)
        return None if found is None else found.value

    def claim(self, key: str) -> str:
        """Do the work of a key if it may be done: granted, duplicate or running."""
        try:
            with self.service.once(key) as work:
                return "duplicate" if work.duplicate else "granted"
        except AlreadyRunning:
            return "running"

    def answers(self, key: str) -> bool:
        """Whether the store that decides answers."""
        try:
            self.service.show(key)
        except StoreUnavailable:
            return False
        return True

    def lease_until(self, key: str) -> int:
        """When the lease of a held key ends, in microseconds; 0 while the store is away."""
        try:
            record = self.service.show(key)
        except StoreUnavailable:
            return 0
        return 0 if record is None else record.due_us


@contextmanager
def open_setting(
    redis_url: str, database_url: str | None = None, lease_seconds: float = LEASE_SECONDS
) -> Iterator[Setting]:
    """A service of authority postgres when there is a database, else of authority redis."""
    settings = Settings(
        redis_url=redis_url,
        database_url=database_url,
        authority="postgres" if database_url else "redis",
        lease=timedelta(seconds=lease_seconds),
    )
    service = IdempotencyService(settings)
    try:
        yield Setting(service)
    finally:
        service.engine.close()


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
