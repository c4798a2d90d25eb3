"""All collectors together: what a scrape is told, and whether the exporter is ready.

Invariants: a scrape puts together text that is there, and waits for no source; every collector has
its `idemwatch_collector_*` from the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .formats import OPENMETRICS, OPENMETRICS_1, encoder_for
from .refresh import Refresher, Seen
from .requests import Answer, Request
from .snapshot import joined, snapshot_of

WATCH_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 3.0
"""How long closing waits for all refreshes together."""


class Exposition:
    """Runs the refreshers, and tells what they have. `constant`: families that never change."""

    def __init__(self, refreshers: Sequence[Refresher], constant: Iterable[Metric] = ()) -> None:
        self._refreshers = tuple(refreshers)
        self._constant = snapshot_of(constant)
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="idemwatch-watch", daemon=True)

    def start(self) -> None:
        """Begin all first refreshes, side by side."""
        for one in self._refreshers:
            one.start()
        self._watcher.start()

    def close(self) -> None:
        """End the refreshes; one that hangs is left to its end."""
        self._closing.set()
        for one in self._refreshers:
            one.stop()
        end = time.monotonic() + CLOSE_SECONDS
        for one in self._refreshers:
            one.close(max(0.0, end - time.monotonic()))
        if self._watcher.ident is not None:
            self._watcher.join(CLOSE_SECONDS)

    def problems(self) -> list[str]:
        """What keeps it from being ready, by collector."""
        seen = (one.seen() for one in self._refreshers)
        return [f"{one.name}: {one.problem}" for one in seen if one.problem is not None]

    def metrics(self, request: Request) -> Answer:
        """The route /metrics."""
        _, content_type = encoder_for(request)
        if content_type.startswith(OPENMETRICS):  # a newer version of it, too, gets the first
            return Answer(HTTPStatus.OK, self.text(openmetrics=True), OPENMETRICS_1)
        return Answer(HTTPStatus.OK, self.text(), content_type)

    def text(self, *, openmetrics: bool = False) -> bytes:
        """The whole exposition, as it is now."""
        seen = [one.seen() for one in self._refreshers]
        told = (snapshot for one in seen for snapshot in one.snapshots)
        own = snapshot_of((*of_collectors(seen), self.dropped()))
        return joined((self._constant, own, *told), openmetrics=openmetrics)

    def dropped(self) -> Metric:
        """The counter of series over a cap."""
        family = CounterMetricFamily(
            "idemwatch_series_dropped", "Series over a cap, counted at each refresh",
            labels=["metric"],
        )  # fmt: skip
        for one in self._refreshers:
            for name, number in one.dropped.items():
                family.add_metric([name], number)
        return family

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_SECONDS):
            for one in self._refreshers:
                one.watch()


def of_collectors(seen: Sequence[Seen]) -> Iterator[Metric]:
    """What is told of the collectors themselves."""
    success = _family("success", "1 while its source answers and what it told is fresh, else 0")
    duration = _family("duration_seconds", "What its last refresh took, or the one that hangs yet")
    last = _family(
        "last_success_timestamp_seconds", "When a refresh succeeded last; 0 until the first one did"
    )
    for one in seen:
        success.add_metric([one.name], float(one.problem is None))
        duration.add_metric([one.name], one.took_seconds)
        last.add_metric([one.name], one.succeeded_at)
    yield from (success, duration, last)


def _family(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"idemwatch_collector_{name}", text, labels=["collector"])
