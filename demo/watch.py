"""What the demo knows of alerts: what Prometheus fires, and what was delivered.

Without Prometheus and Alertmanager it knows nothing, and says so by being empty.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Set
from typing import Final

from .monitoring import Monitoring
from .webhook import Notification

LOOK_SECONDS: Final = 1.0


class Watch:
    """Looks at Prometheus once a second, however often it is asked."""

    def __init__(self, monitoring: Monitoring | None) -> None:
        self._monitoring = monitoring
        self._next = 0.0
        self.firing: Set[str] = frozenset()
        """As of the last look."""
        self.ever: set[str] = set()
        """All that fired at one look at least."""

    @property
    def watches(self) -> bool:
        """Whether there is a Prometheus to look at."""
        return self._monitoring is not None

    def look(self) -> Set[str]:
        """What fires now; what fired before while Prometheus is too busy to answer."""
        if self._monitoring is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_SECONDS
            with contextlib.suppress(OSError):  # that it has ended is noticed by the crew
                self.firing = self._monitoring.firing()
            self.ever |= self.firing
        return self.firing

    def notifications(self) -> list[Notification]:
        """What was delivered so far, each once."""
        return [] if self._monitoring is None else self._monitoring.notifications()

    @property
    def pages(self) -> int:
        """How often somebody was woken."""
        return sum(one.page for one in self.notifications())
