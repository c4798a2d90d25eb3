"""docs/metrics.md, written from the catalogue: `python -m idemwatch.exporter.metrics_page`.

Invariant: the page depends on the code alone, so a rebuild that differs from the committed one
shows a change of what is exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

import click

from .catalogue import ALWAYS, WORKER, Entry, catalogue

MANY_VALUES: Final = 12
_DUNDER: Final = re.compile(r"\b__\w+__\b")  # Markdown would make it bold
HEAD: Final = """\
# Metrics

Written by `make docs` from the code (`python -m idemwatch.exporter.metrics_page`); a test compares
it with what a worker and a state exporter really tell. All metrics begin with `idemwatch_`. No
label holds a key, a task id, an argument, a user, a pid or a host; `job` and `instance` are added
by Prometheus. Workers tell counters, to be summed over instances. Several state exporters tell the
same state: take `max`, never `sum`.
"""
SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    WORKER: (
        "From each worker",
        "Needs `idempotency_metrics_address`, or `serve_worker_metrics(app)`. At most 200 tasks "
        "become labels, the others count as `__other__`. Every outcome of a registered task is "
        "there at 0 from the start.",
    ),
    ALWAYS: (
        "From the state exporter, in any case",
        "`idemwatch exporter` reads each source in the background, by a collector of its own. One "
        "that fails costs only its own metrics: they stay as they were for four refreshes (at "
        "least a minute), and are absent then.",
    ),
    "postgres": ("Collector `postgres`", "Needs `IDEMWATCH_DATABASE_URL`."),
    "redis": ("Collector `redis`", "Needs `IDEMWATCH_REDIS_URL`."),
    "broker": ("Collector `broker`", "Needs an app, or `--broker-url`."),
    "records": ("Collector `records`", "Needs `IDEMWATCH_DATABASE_URL`."),
    "redis_records": ("Collector `redis_records`", "Needs `IDEMWATCH_REDIS_URL`."),
    "schedules": (
        "Collector `schedules`",
        "Needs `IDEMWATCH_DATABASE_URL`, an app, or `--source`. What is told of single schedules "
        "is told of 500 at most.",
    ),
    "beats": ("Collector `beats`", "Needs `IDEMWATCH_DATABASE_URL`."),
    "workers": (
        "Collector `workers`",
        "Needs `IDEMWATCH_REDIS_URL`, in which workers with metrics register.",
    ),
    "queues": ("Collector `queues`", "Needs an app, or `--broker-url`; `--queue` chooses."),
}
"""The heading of each source and what it needs, in the order of the page."""


def page(entries: Sequence[Entry]) -> str:
    """The whole page. Raises KeyError for a source that has no heading."""
    ordered = sorted(entries, key=lambda one: list(SOURCES).index(one.source))
    return "\n".join([HEAD, *_sections(ordered)])


def _sections(ordered: Sequence[Entry]) -> Iterator[str]:
    for source, found in groupby(ordered, key=lambda one: one.source):
        title, needs = SOURCES[source]
        rows = [_row(one) for one in found]
        table = ["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]
        yield "\n".join([f"## {title}\n", f"{needs}\n", *table, ""])


def _row(one: Entry) -> str:
    labels = "; ".join(_label(name, one.values.get(name, ())) for name in one.labels)
    return f"| `{one.name}` | {_kind(one)} | {labels} | {_cell(one.text)} |"


def _kind(one: Entry) -> str:
    finite = [f"{bound:g}" for bound in one.buckets if bound != float("inf")]
    return f"{one.kind}, {finite[0]} to {finite[-1]}" if finite else one.kind


def _label(name: str, values: Sequence[str]) -> str:
    shown = list(values)
    if len(shown) > MANY_VALUES:
        shown = [shown[0], "…", shown[-1]]
    return f"`{name}`: {_cell(', '.join(shown))}" if shown else f"`{name}`"


def _cell(text: str) -> str:
    return _DUNDER.sub(r"`\g<0>`", text.replace("|", "\\|"))


if __name__ == "__main__":
    click.echo(page(catalogue()), nl=False)
