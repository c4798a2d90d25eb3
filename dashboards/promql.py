"""Pieces of PromQL that panels share. Every selector is narrowed to the chosen jobs and instances.

State comes from exporters of which several may run, so it is the largest over instances; what
workers count is added up. A share divides sums, and never by zero: nothing of nothing is 0.
"""

from __future__ import annotations

from typing import Final

RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"
PAGED: Final = "5m"
"""The window of the alert on the hit rate, and so of the figure that changes colour with it."""

HITS: Final = 'outcome=~"duplicate|running"'
CHECKS: Final = 'outcome=~"granted|taken_over|duplicate|running"'
OF_TASK: Final = 'task=~"$task"'
OF_SCOPE: Final = ('task=~"$task"', 'scope=~"$scope"')
_NEXT_TO_NOTHING: Final = "1e-9"

ALERTS_OF_OURS: Final = (
    "Idempotency.+|CircuitOpen|Schedule.+|BeatStalled|StoreDown|ExporterDown|NoWorkers|WorkerDown"
    "|Collector.+"
)
"""The names of our alerts but for the watchdog, as a regular expression."""
FIRING: Final = f'ALERTS{{alertname=~"{ALERTS_OF_OURS}", alertstate="firing"}}'
SINCE: Final = f'ALERTS_FOR_STATE{{alertname=~"{ALERTS_OF_OURS}"}}'


def series(metric: str, *matchers: str) -> str:
    """A metric of ours, of the chosen jobs and instances."""
    chosen = ", ".join(('job=~"$job"', 'instance=~"$instance"', *matchers))
    return f"idemwatch_{metric}{{{chosen}}}"


def target(metric: str, jobs: str) -> str:
    """What Prometheus itself tells of our targets, whatever else it scrapes."""
    return f'{metric}{{job=~"$job", job=~"{jobs}", instance=~"$instance"}}'


def state(metric: str, *matchers: str, by: str = "") -> str:
    """A metric of the state exporter, one series for each value of `by`."""
    return f"max{_by(by)} ({series(metric, *matchers)})"


def workers(metric: str, *matchers: str, by: str = "") -> str:
    """A gauge of the workers, added up."""
    return f"sum{_by(by)} ({series(metric, *matchers)})"


def rate(metric: str, *matchers: str, by: str = "") -> str:
    """How fast a counter of the workers grows, per second."""
    return f"sum{_by(by)} (rate({series(metric, *matchers)}[{RATE}]))"


def increase(metric: str, *matchers: str, by: str = "", window: str = RANGE) -> str:
    """By how much a counter of the workers grew in `window`."""
    return f"sum{_by(by)} (increase({series(metric, *matchers)}[{window}]))"


def quantile(share: float, metric: str, *matchers: str) -> str:
    """A quantile of a histogram, 0 while nothing is observed."""
    found = rate(f"{metric}_bucket", *matchers, by="le")
    return f"(histogram_quantile({share:g}, {found}) >= 0) or vector(0)"


def share(part: str, whole: str) -> str:
    """`part` of `whole`, 0 of nothing."""
    return f"{part}\n/ clamp_min({whole}, {_NEXT_TO_NOTHING})"


def hit_rate(*matchers: str, by: str = "", window: str = RATE) -> str:
    """Duplicates per check."""
    return share(
        increase("claims_total", *matchers, HITS, by=by, window=window),
        increase("claims_total", *matchers, CHECKS, by=by, window=window),
    )


def or_zero(expr: str) -> str:
    """0 where there is nothing yet; only for what has no labels."""
    return f"({expr}) or vector(0)"


def or_none_of(expr: str, witness: str) -> str:
    """0 where there is nothing, but only while `witness` is there: nobody knows otherwise."""
    return f"({expr}) or {witness} * 0"


def or_named(expr: str, stand_in: str, seen: str) -> str:
    """`stand_in` where there is nothing: Grafana has its own words for no lines.

    Not where `seen` is there at the end of the time: then there was nothing before it began.
    """
    return f"{expr}\nor ({stand_in} unless on () {expr} unless on () count({seen} @ end()))"


def named(label: str, name: str, value: int) -> str:
    """One series with this label and value."""
    return f'label_replace(vector({value}), "{label}", "{name}", "", "")'


def busiest(expr: str, metric: str, *matchers: str, by: str, most: int = 10) -> str:
    """Of lines by `by`, those whose counter grew most over the whole range: they stay the same."""
    grown = f"sum by ({by}) (increase({series(metric, *matchers)}[{RANGE}] @ end()))"
    return f"({expr})\nand topk({most}, {grown})"


def age(timestamp: str) -> str:
    """How long ago a moment was, in seconds."""
    return f"clamp_min(time() - {timestamp}, 0)"


def wide(by: str, value: str, **columns: str) -> str:
    """`value`, with the values of `columns` as its labels: one query fills a row of a table.

    One that finds nothing has no fields at all, and only then all of Grafana 11 to 13 show the
    text for an empty table; two that find nothing are an empty grid.
    """
    labels = (
        f'* on ({by}) group_left ({name}) count_values by ({by}) ("{name}", {expr})'
        for name, expr in columns.items()
    )
    return "\n".join((value, *labels))


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _grade() -> str:
    told = (
        f"{number} * ({series('schedule_health_grade', f'grade={chr(34)}{grade}{chr(34)}')} == 1)"
        for number, grade in enumerate("ABCDF", 1)
    )
    return "min (" + "\n  or ".join(told) + ")"


GRADE_OF: Final = _grade()
"""The grade as a number, 1 for A to 5 for F; the better of two, as the score is."""
