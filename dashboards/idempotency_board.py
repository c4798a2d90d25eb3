"""The board Idempotency: which tasks run twice, and whether they are kept from it."""

from __future__ import annotations

from idemwatch.alerts.names import IDEMPOTENCY

from . import looks, panels, shared
from .layout import Line
from .options import Options
from .panels import Panel, Query
from .promql import (
    CHECKS,
    HITS,
    OF_SCOPE,
    OF_TASK,
    busiest,
    hit_rate,
    increase,
    named,
    or_named,
    or_zero,
    quantile,
    rate,
    series,
    state,
    wide,
)
from .tables import Column, table
from .variables import to_board, to_task

DESCRIPTION = "Which tasks and scopes meet duplicates, and how claims and their stores behave."
FEWEST = "0.01"
"""What counts and their rates are rounded to, where they become labels."""


def lines(options: Options) -> list[Line | str]:
    """The panels, line by line."""
    return [
        Line(3, list(zip((4, 3, 5, 4, 4, 4), _figures(options), strict=True))),
        Line.of(3, *_troubles()),
        Line(7, [(6, _timeline()), (6, _by_scope()), (12, _by_task())]),
        Line.of(9, _top_duplicates()),
        "Claims",
        Line.of(8, _outcomes(), _endings()),
        Line.of(8, _latency(), _heatmap()),
        "Stores, locks and leases",
        Line.of(7, _store_errors(), _cache_skips(), _breakers()),
        Line.of(7, _lock_waits(), _lost(), _records()),
        Line.of(8, _endpoints()),
        Line.of(6, shared.about(options, (
            "**Idempotency** shows what arrives twice. *Task* and *Scope* narrow all that is told "
            "by task; stores, caches, breakers and locks serve all tasks."
        ))),
    ]  # fmt: skip


def _figures(options: Options) -> list[Panel]:
    return [
        shared.hit_rate_now(options, *OF_SCOPE),
        shared.checks(*OF_SCOPE),
        shared.duplicates_prevented(*OF_SCOPE),
        panels.stat(
            "Total records",
            "Live records that PostgreSQL holds, of the chosen scopes.",
            f"sum ({state('records', OF_SCOPE[1], by='scope, state')})",
            unit="locale", empty=looks.NO_STATE,
        ),
        shared.figure("Unique endpoints", "Tasks that have checked a key.", "endpoints"),
        shared.figure("Duplicate tasks", "Tasks that have met a duplicate.", "duplicate_endpoints"),
    ]  # fmt: skip


def _troubles() -> list[Panel]:
    return [
        shared.counted(
            "Unprotected runs",
            "Executions over the chosen time without a claim, since no store answered. "
            "IdempotencyUnprotectedRuns pages.",
            increase("unprotected_runs_total", OF_TASK), alarm=True,
        ),
        shared.counted(
            "Leases lost",
            "Executions over the chosen time that lost their lease while they ran: another may "
            "have taken over.",
            increase("lease_lost_total", OF_TASK), alarm=True,
        ),
        shared.counted(
            "Stale completions",
            "Results over the chosen time that the store refused, since another execution had "
            "taken over.",
            increase("completions_total", OF_TASK, 'result="stale"'), alarm=True,
        ),
        panels.stat(
            "Poisoned keys",
            "Keys whose executions crashed too often: nothing runs for them until "
            "`idemwatch keys forget`.",
            f"sum ({state('records_poisoned', by='authority')})",
            empty=looks.NO_STATE, limits=looks.steps(looks.GREEN, (1, looks.RED)),
        ),
        shared.counted(
            "Store errors",
            "Operations over the chosen time that Redis or PostgreSQL failed.",
            increase("store_errors_total"), alarm=True,
        ),
        panels.stat(
            "Open breakers",
            "Stores that some worker leaves out after errors.",
            or_zero(f"sum ({state('circuit_open', by='store')})"),
            limits=looks.steps(looks.GREEN, (1, looks.RED)),
        ),
    ]  # fmt: skip


def _timeline() -> Panel:
    def hourly(outcomes: str) -> str:
        return or_zero(f"3600 * {rate('claims_total', *OF_SCOPE, outcomes)}")

    return panels.timeseries(
        "Checks and hits per hour",
        "How many executions an hour ask whether their work was done, and how many meet work that "
        "was done or running.",
        [Query(hourly(CHECKS), "Checks"), Query(hourly(HITS), "Hits")],
        unit="short", label="per hour",
    )  # fmt: skip


def _by_task() -> Panel:
    return panels.timeseries(
        "Hit rate by task",
        "Hits per check of the ten tasks with the most checks over the chosen time.",
        Query(
            busiest(hit_rate(*OF_SCOPE, by="task"), "claims_total", *OF_SCOPE, CHECKS, by="task"),
            "{{task}}",
        ),
        unit="percentunit", soft_max=0.1, empty=looks.NO_WORKERS, long_names=True,
    )  # fmt: skip


def _by_scope() -> Panel:
    return panels.timeseries(
        "Hit rate by scope",
        "Hits per check of each scope.",
        Query(hit_rate(*OF_SCOPE, by="scope"), "{{scope}}"),
        unit="percentunit", soft_max=0.1, empty=looks.NO_WORKERS,
    )  # fmt: skip


def _top_duplicates() -> Panel:
    def of(metric: str) -> str:
        return state(f"endpoint_{metric}", *OF_SCOPE, by="task, scope")

    def when(metric: str) -> str:
        return f"round({of(metric)} * 1000) or {of('hits')} * 0"

    never = looks.mapped({"0": "not known"})
    return table(
        "Top duplicates",
        "The twenty endpoints with the most duplicates since the statistics began. Click an "
        "endpoint to narrow this board to it.",
        wide(
            "task, scope",
            f"topk(20, {of('hits')} > 0)",
            max_hits=f"{of('max_hits')} or {of('hits')}",
            records=f"{of('records')} or {of('hits')} * 0",
            first_seen=when("first_seen_timestamp_seconds"),
            last_hit=when("last_hit_timestamp_seconds"),
        ),
        [
            Column(title="Endpoint", of="task", links=to_task()),
            Column(title="Scope", of="scope", width=110),
            Column(title="Hits", unit="locale", decimals=0, width=100),
            Column(title="Records", of="records", unit="locale", decimals=0, width=100),
            Column(title="Max hits", of="max_hits", unit="locale", decimals=0, width=100),
            Column(
                title="First seen", of="first_seen", unit="dateTimeAsIso", width=180,
                mappings=never,
            ),
            Column(
                title="Last hit", of="last_hit", unit="dateTimeAsIso", width=180, mappings=never,
            ),
        ],
        empty="No duplicates yet", sort="Hits", descending=True,
    )  # fmt: skip


def _outcomes() -> Panel:
    return panels.timeseries(
        "Outcomes",
        "What checks were answered, per second. Duplicate and running are hits; unavailable and "
        "bypassed stand outside the rate.",
        Query(rate("claims_total", *OF_SCOPE, by="outcome"), "{{outcome}}"),
        unit="ops", stacked=True, empty=looks.NO_WORKERS,
    )  # fmt: skip


def _endings() -> Panel:
    return panels.timeseries(
        "Completions and releases",
        "How executions ended, per second: with a result that was stored or not, or by giving "
        "their claim back.",
        [
            Query(rate("completions_total", OF_TASK, by="result"), "completed: {{result}}"),
            Query(rate("releases_total", OF_TASK, by="reason"), "released: {{reason}}"),
        ],
        unit="ops", stacked=True, empty=looks.NO_WORKERS,
    )  # fmt: skip


def _latency() -> Panel:
    claim = 'operation="claim"'
    return panels.timeseries(
        "Claim latency",
        "Time of one claim in its store, half of them and 99 of 100 within. 0 while nothing is "
        "claimed.",
        [
            Query(quantile(0.5, "store_seconds", claim), "p50"),
            Query(quantile(0.99, "store_seconds", claim), "p99"),
        ],
        unit="s",
    )


def _heatmap() -> Panel:
    bucket = series("store_seconds_bucket", 'operation="claim"')
    return panels.heatmap(
        "Claim latency, spread",
        "How many claims took how long: the stronger the colour, the more. Blank while nothing is "
        "claimed.",
        f"sum by (le) (increase({bucket}[$__rate_interval]))",
        unit="s", empty="No claim has been timed yet",
    )  # fmt: skip


def _store_errors() -> Panel:
    return panels.timeseries(
        "Store errors",
        "Operations per second that a store failed.",
        Query(rate("store_errors_total", by="store"), "{{store}}"),
        unit="ops", empty=looks.NO_WORKERS,
    )  # fmt: skip


def _cache_skips() -> Panel:
    return panels.timeseries(
        "Cache skips",
        "Checks per second that went to PostgreSQL without asking Redis: it was away, or it "
        "refused.",
        Query(rate("cache_skips_total", by="reason"), "{{reason}}"),
        unit="ops", empty=looks.NO_WORKERS,
    )  # fmt: skip


def _breakers() -> Panel:
    colours = {"0": looks.GREEN, "1": looks.RED}
    breaker = state("circuit_open", by="store")
    return panels.state_timeline(
        "Circuit breakers",
        "Open while some worker leaves a store out after errors.",
        Query(
            or_named(breaker, named("store", "no worker", 0), series("circuit_open")), "{{store}}"
        ),
        mappings=looks.mapped({"0": "closed", "1": "open"}, colours),
        empty=looks.NO_WORKERS,
    )


def _lock_waits() -> Panel:
    return panels.timeseries(
        "Lock waits",
        "Time waited for a lock, 99 of 100 within; and locks per second that were not got.",
        [
            Query(quantile(0.99, "lock_wait_seconds", 'result="acquired"'), "p99, acquired"),
            Query(
                or_zero(rate("lock_wait_seconds_count", 'result!="acquired"')), "not acquired"
            ),
        ],
        unit="s",
        overrides=[panels.override(
            "byName", "not acquired", unit="ops", custom__axisPlacement="right",
        )],
    )  # fmt: skip


def _lost() -> Panel:
    return panels.timeseries(
        "Lost, stale, unprotected",
        "Executions per second that lost their lease, came too late with their result, or ran "
        "without a claim.",
        [
            Query(or_zero(rate("lease_lost_total", OF_TASK)), "lease lost"),
            Query(or_zero(rate("completions_total", OF_TASK, 'result="stale"')), "stale"),
            Query(or_zero(rate("unprotected_runs_total", OF_TASK)), "unprotected"),
        ],
        unit="ops",
    )


def _records() -> Panel:
    return panels.timeseries(
        "Records by state",
        "Live records that PostgreSQL holds, of the chosen scopes.",
        Query(
            f"sum by (state) ({state('records', OF_SCOPE[1], by='scope, state')})", "{{state}}"
        ),
        unit="locale", decimals=0, stacked=True, empty=looks.NO_STATE,
    )  # fmt: skip


def _endpoints() -> Panel:
    by = "task, scope"
    hits = increase("claims_total", *OF_SCOPE, HITS, by=by)
    ratio = hit_rate(*OF_SCOPE, by=by, window="$__range")
    return table(
        "Endpoints and scopes",
        "Each task's checks and hits in each scope over the chosen time.",
        wide(
            by, increase("claims_total", *OF_SCOPE, CHECKS, by=by),
            hits=f"round({hits}, {FEWEST})", rate=f"round({ratio}, 0.0001)",
        ),
        [
            Column(title="Endpoint", of="task", links=to_task()),
            Column(title="Scope", of="scope", width=130, links=[to_board(
                "This task in this scope", IDEMPOTENCY, task="Endpoint", scope="Scope",
            )]),
            Column(title="Checks", unit="locale", decimals=0, width=120),
            Column(title="Hits", of="hits", unit="locale", decimals=0, width=120),
            Column(title="Hit rate", of="rate", unit="percentunit", decimals=1, width=120),
        ],
        empty="No task has registered yet: start a worker with a metrics address",
        sort="Hit rate", descending=True,
    )  # fmt: skip
