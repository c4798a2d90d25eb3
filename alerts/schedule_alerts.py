"""Alerts on schedules and on the beat that fires them.

None speaks while the collector that it rests on fails: that has an alert of its own.
"""

from __future__ import annotations

from typing import Final

from .names import SCHEDULES
from .promql import MINUTE, number, state, unless_failed
from .rule import Alert, Build, Group

TICK_SECONDS: Final = 20.0
"""A beat ticks each 5 s, and its tick is read at most 15 s later: no scale makes that faster."""
BY_SCHEDULE: Final = "job, schedule, task"
ACTIVE: Final = 'status="active"'


def group(build: Build) -> Group:
    """The alerts, in their order on the page."""
    return Group(
        "idemwatch-schedules",
        [_health_low(build), _hotspots(build), _overdue(build), _beat_stalled(build)],
    )


def _health_low(build: Build) -> Alert:
    least = number(build.thresholds.health)
    return Alert(
        name="ScheduleHealthLow",
        expr=f"{state(build, 'schedule_health_score')} < {least}\n"
        f"{unless_failed(build, 'schedules')}",
        for_seconds=10 * MINUTE,
        severity="critical",
        summary="The schedules are in bad health",
        description="The health score of all schedules is {{ $value | humanize }} of 100; "
        f"{least} is the limit.",
        board=SCHEDULES,
    )


def _hotspots(build: Build) -> Alert:
    most = number(build.thresholds.hotspots)
    return Alert(
        name="ScheduleHotspots",
        expr=f"{state(build, 'schedule_hotspots')} > {most}\n{unless_failed(build, 'schedules')}",
        for_seconds=30 * MINUTE,
        severity="warning",
        summary="Schedules crowd together",
        description="Half hours of the day with a load over 70%: {{ $value }}; "
        f"{most} is the limit.",
        board=SCHEDULES,
    )


def _overdue(build: Build) -> Alert:
    """Two periods, but not less than what a served snapshot may be old."""
    due = state(build, "schedule_next_run_timestamp_seconds", by=BY_SCHEDULE)
    period = state(build, "schedule_interval_seconds", by=BY_SCHEDULE)
    least = build.scale.number(5 * MINUTE)
    return Alert(
        name="ScheduleOverdue",
        expr=f"time() - {due}\n  > clamp_min(2 * {period}, {least})\n"
        f"{unless_failed(build, 'schedules')}",
        for_seconds=5 * MINUTE,
        severity="critical",
        summary="{{ $labels.schedule }} does not run",
        description="{{ $labels.schedule }} (task {{ $labels.task }}) was due "
        "{{ $value | humanizeDuration }} ago and was not fired: more than two of its periods.",
        board=SCHEDULES,
    )


def _beat_stalled(build: Build) -> Alert:
    """Only where there ever was a beat of ours, and something to fire."""
    since = f"time() - {state(build, 'beat_last_tick_timestamp_seconds')}"
    active = state(build, "schedules", ACTIVE)
    limit = build.scale.number(2 * MINUTE, least=TICK_SECONDS)
    return Alert(
        name="BeatStalled",
        expr=f"(\n  {since} > {limit}\n"
        f"or\n  {since}\n  and on (job) {state(build, 'schedules_overdue')} >= {active}\n)\n"
        f"and on (job) {active} > 0\n"
        f"{unless_failed(build, 'beats')}",
        for_seconds=5 * MINUTE,
        # It is over with the first tick, and what was overdue only with the next look at schedules:
        # so long it still inhibits ScheduleOverdue.
        keep_seconds=2 * MINUTE,
        severity="critical",
        summary="No beat fires schedules",
        description="Nothing is scheduled any more: the last tick of a beat was "
        "{{ $value | humanizeDuration }} ago, or it ticks and every active schedule is overdue.",
        board=SCHEDULES,
    )
