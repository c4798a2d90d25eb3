"""The board Overview: is anything wrong, and where."""

from __future__ import annotations

from idemwatch.alerts.names import IDEMPOTENCY

from . import looks, panels, shared
from .layout import Line
from .options import Options
from .panels import Panel, Query
from .promql import (
    CHECKS,
    FIRING,
    HITS,
    SINCE,
    busiest,
    hit_rate,
    increase,
    or_zero,
    rate,
    state,
    wide,
    workers,
)
from .tables import Column, table
from .variables import to_board, to_runbook

DESCRIPTION = "Whether tasks run twice, schedules are healthy and anybody is paged, on one screen."
SEVERITIES = {"critical": looks.RED, "warning": looks.ORANGE, "info": looks.BLUE}
ABOUT_WHOM = ("task", "schedule", "store", "collector", "queue", "authority", "instance")
"""The labels that tell what an alert is about."""


def lines(options: Options) -> list[Line | str]:
    """The panels, line by line."""
    return [
        Line.of(3, *_answer(options)),
        Line(3, list(zip((4, 5, 4, 4, 3, 4), _more(), strict=True))),
        Line(6, [(6, _checks()), (6, _hit_rate(options)), (12, _prevented())]),
        # One under the other: names of tasks do not wrap, and side by side they would be cut.
        Line.of(6, _alerts(options)),
        Line.of(8, _breakdown(options)),
        Line.of(6, shared.about(options, (
            "**Overview** answers whether anything is wrong. The links at the top lead to "
            "*Idempotency* (what runs twice), *Schedules* (what crowds together) and *Pipeline* "
            "(whether these figures can be trusted)."
        ))),
    ]  # fmt: skip


def _answer(options: Options) -> list[Panel]:
    return [
        shared.hit_rate_now(options),
        _health(options),
        shared.active_schedules(),
        shared.hotspots(options),
        panels.stat(
            "Active tasks",
            "Tasks that the workers execute now.",
            or_zero(workers("worker_tasks", 'state="active"')),
        ),
        panels.stat(
            "Scheduled tasks",
            "Tasks queued for execution: messages in the brokers' queues, and what workers have "
            "taken from there and not begun, or hold until their ETA.",
            _waiting(),
        ),
    ]


def _waiting() -> str:
    held = or_zero(workers("worker_tasks", 'state=~"reserved|scheduled"'))
    queued = or_zero(f"sum ({state('queue_messages', by='queue')})")
    return f"({held})\n+ ({queued})"


def _health(options: Options) -> Panel:
    limit = options.thresholds.health
    letters = looks.by_grade({grade: grade for grade in looks.GRADES})
    return panels.stat(
        "Schedule health",
        f"Score of all schedules, 0 to 100, and its grade. Red under {limit:g}: "
        "ScheduleHealthLow pages.",
        [Query(state("schedule_health_score"), "Score"), shared.grade()],
        empty=looks.NO_STATE,
        limits=looks.steps(looks.RED, (limit, looks.GREEN)),
        overrides=[panels.override(
            "byName", "Grade", mappings=letters, color={"fixedColor": looks.TEXT, "mode": "fixed"},
        )],
    )  # fmt: skip


def _more() -> list[Panel]:
    return [
        panels.stat(
            "Firing alerts",
            "Alerts of idemwatch that fire now, but for the watchdog, which always does.",
            or_zero(f"count ({FIRING})"),
            limits=looks.steps(looks.GREEN, (1, looks.RED)),
        ),
        shared.duplicates_prevented(),
        shared.checks(),
        shared.figure(
            "Overdue",
            "Active schedules whose due time and grace have passed, and nobody has fired them.",
            "schedules_overdue", alarm=1,
        ),
        panels.stat(
            "Workers",
            "Workers that registered within the last 45 seconds. Red at none.",
            state("workers"),
            empty=looks.NO_STATE,
            limits=looks.steps(looks.RED, (1, looks.GREEN)),
        ),
        stores_up(),
    ]  # fmt: skip


def stores_up() -> Panel:
    """Whether Redis, PostgreSQL and the broker answer."""
    return panels.stat(
        "Stores down",
        "How many of Redis, PostgreSQL and the broker do not answer the state exporter.",
        f"count ({state('store_up', by='store')} == 0) or max ({state('store_up')}) * 0",
        empty=looks.NO_STATE,
        limits=looks.steps(looks.GREEN, (1, looks.RED)),
    )


def _checks() -> Panel:
    return panels.timeseries(
        "Checks and hits",
        "Executions per second that asked whether their work was done, and those that met work "
        "which was done or running.",
        [
            Query(or_zero(rate("claims_total", CHECKS)), "Checks"),
            Query(or_zero(rate("claims_total", HITS)), "Hits"),
        ],
        unit="ops",
    )


def _hit_rate(options: Options) -> Panel:
    limit = options.thresholds.hit_rate
    return panels.timeseries(
        "Hit rate",
        f"Hits per check. The dashed line is the limit of the alert, {100 * limit:g}%.",
        Query(or_zero(hit_rate()), "Hit rate"),
        unit="percentunit",
        limit=limit,
        soft_max=min(1.0, 2 * limit),
    )


def _prevented() -> Panel:
    hourly = f"3600 * {rate('claims_total', HITS, by='task')}"
    return panels.timeseries(
        "Prevented per hour",
        "Duplicates prevented in an hour, of the ten tasks with the most over the chosen time.",
        Query(busiest(hourly, "claims_total", HITS, by="task"), "{{task}}"),
        unit="short", label="per hour", stacked=True, empty=looks.NO_WORKERS, long_names=True,
    )  # fmt: skip


def _alerts(options: Options) -> Panel:
    since = f"{SINCE} * 1000 and ignoring (alertstate) {FIRING}"
    labels = ", ".join(f'"{name}"' for name in ABOUT_WHOM)
    joined = f'label_join({since}, "about", " ", {labels})'
    # Of most labels there is nothing, but for the blank before it.
    about = f'label_replace({joined}, "about", "$1", "about", " *(.*?) *")'
    colours = looks.mapped({name: name for name in SEVERITIES}, SEVERITIES)
    return table(
        "Firing alerts",
        "Alerts of idemwatch that fire now. Click an alert for its runbook.",
        f"max by (severity, alertname, about) ({about})",
        [
            Column(title="Severity", of="severity", width=100, mappings=colours),
            Column(title="Alert", of="alertname", width=260, links=to_runbook(options, "Alert")),
            Column(title="About", of="about"),
            Column(title="Since", unit="dateTimeFromNow", width=150),
        ],
        empty="No alert fires",
        sort="Severity",
    )


def _breakdown(options: Options) -> Panel:
    checks = increase("claims_total", CHECKS, by="task")
    hits = increase("claims_total", HITS, by="task")
    ratio = hit_rate(by="task", window="$__range")
    limit = looks.over_ratio(options.thresholds.task_hit_rate)
    columns = [
        Column(title="Endpoint", of="task", links=[
            to_board("What this task does twice", IDEMPOTENCY, task="Endpoint"),
        ]),
        Column(title="Checks", unit="locale", decimals=0, width=130),
        Column(title="Hits", of="hits", unit="locale", decimals=0, width=130),
        Column(
            title="Hit rate", of="rate", unit="percentunit", decimals=1, width=130,
            limits=looks.steps(looks.TEXT, (limit, looks.RED)),
        ),
    ]  # fmt: skip
    return table(
        "Breakdown by endpoint",
        "Each task's checks and hits over the chosen time. The rate is red over "
        f"{100 * options.thresholds.task_hit_rate:g}%, the limit of IdempotencyTaskHitRateHigh.",
        wide("task", checks, hits=f"round({hits}, 0.01)", rate=f"round({ratio}, 0.0001)"),
        columns,
        empty="No task has registered yet: start a worker with a metrics address",
        sort="Hits",
        descending=True,
    )
