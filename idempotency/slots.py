"""Metric types whose values survive the process that counted them, keyed by the pool's slot.

A value is a plain number until its process calls `bind`; from then on it is also written to the
slot's memory-mapped file, and a later process in the same slot goes on counting from there. The
process that calls `merge_from` serves its own values plus all slots' files.

Invariants: one file per slot, so files are bounded by concurrency, however many children come and
go; a forked child never writes to its parent's file; neither counting nor a scrape raises because
of a file; prometheus_client's module-wide value class is left alone, so the host application's own
metrics stay as they are.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .slot_files import SlotFile, open_slot, read_slot

log = logging.getLogger(__name__)

Merge = Literal["sum", "max"]
Labels = tuple[tuple[str, str], ...]
Family = Counter | Gauge | Histogram


class SlotValue:
    """One number, with the interface that prometheus_client's metric types expect of a value."""

    __slots__ = ("amount", "key")

    def __init__(self, key: str, amount: float) -> None:
        self.key = key
        self.amount = amount

    def inc(self, amount: float) -> None:
        with _slots.lock:
            self.amount += amount
            if _slots.file is not None:
                _slots.file.put(self.key, self.amount)

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002
        with _slots.lock:
            self.amount = value
            if _slots.file is not None:
                _slots.file.put(self.key, self.amount)

    def get(self) -> float:
        return self.amount

    def set_exemplar(self, exemplar: object) -> None:
        """Exemplars are not kept."""

    def get_exemplar(self) -> None:
        return None


class _Slots:
    """All values of this process, and where they go."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.families: dict[str, Family] = {}
        self.merges: dict[str, Merge] = {}
        self.values: dict[str, SlotValue] = {}
        self.kept: dict[str, float] = {}
        self.file: SlotFile | None = None
        self.directory: Path | None = None

    def declare(self, family: Family, merge: Merge) -> None:
        with self.lock:
            if family._name in self.families:
                raise ValueError(f"the metric {family._name} is declared twice")
            self.families[family._name] = family
            self.merges[family._name] = merge

    def value(self, family: Family, suffix: str, labels: Labels) -> SlotValue:
        names, values = [name for name, _ in labels], [value for _, value in labels]
        key = mmap_key(family._name, family._name + suffix, names, values, "")
        with self.lock:
            if key not in self.values:
                self.values[key] = SlotValue(key, self.kept.get(key, 0.0))
            return self.values[key]

    def bind(self, path: Path) -> None:
        with self.lock:
            if self.file is not None:
                return
            file = open_slot(path)
            self.kept = self._inherit(file)
            for value in self.values.values():
                inherited = self.kept.get(value.key, 0.0)
                if value.amount:
                    file.put(value.key, value.amount + inherited)
                value.amount += inherited
            self.file = file

    def _inherit(self, file: SlotFile) -> dict[str, float]:
        """What the slot's former holders counted. Their gauges are set to 0: they are dead."""
        kept: dict[str, float] = {}
        for key, amount, _ in list(file.read_all_values()):  # type: ignore[no-untyped-call]
            if isinstance(self.families.get(_parse(key)[0]), Gauge):
                file.put(key, 0.0)
            else:
                kept[key] = amount
        return kept

    def forked(self) -> None:
        """In a new child: locks may be held by threads that are not here, counts are the parent's.

        What is counted between fork and bind stays in memory, and `bind` adds it to the slot.
        """
        self.lock = threading.RLock()
        if self.file is not None:
            self.file.close()  # type: ignore[no-untyped-call]  # the parent's mapping stays
        self.file, self.directory = None, None
        self.kept = {}
        for value in self.values.values():
            value.amount = 0.0
        for family in self.families.values():
            family._lock = threading.Lock()
        REGISTRY._lock = threading.Lock()

    def totals(self) -> dict[str, float]:
        with self.lock:
            directory = self.directory
            in_file = directory is not None and self.file is not None  # then it is read from there
            totals = {v.key: 0.0 if in_file else v.amount for v in self.values.values()}
        for path in sorted(directory.glob("*.db")) if directory else ():
            for key, amount in read_slot(path):
                if self.merges.get(_parse(key)[0]) == "max":
                    totals[key] = max(totals.get(key, amount), amount)
                else:
                    totals[key] = totals.get(key, 0.0) + amount
        return totals


@lru_cache(maxsize=1 << 16)
def _parse(key: str) -> tuple[str, str, Labels]:
    """Family, sample and labels of a stored key; a damaged one belongs to no family."""
    try:
        family, sample, labels, _ = json.loads(key)
        return family, sample, tuple(labels.items())
    except (ValueError, TypeError, AttributeError):
        return "", "", ()


_slots: Final = _Slots()


def bind(directory: Path, slot: str) -> None:
    """From now on keep this process's values in the file of `slot`; once in a process's life.

    A slot has one live process at a time: billiard gives an index again when its holder is gone.
    """
    try:
        _slots.bind(directory / f"{slot}.db")
    except OSError as error:
        log.error("metrics of this process stay out of the scrape: %s: %s", directory, error)


def merge_from(directory: Path | None) -> None:
    """Serve this process's values plus the slots' files in `directory`; None: its own alone."""
    _slots.directory = directory


class SlotCounter(Counter):
    """A counter that the slot keeps."""

    def __init__(
        self, name: str, documentation: str, labelnames: Iterable[str] = (), **child: Any
    ) -> None:
        super().__init__(name, documentation, labelnames, **{**child, "registry": None})
        if not self._labelvalues:
            _slots.declare(self, "sum")

    def _metric_init(self) -> None:
        self._value = _slots.value(self, "_total", _labels(self))
        self._created = 0.0


class SlotGauge(Gauge):
    """A gauge that starts at 0 in each new process; `merge` says how processes add up."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        merge: Merge = "sum",
        **child: Any,
    ) -> None:
        super().__init__(name, documentation, labelnames, **{**child, "registry": None})
        self._kwargs["merge"] = merge
        if not self._labelvalues:
            _slots.declare(self, merge)

    def _metric_init(self) -> None:
        self._value = _slots.value(self, "", _labels(self))


class SlotHistogram(Histogram):
    """A histogram that the slot keeps."""

    def __init__(
        self, name: str, documentation: str, labelnames: Iterable[str] = (), **child: Any
    ) -> None:
        super().__init__(name, documentation, labelnames, **{**child, "registry": None})
        if not self._labelvalues:
            _slots.declare(self, "sum")

    def _metric_init(self) -> None:
        labels = _labels(self)
        self._created = 0.0
        self._sum = _slots.value(self, "_sum", labels)
        self._buckets = [
            _slots.value(self, "_bucket", (*labels, ("le", _le(bound))))
            for bound in self._upper_bounds
        ]

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002
        """Count one observation; exemplars are not kept."""
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


def _le(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _labels(metric: Family) -> Labels:
    return tuple(zip(metric._labelnames, metric._labelvalues, strict=False))


class SlotCollector(Collector):
    """All declared families, in their order of declaration, with the merged values."""

    def collect(self) -> Iterator[Metric]:
        grouped: dict[str, list[tuple[str, Labels, float]]] = {}
        for key, amount in _slots.totals().items():
            name, sample, labels = _parse(key)
            grouped.setdefault(name, []).append((sample, labels, amount))
        for name, family in list(_slots.families.items()):
            metric = Metric(name, family._documentation, family._type or "unknown")
            samples = grouped.get(name, [])
            if isinstance(family, Histogram):
                samples = list(_cumulated(name, samples, family._upper_bounds))
            for sample, labels, amount in samples:
                metric.add_sample(sample, dict(labels), amount)
            yield metric


def _cumulated(
    name: str, samples: Iterable[tuple[str, Labels, float]], bounds: Sequence[float]
) -> Iterator[tuple[str, Labels, float]]:
    """Histogram samples as they are exposed. Stored buckets count apart, and only if touched."""
    sums: dict[Labels, float] = {}
    buckets: dict[Labels, dict[str, float]] = {}
    for sample, labels, amount in samples:
        series = tuple(label for label in labels if label[0] != "le")
        counts = buckets.setdefault(series, {})
        if sample.endswith("_bucket"):
            counts[dict(labels)["le"]] = amount
        else:
            sums[series] = amount
    for series, counts in buckets.items():
        count = 0.0
        for le in map(_le, bounds):
            count += counts.get(le, 0.0)
            yield f"{name}_bucket", (*series, ("le", le)), count
        yield f"{name}_count", series, count
        yield f"{name}_sum", series, sums.get(series, 0.0)


REGISTRY: Final = CollectorRegistry()
REGISTRY.register(SlotCollector())
os.register_at_fork(after_in_child=_slots.forked)
