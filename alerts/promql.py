"""Pieces of PromQL that rules share.

State comes from exporters of which several may run, so it is the largest over instances; what
workers count is added up. Windows are many times a scrape interval of 15 s.
"""

from __future__ import annotations

from typing import Final

from .rule import Build

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


def worker(build: Build, metric: str, *matchers: str) -> str:
    """The series of workers."""
    return _selector(metric, build.worker_job, *matchers)


def state(build: Build, metric: str, *matchers: str, by: str = "job") -> str:
    """A metric of the state exporter, one series for each value of `by`."""
    return f"max by ({by}) ({_selector(metric, build.job, *matchers)})"


def state_series(build: Build, metric: str, *matchers: str) -> str:
    """The same of each exporter."""
    return _selector(metric, build.job, *matchers)


def unless_failed(build: Build, collector: str) -> str:
    """Leaves nothing while a collector fails: what it told last may not be so any more."""
    success = state(build, "collector_success", f'collector="{collector}"')
    return f"unless on (job) {success} == 0"


def increase(build: Build, metric: str, seconds: float, *matchers: str, by: str) -> str:
    """By how much a counter of workers grew."""
    window = build.scale.window(seconds)
    return f"sum by ({by}) (increase({worker(build, metric, *matchers)}[{window}]))"


def recorded(build: Build, series: str) -> str:
    """A recorded series of the workers' job: rules of two jobs may be loaded side by side."""
    return f'{series}{{job="{build.worker_job}"}}'


def number(value: float) -> str:
    """A threshold as PromQL and people read it."""
    return f"{value:.15g}"


def percent(ratio: float) -> str:
    """A threshold that is a ratio, for people."""
    return f"{number(100 * ratio)}%"


def _selector(metric: str, job: str, *matchers: str) -> str:
    chosen = ", ".join((f'job="{job}"', *matchers))
    return f"idemwatch_{metric}{{{chosen}}}"
