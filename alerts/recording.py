"""Recording rules: checks, hits and hit rate, for each task, each scope and each job.

A hit is a check that met finished or running work. Every ratio is a sum divided by a sum, and
there is none where nothing was checked, so no NaN gets into the means of a day. The counters of
workers are read once, into `task_scope:...`; all else adds those up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .promql import DAY, HOUR, MINUTE, recorded, worker
from .rule import Build, Group, Record

HITS: Final = "duplicate|running"
CHECKS: Final = "granted|taken_over|duplicate|running"
LEVELS: Final = {"task": "job, task", "scope": "job, scope", "job": "job"}
"""What each level is summed by."""
DAY_INTERVAL_SECONDS: Final = 2 * MINUTE
"""A day's mean reads thousands of samples a task: not at each evaluation."""


def groups(build: Build) -> list[Group]:
    """The groups of recording rules."""
    return [
        Group("idemwatch-checks", [*_read(build), *_added_up(build)]),
        Group("idemwatch-day", _of_a_day(build), DAY_INTERVAL_SECONDS),
    ]


def _read(build: Build) -> Iterator[Record]:
    for name, outcomes in (("checks", CHECKS), ("hits", HITS)):
        claims = worker(build, "claims_total", f'outcome=~"{outcomes}"')
        for operation, function, seconds in (
            ("rate5m", "rate", 5 * MINUTE),
            ("increase1h", "increase", HOUR),
        ):
            yield Record(
                f"task_scope:idemwatch_{name}:{operation}",
                f"sum by (job, task, scope) ({function}({claims}[{build.scale.window(seconds)}]))",
            )


def _added_up(build: Build) -> Iterator[Record]:
    for level, by in LEVELS.items():
        for operation in ("rate5m", "increase1h"):
            checks, hits = (f"idemwatch_{name}:{operation}" for name in ("checks", "hits"))
            for series in (checks, hits):
                parts = recorded(build, f"task_scope:{series}")
                yield Record(f"{level}:{series}", f"sum by ({by}) ({parts})")
            divided = recorded(build, f"{level}:{hits}")
            divisor = recorded(build, f"{level}:{checks}")
            yield Record(
                f"{level}:idemwatch_hits_per_checks:ratio_{operation}",
                f"{divided}\n  / ({divisor} > 0)",
            )


def _of_a_day(build: Build) -> list[Record]:
    """The band of a task: mean and deviation of its hit rate over a day."""
    day = build.scale.window(DAY)
    ratio = "task:idemwatch_hits_per_checks"
    hourly = recorded(build, f"{ratio}:ratio_increase1h")
    return [
        Record(f"{ratio}:{name}1d", f"{name}_over_time({hourly}[{day}])")
        for name in ("avg", "stddev")
    ]
