"""What the worker's /metrics says, read as a scrape reads it.

Invariant: the numbers shown are those that Prometheus would get; a worker that has gone is added
to the ones after it, as `increase()` does over a counter's reset.
"""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

TURNED_AWAY: Final = ("duplicate", "running")
RAN: Final = ("granted", "taken_over")
_SCRAPE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One task: how often it ran to an end, and what became of its other deliveries."""

    task: str
    executed: int
    turned_away: int
    met_running: int
    checks: int

    @property
    def hit_rate(self) -> float:
        """The part of all checks that found a duplicate."""
        return self.turned_away / self.checks if self.checks else 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """The counters of one or more workers: task and outcome, or task and "executed"."""

    counts: Counter[tuple[str, str]]
    active: int = 0

    def __add__(self, later: Score) -> Score:
        counts = Counter(self.counts)
        counts.update(later.counts)  # `+` would drop the zeros
        return Score(counts, later.active)

    def rows(self) -> list[Row]:
        """One row for each task, by name."""
        return [self._row(task) for task in sorted({task for task, _ in self.counts})]

    def total(self) -> Row:
        """All tasks together."""
        rows = self.rows()
        return Row(
            "all",
            sum(row.executed for row in rows),
            sum(row.turned_away for row in rows),
            sum(row.met_running for row in rows),
            sum(row.checks for row in rows),
        )

    def _row(self, task: str) -> Row:
        turned_away = sum(self.counts[task, outcome] for outcome in TURNED_AWAY)
        ran = sum(self.counts[task, outcome] for outcome in RAN)
        running = self.counts[task, "running"]
        return Row(task, self.counts[task, "executed"], turned_away, running, ran + turned_away)


NOTHING: Final = Score(Counter())


def scrape(url: str) -> Score:
    """The score at a /metrics URL. Raises OSError when nobody answers."""
    with urllib.request.urlopen(url, timeout=_SCRAPE_SECONDS) as reply:  # noqa: S310  ours, http
        return read(reply.read().decode())


def read(exposition: str) -> Score:
    """The score in a text exposition."""
    counts: Counter[tuple[str, str]] = Counter()
    active = 0
    for name, labels, value in _samples(exposition):
        if name == "idemwatch_claims_total":
            counts[labels["task"], labels["outcome"]] += int(value)
        elif name == "idemwatch_task_seconds_count":
            counts[labels["task"], "executed"] += int(value)
        elif name == "idemwatch_worker_tasks" and labels["state"] == "active":
            active = int(value)
    return Score(counts, active)


def _samples(exposition: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
