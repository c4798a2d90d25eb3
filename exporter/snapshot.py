"""What a collector gave at one time, written as text already: a scrape only puts it together.

Invariants: what cannot be written is an error of its collector, never of the scrape; no series
comes twice; a collector has at most so many series, whatever strangers put into its source.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from idemwatch.idempotency.errors import IdempotencyError
from prometheus_client.exposition import generate_latest as write_plain
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as write_openmetrics
from prometheus_client.registry import Collector as Source
from prometheus_client.samples import Sample

MOST_OF_FAMILY: Final = 2_000
MOST_OF_COLLECTOR: Final = 10_000
_EOF: Final = b"# EOF\n"


class Written(NamedTuple):
    """A family as text: its HELP and TYPE, and its samples."""

    head: bytes
    samples: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The families of a collector by name, in both formats; `dropped`: series over a cap."""

    plain: Mapping[str, Written] = field(default_factory=dict)
    openmetrics: Mapping[str, Written] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


NOTHING: Final = Snapshot()


class Unwritable(IdempotencyError):
    """A family that is no text: a label without UTF-8, a value that is no number."""


def snapshot_of(families: Iterable[Metric]) -> Snapshot:
    """All families, capped. Raises Unwritable, and what the families raise while they come."""
    dropped: dict[str, int] = {}
    kept = list(_capped(families, dropped))
    return Snapshot(
        {one.name: _written(one, write_plain) for one in kept},
        {one.name: _written(one, write_openmetrics) for one in kept},
        dropped,
    )


def _capped(families: Iterable[Metric], dropped: dict[str, int]) -> Iterator[Metric]:
    left = MOST_OF_COLLECTOR
    for family in _merged(families):
        series: dict[tuple[object, ...], Sample] = {}
        for one in family.samples:
            series.setdefault((one.name, *sorted(one.labels.items())), one)
        kept = list(series.values())[: min(left, MOST_OF_FAMILY)]
        left -= len(kept)
        if len(kept) < len(family.samples):
            dropped[family.name] = len(family.samples) - len(kept)
        yield _with(family, kept)


def _merged(families: Iterable[Metric]) -> Iterable[Metric]:
    """A name has one family."""
    found: dict[str, Metric] = {}
    for family in families:
        if family.name in found:
            samples = [*found[family.name].samples, *family.samples]
            found[family.name] = _with(found[family.name], samples)
        else:
            found[family.name] = family
    return found.values()


def _with(family: Metric, samples: list[Sample]) -> Metric:
    """A copy: the collector may keep its own."""
    other = copy.copy(family)
    other.samples = samples
    return other


def _written(family: Metric, write: Callable[[Source], bytes]) -> Written:
    try:
        text = write(_One(family)).removesuffix(_EOF)
    except Exception as error:
        # Without its cause: the library puts the whole family into it.
        raise Unwritable(f"{family.name} cannot be written: {type(error).__name__}") from None
    lines = text.splitlines(keepends=True)
    heads = next((n for n, line in enumerate(lines) if not line.startswith(b"# ")), len(lines))
    return Written(b"".join(lines[:heads]), b"".join(lines[heads:]))


class _One(Source):
    """A registry that holds one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def without(snapshot: Snapshot, other: Snapshot) -> Snapshot:
    """The families of `snapshot` that `other` does not have."""
    return replace(
        snapshot,
        plain={n: one for n, one in snapshot.plain.items() if n not in other.plain},
        openmetrics={n: one for n, one in snapshot.openmetrics.items() if n not in other.plain},
    )


def joined(snapshots: Iterable[Snapshot], *, openmetrics: bool) -> bytes:
    """One exposition of them all; what several tell of one family stands together."""
    found: dict[str, list[bytes]] = {}
    for snapshot in snapshots:
        for name, one in (snapshot.openmetrics if openmetrics else snapshot.plain).items():
            found.setdefault(name, [one.head]).append(one.samples)
    parts = [part for family in found.values() for part in family]
    return b"".join([*parts, _EOF] if openmetrics else parts)
