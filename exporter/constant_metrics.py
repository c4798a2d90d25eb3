"""What is told whatever the stores do: the thresholds of alerts and boards, and the versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata

from idemwatch.alerts.thresholds import BUSY, HOT, QUIET, Thresholds
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


def constants(thresholds: Thresholds) -> Iterator[Metric]:
    """`idemwatch_threshold` with the chosen values, and `idemwatch_build_info`."""
    family = GaugeMetricFamily(
        "idemwatch_threshold", "What alerts and boards go by", labels=["name"]
    )
    for name, value in {**asdict(thresholds), "hot": HOT, "busy": BUSY, "quiet": QUIET}.items():
        family.add_metric([name], value)
    yield family
    yield _build_info()


def _build_info() -> Metric:
    family = GaugeMetricFamily(
        "idemwatch_build_info",
        "1, with the versions that run",
        labels=["version", "python", "celery"],
    )
    versions = (
        metadata.version("idemwatch"),
        platform.python_version(),
        metadata.version("celery"),
    )
    family.add_metric(versions, 1)
    return family
