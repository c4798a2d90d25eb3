"""A circuit breaker: leaves a store out for a moment after it failed, and asks it again then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from . import metrics
from .errors import StoreLeftOut, StoreUnavailable

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 5.0


class Breaker:
    """Open after a failure, for 0.5 s at first and up to 5 s; one caller tries it then.

    Races between threads cost at most a try too many. show: told when it opens and closes;
    default: the store's gauge.
    """

    def __init__(
        self,
        store: str,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[bool], object] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._show = show or metrics.CIRCUIT_OPEN.labels(store).set
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until = 0.0
        self.is_open = False

    def allows(self) -> bool:
        """Whether to ask the store now."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        self._open_until = now + self._pause  # this caller tries, the others go on without
        return True

    def succeeded(self) -> None:
        """The store answered."""
        if self.is_open:
            self.is_open = False
            self._pause = FIRST_PAUSE_SECONDS
            self._show(False)
            log.info("%s answers again", self._store)

    def require(self) -> None:
        """Raise StoreLeftOut while the store is left out."""
        if self.is_open and not self.allows():
            raise StoreLeftOut(self._store)

    def close(self) -> None:
        """Nobody asks any more: what is left of it is not shown as an outage."""
        self._show(False)

    def failed(self, reason: str) -> StoreUnavailable:
        """The store did not answer. Returns the error to raise."""
        self._open_until = self._clock() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        if not self.is_open:
            self.is_open = True
            self._show(True)
            log.warning("%s is left out for a moment: %s", self._store, reason)
        return StoreUnavailable(self._store, reason)
