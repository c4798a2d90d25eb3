"""What a collector of the state exporter is: one source, asked in the background."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client.metrics_core import Metric


class Collector(Protocol):
    """One source of state. `name` is its label in `idemwatch_collector_*`."""

    @property
    def name(self) -> str: ...

    def collect(self) -> Iterable[Metric]:
        """Ask the source, now. It may block and it may raise: that costs only its own metrics.

        It is called from one thread at a time. Two collectors may give samples of one family.
        """

    def failed(self) -> Iterable[Metric]:
        """What is told instead while the source fails or hangs; most have nothing to tell."""

    def close(self) -> None:
        """Give back connections."""
