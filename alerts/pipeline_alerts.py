"""Alerts on the pipeline itself: stores, exporter, workers, collectors, and the watchdog.

`up == 0 or absent(up{job=...})` and not `absent(up == 1)`, which would drop the job, by which
Alertmanager finds what an alert inhibits.
"""

from __future__ import annotations

from typing import Final

from .names import OVERVIEW, PIPELINE
from .promql import DAY, MINUTE, state, state_series
from .rule import Alert, Build, Group

REFRESH_SECONDS: Final = 30.0
"""A collector may be so long without news in real time: it refreshes each 15 s."""
REGISTRATION_SECONDS: Final = 45.0
"""A worker counts as live so long after it registered last, and registers each 15 s."""
DISCOVERY_SECONDS: Final = 15.0
"""So long Prometheus may take to find a worker, whatever the scale."""


def group(build: Build) -> Group:
    """The alerts, in their order on the page."""
    return Group(
        "idemwatch-pipeline",
        [
            _store_down(build),
            _exporter_down(build),
            _no_workers(build),
            _worker_down(build),
            _collector_failing(build),
            _collector_stale(build),
            _watchdog(),
        ],
    )


def _store_down(build: Build) -> Alert:
    return Alert(
        name="StoreDown",
        expr=f"{state(build, 'store_up', by='job, store')} == 0",
        for_seconds=2 * MINUTE,
        severity="critical",
        summary="{{ $labels.store }} does not answer",
        description="The state exporter gets no answer from {{ $labels.store }} "
        "(idemwatch_store_up is {{ $value }}).",
        board=PIPELINE,
    )


def _exporter_down(build: Build) -> Alert:
    up = f'up{{job="{build.job}"}}'
    return Alert(
        name="ExporterDown",
        expr=f"max by (job) ({up}) == 0\nor\nabsent({up})",
        for_seconds=5 * MINUTE,
        severity="critical",
        summary="The state exporter is down",
        description="{{ if eq $value 0.0 }}Prometheus cannot scrape any state exporter of the job "
        "{{ $labels.job }}{{ else }}Prometheus has no target in the job {{ $labels.job }}"
        "{{ end }}: nothing is known of schedules, stores, beats and the number of workers.",
        board=PIPELINE,
    )


def _no_workers(build: Build) -> Alert:
    """Also when all died long ago; but not where there never was one."""
    series, day = state_series(build, "workers"), build.scale.window(DAY)
    return Alert(
        name="NoWorkers",
        expr=f"{state(build, 'workers')} == 0\n"
        f"and on (job) max by (job) (max_over_time({series}[{day}])) > 0",
        for_seconds=5 * MINUTE,
        real_seconds=REGISTRATION_SECONDS,
        severity="critical",
        summary="No worker is alive",
        description="Registered workers: {{ $value }}, and there were some within the last day. "
        "Messages wait in the queues.",
        board=PIPELINE,
    )


def _worker_down(build: Build) -> Alert:
    """Also where Prometheus has no worker in its list: then no duplicate would ever page."""
    up = f'up{{job="{build.worker_job}"}}'
    return Alert(
        name="WorkerDown",
        expr=f"{up} == 0\nor\n{state(build, 'workers')} > 0 unless on () {up}",
        for_seconds=5 * MINUTE,
        real_seconds=DISCOVERY_SECONDS,
        severity="warning",
        summary="{{ if $labels.instance }}The worker {{ $labels.instance }} cannot be scraped"
        "{{ else }}No worker is scraped{{ end }}",
        description="{{ if $labels.instance }}The worker at {{ $labels.instance }} did not end in "
        "order, and its metrics cannot be read (up is {{ $value }}).{{ else }}Workers are alive "
        f"({{{{ $value }}}}), and Prometheus has no target in the job {build.worker_job}: it sees "
        "no duplicates, and no alert on them would come.{{ end }}",
        board=PIPELINE,
    )


def _collector_failing(build: Build) -> Alert:
    return Alert(
        name="CollectorFailing",
        expr=f"{state(build, 'collector_success', by='job, collector')} == 0",
        for_seconds=10 * MINUTE,
        severity="warning",
        summary="The collector {{ $labels.collector }} fails",
        description="The state exporter cannot read its source {{ $labels.collector }} "
        "(idemwatch_collector_success is {{ $value }}); its panels are empty and its alerts "
        "silent.",
        board=PIPELINE,
    )


def _collector_stale(build: Build) -> Alert:
    last = state(build, "collector_last_success_timestamp_seconds", by="job, collector")
    limit = build.scale.number(5 * MINUTE, least=REFRESH_SECONDS)
    return Alert(
        name="CollectorStale",
        expr=f"time() - {last} > {limit}",
        for_seconds=5 * MINUTE,
        severity="warning",
        summary="The collector {{ $labels.collector }} has no news",
        description="The last good answer of the source {{ $labels.collector }} is "
        "{{ $value | humanizeDuration }} old.",
        board=PIPELINE,
    )


def _watchdog() -> Alert:
    return Alert(
        name="Watchdog",
        expr="vector(1)",
        severity="none",
        summary="Alerting works",
        description="Always fires (value {{ $value }}). If it stops, Prometheus or Alertmanager "
        "is down, or they do not reach each other, and no other alert would come either.",
        board=OVERVIEW,
    )
