"""What Prometheus' own tool thinks of metrics."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

Series = dict[tuple[str, ...], float]
"""Values by the values of the labels, in the order of their names."""


class Fixed:
    """A collector of what it was given."""

    def __init__(self, found: Sequence[Metric]) -> None:
        self.found = found

    def collect(self) -> Sequence[Metric]:
        return self.found


def exposed(families: Iterable[Metric]) -> str:
    """Metrics as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(Fixed(list(families)))
    return str(generate_latest(registry).decode())


def faults(families: Iterable[Metric]) -> str:
    """What `promtool check metrics` says; nothing if all is well."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: apt-get install prometheus"
    done = subprocess.run(
        [program, "check", "metrics"], input=exposed(families), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit {done.returncode}")


def told(families: Iterable[Metric]) -> dict[str, Series]:
    """By name without the prefix, read back by the parser; no series may be there twice."""
    found: dict[str, Series] = {}
    for family in parse(exposed(families)):
        values = found.setdefault(family.name.removeprefix("idemwatch_"), {})
        for sample in family.samples:
            key = tuple(sample.labels[name] for name in sorted(sample.labels))
            assert key not in values, f"{family.name}{key} is there twice"
            values[key] = sample.value
    return found
