"""Every bench with its goal: at most so much, or at least, in its unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .celery_benches import key, publish
from .exporter_benches import refresh_1m, scrape_10k
from .lab import Lab
from .measure import Measured
from .postgres_benches import postgres_claim, postgres_cycle, postgres_duplicate
from .redis_benches import claim_complete, claim_duplicate, claim_new, lock
from .schedule_benches import (
    load_map_10k,
    load_map_100k,
    plan_cpu_10k,
    plan_peak_1k,
    plan_peak_10k,
)
from .scrape_bench import scrape_recycled
from .storm_bench import storm_100k
from .table_benches import check_at_10m, purge
from .worker_benches import worker_cpu, worker_cpu_postgres

RATIO: Final = "x"
_SET: Final = "redis-py SET NX PX"
_PLAIN: Final = "plain Celery task"


@dataclass(frozen=True)
class Bench:
    """How it is measured, against what, and how much is allowed."""

    measure: Callable[[Lab], Measured]
    goal: float
    baseline: str = ""
    unit: str = RATIO
    at_least: bool = False
    """Whether more is better, and the goal the least that is allowed."""
    large: bool = False
    """Whether it takes minutes to prepare: only `make bench-large` runs it, or its name."""

    @property
    def name(self) -> str:
        """The name of the function that measures."""
        return self.measure.__name__

    def met(self, value: float, *, by: float = 1.0) -> bool:
        """Whether a value meets the goal, or `by` so many times of it."""
        return value >= self.goal / by if self.at_least else value <= self.goal * by

    @property
    def goal_text(self) -> str:
        """The goal, for people."""
        return f"{'≥' if self.at_least else '≤'} {self.goal:g}"

    def text(self, value: float) -> str:
        """A value in its unit, for people."""
        return f"{value:.3f}" if self.unit == RATIO else f"{value:.3g} {self.unit}"


BENCHES: Final = {
    bench.name: bench
    for bench in (
        Bench(claim_new, 1.15, _SET),
        Bench(claim_duplicate, 1.05, _SET),
        Bench(claim_complete, 2.1, _SET),
        Bench(lock, 2.2, _SET),
        Bench(postgres_claim, 1.3, "prepared INSERT"),
        Bench(postgres_cycle, 1.15, "GET, INSERT, UPDATE, SET"),
        Bench(postgres_duplicate, 1.15, "redis-py GET"),
        Bench(key, 15.0, unit="µs"),
        Bench(publish, 1.02, "plain apply_async"),
        Bench(worker_cpu, 1.15, _PLAIN),
        Bench(worker_cpu_postgres, 1.5, _PLAIN),
        Bench(check_at_10m, 1.3, "10,000 records", large=True),
        Bench(storm_100k, 1.15, _PLAIN, large=True),
        Bench(scrape_recycled, 1.2, "after no child"),
        Bench(scrape_10k, 400.0, unit="ms"),
        Bench(refresh_1m, 1.5, "1,000 records", large=True),
        Bench(load_map_10k, 0.4, "cronstable"),
        Bench(load_map_100k, 12.0, "10,000 schedules"),
        Bench(plan_peak_1k, 1.02, "lower bound"),
        Bench(plan_peak_10k, 1.02, "lower bound"),
        Bench(plan_cpu_10k, 0.6, unit="s"),
        Bench(purge, 0.8, "bare batched DELETE", at_least=True, large=True),
    )
}
