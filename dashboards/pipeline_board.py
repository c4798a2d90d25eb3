"""The board Pipeline: are workers, queues, beats, stores and the figures themselves well."""

from __future__ import annotations

from . import looks, overview, panels, shared
from .layout import Line
from .options import Options
from .panels import Panel, Query
from .promql import (
    RATE,
    age,
    increase,
    named,
    or_named,
    or_none_of,
    or_zero,
    quantile,
    rate,
    series,
    state,
    target,
    wide,
    workers,
)
from .tables import Column, table

DESCRIPTION = "Workers, queues, beats, stores, collectors and scrapes: can the figures be trusted."
UP = {"1": "up", "0": "down", looks.UNKNOWN: "not known: is the exporter scraped?"}
UP_COLOURS = {"1": looks.GREEN, "0": looks.RED, looks.UNKNOWN: looks.ORANGE}
STALE_SECONDS = 300
"""CollectorStale tells from this age of a collector's news on."""
STALLED_SECONDS = 120
"""BeatStalled pages from this age of the last tick on; a beat ticks each 5 s."""


def lines(options: Options) -> list[Line | str]:
    """The panels, line by line."""
    return [
        Line.of(3, *_answer(options)),
        Line.of(3, *_more()),
        Line.of(7, _workers(), _queues(), _tasks()),
        Line.of(6, _targets(options), _stores()),
        "Beats",
        Line.of(7, _ticks(), _firings()),
        "Inside workers",
        Line.of(7, _heartbeats(), _pending(), _task_seconds()),
        "State exporter and scrapes",
        Line.of(7, _refreshes(), _news(), _scrapes(options)),
        Line.of(8, _collectors(), _versions()),
        Line.of(8, _thresholds(), _unprotected()),
        Line.of(6, shared.about(options, (
            "**Pipeline** shows whether the other boards can be believed: what is down, late or "
            "left out between the workers and Prometheus."
        ))),
    ]  # fmt: skip


def _answer(options: Options) -> list[Panel]:
    down = looks.steps(looks.RED, (1, looks.GREEN))
    return [
        panels.stat(
            "Workers",
            "Workers that registered within the last 45 seconds. NoWorkers pages at none.",
            state("workers"), empty=looks.NO_STATE, limits=down,
        ),
        panels.stat(
            "Workers missing",
            "Workers that were seen within the last 15 minutes, did not end in order, and are not "
            "there.",
            f"clamp_min({state('workers_expected')} - {state('workers')}, 0)",
            empty=looks.NO_STATE, limits=looks.steps(looks.GREEN, (1, looks.ORANGE)),
        ),
        panels.stat(
            "Queued messages",
            "Messages in the brokers' queues.",
            or_zero(f"sum ({state('queue_messages', by='queue')})"), unit="locale",
        ),
        panels.stat(
            "Beats live",
            "Beats that ticked within the last 30 seconds.",
            state("beats_live"), empty=looks.NO_STATE,
        ),
        overview.stores_up(),
        panels.stat(
            "Targets down",
            "Workers and state exporters that Prometheus cannot scrape.",
            f"count ({target('up', options.jobs)} == 0) or max ({target('up', options.jobs)}) * 0",
            empty="Nothing is scraped", limits=looks.steps(looks.GREEN, (1, looks.RED)),
        ),
    ]  # fmt: skip


def _more() -> list[Panel]:
    failing = state("collector_success", by="collector")
    return [
        panels.stat(
            "Collectors failing",
            "Sources that the state exporter cannot read. CollectorFailing tells.",
            or_none_of(f"count ({failing} == 0)", f"max ({failing})"),
            empty=looks.NO_STATE, limits=looks.steps(looks.GREEN, (1, looks.RED)),
        ),
        panels.stat(
            "Last beat tick",
            "How long ago any beat ticked last; it ticks each 5 seconds. BeatStalled pages over "
            f"{STALLED_SECONDS}.",
            age(state("beat_last_tick_timestamp_seconds")),
            unit="s", empty="No beat has run",
            limits=looks.steps(looks.GREEN, (looks.over_ratio(STALLED_SECONDS), looks.RED)),
        ),
        panels.stat(
            "Pool processes",
            "Processes of the workers that run tasks.",
            or_zero(workers("worker_pool_processes")),
        ),
        panels.stat(
            "Pending batches",
            "Batches of statistics on their way from workers to PostgreSQL.",
            or_zero(workers("writebehind_pending")),
        ),
        shared.counted(
            "Dropped batches",
            "Batches of statistics over the chosen time that never reached PostgreSQL.",
            increase("writebehind_dropped_total"), alarm=True,
        ),
        shared.counted(
            "Dropped series",
            "Look-ups over the chosen time of tasks beyond the first 200 names: they count under "
            "`__other__`.",
            increase("series_dropped_total"), alarm=True,
        ),
    ]  # fmt: skip


def _workers() -> Panel:
    return panels.timeseries(
        "Workers over time",
        "Workers that are there, and those that were seen within the last 15 minutes and did not "
        "end in order.",
        [Query(state("workers"), "live"), Query(state("workers_expected"), "expected")],
        unit="none", decimals=0, empty=looks.NO_STATE,
    )  # fmt: skip


def _queues() -> Panel:
    return panels.timeseries(
        "Queue length",
        "Messages in each of the brokers' queues.",
        Query(state("queue_messages", by="queue"), "{{queue}}"),
        unit="short", decimals=0, empty="No queue is watched: see idemwatch exporter --queue",
    )  # fmt: skip


def _tasks() -> Panel:
    return panels.timeseries(
        "Tasks of workers",
        "Tasks that workers execute (active), have taken and not begun (reserved), or hold until "
        "their ETA (scheduled).",
        Query(workers("worker_tasks", by="state"), "{{state}}"),
        unit="none", decimals=0, stacked=True, empty=looks.NO_WORKERS,
    )  # fmt: skip


def _targets(options: Options) -> Panel:
    up = f"max by (job, instance) ({target('up', options.jobs)})"
    nothing = named("instance", "nothing is scraped", -1)
    return panels.state_timeline(
        "Targets",
        "Whether Prometheus could scrape each worker and state exporter.",
        Query(or_named(up, nothing, target("up", options.jobs)), "{{instance}}"),
        mappings=looks.mapped(UP, UP_COLOURS),
        empty="Nothing is scraped: add both jobs to Prometheus",
    )


def _stores() -> Panel:
    up = state("store_up", by="store")
    return panels.state_timeline(
        "Stores",
        "Whether Redis, PostgreSQL and the broker answered the state exporter.",
        Query(or_named(up, named("store", "all", -1), series("store_up")), "{{store}}"),
        mappings=looks.mapped(UP, UP_COLOURS),
        empty=looks.NO_STATE,
    )


def _ticks() -> Panel:
    return panels.timeseries(
        "Age of the last beat tick",
        "How long ago any beat ticked last; it ticks each 5 seconds. The dashed line is the limit "
        "of BeatStalled.",
        Query(age(state("beat_last_tick_timestamp_seconds")), "age"),
        unit="s", limit=STALLED_SECONDS, empty="No beat has run yet: start idemwatch's beat",
    )  # fmt: skip


def _firings() -> Panel:
    # A counter of the state exporter: each tells the same, so it is not added up.
    firings = f"max by (outcome) (rate({series('schedule_firings_total')}[{RATE}]))"
    return panels.timeseries(
        "Firings per hour",
        "Due times of schedules by what became of them: fired, late, missed, or skipped since the "
        "run before was not done.",
        Query(f"3600 * {firings}", "{{outcome}}"),
        unit="short", label="per hour", stacked=True, empty=looks.NO_STATE,
    )  # fmt: skip


def _heartbeats() -> Panel:
    return panels.timeseries(
        "Heartbeat delay",
        "How late leases were renewed. A starved heartbeat shows here first.",
        [
            Query(quantile(0.5, "heartbeat_delay_seconds"), "p50"),
            Query(quantile(0.99, "heartbeat_delay_seconds"), "p99"),
        ],
        unit="s",
    )


def _pending() -> Panel:
    return panels.timeseries(
        "Write-behind",
        "Batches of statistics that wait for PostgreSQL, and those per second that were dropped.",
        [
            Query(or_zero(workers("writebehind_pending")), "pending"),
            Query(or_zero(rate("writebehind_dropped_total")), "dropped"),
        ],
        unit="short",
        overrides=[panels.override(
            "byName", "dropped", unit="ops", custom__axisPlacement="right",
        )],
    )  # fmt: skip


def _task_seconds() -> Panel:
    return panels.timeseries(
        "Run time of tasks",
        "How long granted executions ran, half of them and 95 of 100 within.",
        [
            Query(quantile(0.5, "task_seconds"), "p50"),
            Query(quantile(0.95, "task_seconds"), "p95"),
        ],
        unit="s",
    )


def _refreshes() -> Panel:
    return panels.timeseries(
        "Refresh time",
        "How long each collector of the state exporter took to read its source.",
        Query(state("collector_duration_seconds", by="collector"), "{{collector}}"),
        unit="s", empty=looks.NO_STATE,
    )  # fmt: skip


def _news() -> Panel:
    last = state("collector_last_success_timestamp_seconds", by="collector")
    return panels.timeseries(
        "Age of what is told",
        f"How old each collector's last good answer is. Over {STALE_SECONDS} seconds "
        "CollectorStale tells.",
        Query(age(last), "{{collector}}"),
        unit="s", limit=STALE_SECONDS, empty=looks.NO_STATE,
    )  # fmt: skip


def _scrapes(options: Options) -> Panel:
    return panels.timeseries(
        "Scrape time",
        "The slowest scrape of each job.",
        Query(f"max by (job) ({target('scrape_duration_seconds', options.jobs)})", "{{job}}"),
        unit="s", empty="Nothing is scraped: add both jobs to Prometheus",
    )  # fmt: skip


def _collectors() -> Panel:
    by = "collector"
    success = state("collector_success", by=by)
    last = state("collector_last_success_timestamp_seconds", by=by)
    duration = state("collector_duration_seconds", by=by)
    return table(
        "Collectors",
        "The sources of the state exporter: whether the last look succeeded, when one last did, "
        "and how long it takes.",
        wide(
            by, success, last=f"round({last} * 1000) or {success} * 0",
            took=f"round({duration}, 0.0001) or {success} * 0",
        ),
        [
            Column(title="Collector", of="collector"),
            Column(
                title="State", width=90, mappings=looks.mapped(
                    {"1": "ok", "0": "failing"}, {"1": looks.GREEN, "0": looks.RED}
                ),
            ),
            Column(
                title="Last success", of="last", unit="dateTimeFromNow", width=150,
                mappings=looks.mapped({"0": "never"}),
            ),
            Column(title="Took", of="took", unit="s", width=100),
        ],
        empty=looks.NO_STATE, sort="Collector",
    )  # fmt: skip


def _versions() -> Panel:
    return table(
        "Versions",
        "The versions that run, and in how many processes that are scraped.",
        f"count by (job, version, python, celery) ({_info()})",
        [
            Column(title="Job", of="job"),
            Column(title="idemwatch", of="version", width=100),
            Column(title="Python", of="python", width=80),
            Column(title="Celery", of="celery", width=80),
            Column(title="Processes", unit="none", width=100),
        ],
        empty=looks.NO_STATE,
        sort="Job",
    )


def _info() -> str:
    return state("build_info", by="job, instance, version, python, celery")


def _thresholds() -> Panel:
    return table(
        "Thresholds",
        "What the alerts and `validate-schedules` go by.",
        state("threshold", by="name"),
        [Column(title="Threshold", of="name"), Column(title="Value", unit="none", width=140)],
        empty=looks.NO_STATE,
        sort="Threshold",
    )


def _unprotected() -> Panel:
    return table(
        "Tasks without protection",
        "Tasks whose protection some worker has turned off by idempotency_enabled.",
        # The least: some worker runs it so, whatever the others do.
        f"min by (task) ({series('enabled')}) == 0",
        [Column(title="Task", of="task")],
        empty="Every task is protected",
        sort="Task",
    )
