"""Every metric that workers and the state exporter tell, from the code that tells it.

The families are asked of the very collectors, over stores that hold nothing: what is documented
cannot differ from what is exported but by a name that is missing here, and a test compares this
list with a worker and an exporter that run. Nothing is connected to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from celery import Celery
from idemwatch.alerts.thresholds import CAPACITY, Thresholds
from idemwatch.idempotency import metrics
from idemwatch.idempotency.settings import SCOPES
from idemwatch.idempotency.slots import SlotHistogram
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.gauges import STATUSES
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.recommendations import URGENCIES
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from .beat_collector import BeatCollector
from .broker import Broker
from .constant_metrics import constants
from .exposition import Exposition, of_collectors
from .poisoned_collector import PoisonedCollector
from .queue_collector import QueueCollector
from .record_collector import RecordCollector
from .refresh import Refresher
from .schedule_collector import ScheduleCollector
from .store_collector import StoreCollector
from .worker_collector import WorkerCollector
from .worker_state import families as worker_families

WORKER: Final = "worker"
ALWAYS: Final = "always"
OPEN_LABELS: Final = frozenset(
    (
        *("task", "queue", "metric", "version", "python", "celery"),
        *("schedule", "cron", "timezone", "current", "recommended"),
    )
)
"""Labels whose values nobody can list; all others have few, which are documented."""


class Entry(NamedTuple):
    """A metric of one source. `kind` as in Prometheus; `values` of the labels that are not open."""

    source: str
    name: str
    kind: str
    labels: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    text: str
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> dict[str, tuple[str, ...]]:
        """The names in an exposition, with the labels of each."""
        if self.kind != "histogram":
            return {self.name: self.labels}
        both = {f"{self.name}_{part}": self.labels for part in ("sum", "count")}
        return {f"{self.name}_bucket": (*self.labels, "le"), **both}


_SCOPES: Final = {"scope": (*SCOPES, metrics.OTHER)}
_OF_STORES: Final = {"store": metrics.STORES, "operation": metrics.OPERATIONS}
_OF_ADVICE: Final = {
    "urgency": URGENCIES, "reason": ("hotspot", "conflict", "duplicate", "dst"),
}  # fmt: skip
_VALUES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "idemwatch_claims_total": {"scope": SCOPES, "outcome": metrics.OUTCOMES},
    "idemwatch_completions_total": {"result": metrics.RESULTS},
    "idemwatch_releases_total": {"reason": metrics.REASONS},
    "idemwatch_publishes_total": {"outcome": metrics.PUBLISHES},
    "idemwatch_store_seconds": _OF_STORES,
    "idemwatch_store_errors_total": _OF_STORES,
    "idemwatch_cache_skips_total": {"reason": metrics.SKIP_REASONS},
    "idemwatch_circuit_open": {"store": metrics.STORES},
    "idemwatch_lock_wait_seconds": {"result": metrics.LOCK_RESULTS},
    "idemwatch_records": _SCOPES,
    **{
        f"idemwatch_endpoint_{name}": _SCOPES
        for name in (
            *("records", "hits", "max_hits"),
            *("first_seen_timestamp_seconds", "last_hit_timestamp_seconds"),
        )
    },
    "idemwatch_schedule_capacity": {"source": ("option", "workers", "setting", "default")},
    "idemwatch_schedule_info": {"status": tuple(dict.fromkeys(STATUSES.values()))},
    "idemwatch_schedule_recommendation_load_before_ratio": _OF_ADVICE,
    "idemwatch_schedule_recommendation_load_after_ratio": _OF_ADVICE,
}
"""Values that are not told from the start, or not all of them."""


def catalogue() -> list[Entry]:
    """All metrics, by source and in the order in which they are told."""
    return [*_of_workers(), *_of_state()]


def _of_workers() -> Iterator[Entry]:
    for family in vars(metrics).values():
        if isinstance(family, MetricWrapperBase):
            bounds = family._upper_bounds if isinstance(family, SlotHistogram) else ()
            yield _entry(
                WORKER, family._name, str(family._type), family._labelnames, family._documentation,
                buckets=tuple(bounds),
            )  # fmt: skip
    consumer = SimpleNamespace(timer=SimpleNamespace(schedule=SimpleNamespace(queue=[])), pool=None)
    yield from _entries(WORKER, worker_families(consumer))


def _of_state() -> Iterator[Entry]:
    refreshers = []
    for collector in _collectors():
        yield from _entries(collector.name, collector.collect())
        refreshers.append(Refresher(collector))
    yield from _entries(ALWAYS, constants(Thresholds()))
    yield from _entries(ALWAYS, of_collectors([one.seen() for one in refreshers]))
    yield from _entries(ALWAYS, (Exposition(()).dropped(),))


def _collectors() -> Iterator[Any]:
    nothing: Any = _Nothing()
    yield from (StoreCollector(name, str, str) for name in ("postgres", "redis", "broker"))
    yield RecordCollector(nothing, "idemwatch")
    yield PoisonedCollector(nothing, "idemwatch")
    yield ScheduleCollector(
        lambda: Inventory("table"), lambda: Capacity(CAPACITY, "default"), None,
        zone="UTC", namespace="idemwatch", now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    yield BeatCollector(nothing)
    yield WorkerCollector(nothing)
    app = Celery("catalogue", broker="memory://", set_as_current=False)
    yield QueueCollector(Broker(app), ())


class _Nothing:
    """A link to any store, its connection and its cursor: nothing is found there."""

    def run(self, work: Any, *_: Any) -> Any:
        return work(self)

    def call(self, *_: object) -> int:
        return 0

    def transaction(self) -> AbstractContextManager[_Nothing]:
        return nullcontext(self)

    def execute(self, *_: object, **__: object) -> _Nothing:
        return self

    def fetchone(self) -> None:
        return None

    def fetchall(self) -> list[Any]:
        return []

    workers = fetchall


def _entries(source: str, families: Iterable[Metric]) -> Iterator[Entry]:
    for family in families:
        names = getattr(family, "_labelnames", ())
        found: dict[str, dict[str, None]] = {name: {} for name in names}
        for sample in family.samples:
            for name, value in sample.labels.items():
                found[name][value] = None
        told = {name: tuple(values) for name, values in found.items()}
        yield _entry(source, family.name, family.type, names, family.documentation, told)


def _entry(
    source: str,
    name: str,
    kind: str,
    labels: Sequence[str],
    text: str,
    told: Mapping[str, tuple[str, ...]] | None = None,
    buckets: tuple[float, ...] = (),
) -> Entry:
    full = f"{name}_total" if kind == "counter" else name
    known = {**(told or {}), **_VALUES.get(full, {})}
    closed = [label for label in labels if label not in OPEN_LABELS]
    values = {label: tuple(known[label]) for label in closed if label in known}
    return Entry(source, full, kind, tuple(labels), values, text, buckets)
