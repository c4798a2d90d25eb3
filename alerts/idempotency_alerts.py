"""Alerts on what workers count: how often work comes twice, and where protection failed.

A count over a window is extrapolated to its ends, 10.04 for 10 events, so it is rounded before it
is compared. A worker shows its counters at 0 from its start, so an increase misses no first event
but those before its first scrape.
"""

from __future__ import annotations

from typing import Final

from .names import IDEMPOTENCY
from .promql import HOUR, MINUTE, increase, number, percent, recorded, state, worker
from .rule import OF_TASK, Alert, Build, Group

BAND_DEVIATIONS: Final = 3
BY_TASK: Final = "job, task"
RATIO: Final = "idemwatch_hits_per_checks"
NOTICED_SECONDS: Final = 15 * MINUTE
"""How long one event keeps an alert that any event raises."""


def group(build: Build) -> Group:
    """The alerts, in their order on the page."""
    return Group(
        "idemwatch-idempotency",
        [
            _hit_rate_high(build),
            _task_hit_rate_high(build),
            _duplicates_per_hour(build),
            _hit_rate_anomaly(build),
            _unprotected_runs(build),
            _lease_lost(build),
            _stale_completion(build),
            _unavailable(build),
            _circuit_open(build),
            _record_poisoned(build),
            _series_dropped(build),
        ],
    )


def _worst(build: Build) -> str:
    """The three tasks with the most duplicates, as text: a query that the alert makes."""
    query = f"topk(3, round({recorded(build, 'task:idemwatch_hits:increase1h')}) > 0)"
    each = '{{ if $i }}, {{ end }}{{ $found.Labels.task }} {{ printf "%.0f" $found.Value }}'
    return f'{{{{ range $i, $found := query `{query}` | sortByLabel "task" }}}}{each}{{{{ end }}}}'


def _hit_rate_high(build: Build) -> Alert:
    given = build.thresholds
    limit, least = number(given.hit_rate), number(given.least_checks)
    return Alert(
        name="IdempotencyHitRateHigh",
        expr=f"{recorded(build, f'job:{RATIO}:ratio_rate5m')} > {limit}\n"
        f"and {recorded(build, f'job:{RATIO}:ratio_increase1h')} > {limit}\n"
        f"and round({recorded(build, 'job:idemwatch_checks:increase1h')}) >= {least}",
        for_seconds=5 * MINUTE,
        keep_seconds=10 * MINUTE,
        severity="critical",
        summary="Too much work arrives twice",
        description="{{ $value | humanizePercentage }} of the checks of the last 5 minutes met "
        f"work that was done or running; {percent(given.hit_rate)} is the limit, here and over "
        f"the last hour. The most duplicates in that hour: {_worst(build)}.",
        board=IDEMPOTENCY,
    )


def _task_hit_rate_high(build: Build) -> Alert:
    given = build.thresholds
    limit, least = number(given.task_hit_rate), number(given.task_least_checks)
    return Alert(
        name="IdempotencyTaskHitRateHigh",
        expr=f"{recorded(build, f'task:{RATIO}:ratio_increase1h')} > {limit}\n"
        f"and round({recorded(build, 'task:idemwatch_checks:increase1h')}) >= {least}",
        for_seconds=10 * MINUTE,
        severity="warning",
        summary="Much work of {{ $labels.task }} arrives twice",
        description="{{ $value | humanizePercentage }} of the checks of {{ $labels.task }} in the "
        "last hour met work that was done or running; "
        f"{percent(given.task_hit_rate)} is the limit.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _duplicates_per_hour(build: Build) -> Alert:
    most = number(build.thresholds.duplicates_per_hour)
    return Alert(
        name="IdempotencyDuplicatesPerHour",
        expr=f"round({recorded(build, 'task:idemwatch_hits:increase1h')}) > {most}",
        for_seconds=10 * MINUTE,
        severity="warning",
        summary="{{ $labels.task }} has many duplicates",
        description="Duplicates of {{ $labels.task }} in the last hour: {{ $value }}; "
        f"{most} is the limit.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _hit_rate_anomaly(build: Build) -> Alert:
    """The band is that of the day before the last hour, or an excursion would widen it itself.

    It needs a task that was known a day ago, checks enough, and a difference worth a look.
    """
    hour, day = build.scale.window(HOUR), build.scale.window(24 * HOUR)
    now = recorded(build, f"task:{RATIO}:ratio_increase1h")
    mean, deviation = (recorded(build, f"task:{RATIO}:{of}1d") for of in ("avg", "stddev"))
    away = f"abs({now} - {mean} offset {hour})"
    checks = recorded(build, "task:idemwatch_checks:increase1h")
    given = build.thresholds
    return Alert(
        name="IdempotencyHitRateAnomaly",
        expr=f"{now}\n"
        f"and {away}\n  > clamp_min({BAND_DEVIATIONS} * {deviation} offset {hour}, "
        f"{number(given.hit_rate)})\n"
        f"and round({checks}) >= {number(given.task_least_checks)}\n"
        f"and {checks} offset {day}",
        for_seconds=30 * MINUTE,
        severity="info",
        summary="The hit rate of {{ $labels.task }} is unusual",
        description="{{ $value | humanizePercentage }} of the checks of {{ $labels.task }} in the "
        f"last hour met work that was done or running: more than {BAND_DEVIATIONS} standard "
        "deviations from its mean over the day before.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _unprotected_runs(build: Build) -> Alert:
    grown = increase(build, "unprotected_runs_total", NOTICED_SECONDS, by=BY_TASK)
    return Alert(
        name="IdempotencyUnprotectedRuns",
        expr=f"round({grown}) > 0",
        severity="critical",
        summary="{{ $labels.task }} runs without protection",
        description="Executions of {{ $labels.task }} without a claim in the last 15 minutes, "
        "since no store answered: {{ $value }}. The same work may have been done twice.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _lease_lost(build: Build) -> Alert:
    grown = increase(build, "lease_lost_total", NOTICED_SECONDS, by=BY_TASK)
    return Alert(
        name="IdempotencyLeaseLost",
        expr=f"round({grown}) > 0",
        severity="warning",
        summary="{{ $labels.task }} lost its lease while it ran",
        description="Executions of {{ $labels.task }} that lost their lease in the last 15 "
        "minutes: {{ $value }}. Another execution may have begun beside each.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _stale_completion(build: Build) -> Alert:
    stale = 'result="stale"'
    grown = increase(build, "completions_total", NOTICED_SECONDS, stale, by=BY_TASK)
    return Alert(
        name="IdempotencyStaleCompletion",
        expr=f"round({grown}) > 0",
        severity="warning",
        summary="{{ $labels.task }} finished after its successor had begun",
        description="Executions of {{ $labels.task }} that finished in the last 15 minutes when "
        "another one held their key: {{ $value }}. Their results were refused; their effects may "
        "have happened twice.",
        board=IDEMPOTENCY,
        narrowed=OF_TASK,
    )


def _unavailable(build: Build) -> Alert:
    unavailable = 'outcome="unavailable"'
    grown = increase(build, "claims_total", 5 * MINUTE, unavailable, by="job")
    return Alert(
        name="IdempotencyUnavailable",
        expr=f"round({grown}) > 0",
        for_seconds=10 * MINUTE,
        severity="warning",
        summary="Work waits, since no store decides",
        description="Checks in the last 5 minutes that got no answer from the store that decides: "
        "{{ $value }}. Their messages are delivered again later.",
        board=IDEMPOTENCY,
    )


def _circuit_open(build: Build) -> Alert:
    """A breaker closes when its store is asked: an idle worker's says nothing, failed tries do."""
    errors = worker(build, "store_errors_total")
    window = build.scale.window(5 * MINUTE)
    return Alert(
        name="CircuitOpen",
        expr=f"count by (job, store) (\n  {worker(build, 'circuit_open')} == 1\n"
        "  and on (job, instance, store)\n"
        f"    sum by (job, instance, store) (rate({errors}[{window}])) > 0\n)",
        for_seconds=10 * MINUTE,
        severity="warning",
        summary="Workers leave {{ $labels.store }} out",
        description="Workers that get no answer from {{ $labels.store }}, and leave it out "
        "between tries: {{ $value }}.",
        board=IDEMPOTENCY,
    )


def _record_poisoned(build: Build) -> Alert:
    """Both know: the exporter counts the keys that there are, a worker those that it meets."""
    grown = increase(build, "claims_total", NOTICED_SECONDS, 'outcome="poisoned"', by=BY_TASK)
    return Alert(
        name="IdempotencyRecordPoisoned",
        expr=f"{state(build, 'records_poisoned', by='job, authority')} > 0\nor\nround({grown}) > 0",
        severity="warning",
        summary="Work was given up after repeated crashes",
        description="{{ if $labels.task }}Messages of {{ $labels.task }} that met a poisoned key "
        "in the last 15 minutes and were turned away: {{ $value }}.{{ else }}Poisoned keys in "
        "{{ $labels.authority }}, whose work waits for an operator: {{ $value }}.{{ end }}",
        board=IDEMPOTENCY,
        narrowed=f"{{{{ if $labels.task }}}}{OF_TASK}{{{{ end }}}}",
    )


def _series_dropped(build: Build) -> Alert:
    grown = increase(build, "series_dropped_total", HOUR, by="job, metric")
    return Alert(
        name="IdempotencySeriesDropped",
        expr=f"round({grown}) > 0",
        severity="info",
        summary="Too many task names: some are counted together",
        description="A worker knows more than 200 task names. Look-ups of {{ $labels.metric }} "
        "in the last hour that went to the task __other__ instead: {{ $value }}.",
        board=IDEMPOTENCY,
    )
