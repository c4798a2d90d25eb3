"""Panels and words that stand on more than one board."""

from __future__ import annotations

from . import looks, panels
from .options import Options
from .panels import Panel, Query
from .promql import CHECKS, GRADE_OF, HITS, PAGED, hit_rate, increase, or_zero, state

ABOUT = (
    "{what} All figures are of the chosen jobs and instances.\n\n"
    "- **Choose a source**: under *Data source*, take the Prometheus that scrapes idemwatch.\n"
    "- **No exporter, no worker's metrics**: Prometheus must scrape `idemwatch exporter` "
    "(job `{job}`) and the workers (job `{worker_job}`); *Job* and *Instance* must not leave them "
    "out. Prometheus tells under *Status, Targets* what it scrapes."
)


def hit_rate_now(options: Options, *matchers: str) -> Panel:
    """The figure that the alert on the hit rate looks at, red when it may page."""
    limit = options.thresholds.hit_rate
    return panels.stat(
        "Hit rate",
        "Share of the checks of the last 5 minutes that met work which was done or running. Red "
        f"over {100 * limit:g}%: IdempotencyHitRateHigh pages if the last hour is over it too, "
        f"with at least {options.thresholds.least_checks:g} checks.",
        or_zero(hit_rate(*matchers, window=PAGED)),
        unit="percentunit",
        decimals=1,
        limits=looks.steps(looks.GREEN, (looks.over_ratio(limit), looks.RED)),
    )


def duplicates_prevented(*matchers: str) -> Panel:
    """How much work was not done twice."""
    return counted(
        "Duplicates prevented",
        "Executions over the chosen time that were not done again, since their work was done or "
        "running.",
        increase("claims_total", *matchers, HITS),
    )


def checks(*matchers: str) -> Panel:
    """How much was looked at."""
    return counted(
        "Checks",
        "Executions over the chosen time that asked whether their work was done already.",
        increase("claims_total", *matchers, CHECKS),
    )


def counted(title: str, description: str, expr: str, *, alarm: bool = False) -> Panel:
    """By how much a counter grew over the chosen time; `alarm`: red from the first on."""
    # A single event, extrapolated to the ends of the range, is about 1: half tells it from none.
    limits = looks.steps(looks.GREEN, (0.5, looks.RED)) if alarm else None
    return panels.stat(title, description, or_zero(expr), unit="locale", limits=limits)


def figure(
    title: str, description: str, metric: str, *matchers: str, alarm: float | None = None
) -> Panel:
    """A figure of the state exporter; `alarm`: red from this number on."""
    limits = looks.steps(looks.GREEN, (alarm, looks.RED)) if alarm is not None else None
    return panels.stat(
        title, description, state(metric, *matchers), empty=looks.NO_STATE, limits=limits
    )


def hotspots(options: Options) -> Panel:
    """Half hours with too much load."""
    limit = options.thresholds.hotspots
    return figure(
        "Hotspots",
        "Half hours of the day whose load is over 70% on the worst of 7 days. "
        f"Red over {limit:g}: ScheduleHotspots tells.",
        "schedule_hotspots",
        alarm=looks.over_count(limit),
    )


def active_schedules() -> Panel:
    """How many schedules run."""
    return figure(
        "Active schedules",
        "Schedules that run; those that are paused or cancelled are not counted.",
        "schedules",
        'status="active"',
    )


def grade() -> Query:
    """The grade as a number: 1 for A to 5 for F."""
    return Query(GRADE_OF, "Grade")


def about(options: Options, what: str) -> Panel:
    """What a board is for, and what to do when it shows nothing."""
    content = ABOUT.format(what=what, job=options.job, worker_job=options.worker_job)
    return panels.text("About this board", "What it is for, and what empty panels mean.", content)
