"""The worker's metrics: names and labels as documented, capped, there before the first event."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from idemwatch.idempotency import metrics
from idemwatch.idempotency.metrics import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

LABELS = {
    "idemwatch_claims_total": ("task", "scope", "outcome"),
    "idemwatch_completions_total": ("task", "result"),
    "idemwatch_releases_total": ("task", "reason"),
    "idemwatch_publishes_total": ("task", "outcome"),
    "idemwatch_superseded_total": ("task",),
    "idemwatch_store_seconds": ("store", "operation"),
    "idemwatch_store_errors_total": ("store", "operation"),
    "idemwatch_cache_skips_total": ("reason",),
    "idemwatch_circuit_open": ("store",),
    "idemwatch_lease_lost_total": ("task",),
    "idemwatch_unprotected_runs_total": ("task",),
    "idemwatch_heartbeat_delay_seconds": (),
    "idemwatch_lock_wait_seconds": ("result",),
    "idemwatch_task_seconds": ("task",),
    "idemwatch_writebehind_pending": (),
    "idemwatch_writebehind_dropped_total": (),
    "idemwatch_series_dropped_total": ("metric",),
    "idemwatch_build_info": ("version", "python", "celery"),
    "idemwatch_enabled": ("task",),
}


@pytest.fixture
def task() -> str:
    return f"tests.{uuid4().hex}"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has admitted no task yet."""
    monkeypatch.setattr(metrics, "_tasks", {metrics.SERVICE, metrics.OTHER})
    return iter(())


def value(sample: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(sample, labels)


def test_names_and_labels_are_the_documented_ones() -> None:
    families = vars(metrics).values()
    declared = {
        metrics._name(family): family._labelnames
        for family in families
        if isinstance(family, MetricWrapperBase)
    }
    assert declared == LABELS


def test_every_series_of_an_announced_task_is_there_at_zero(task: str) -> None:
    metrics.announce(task, "user")
    for outcome in metrics.OUTCOMES:
        assert value("idemwatch_claims_total", task=task, scope="user", outcome=outcome) == 0
    for result in metrics.RESULTS:
        assert value("idemwatch_completions_total", task=task, result=result) == 0
    for reason in metrics.REASONS:
        assert value("idemwatch_releases_total", task=task, reason=reason) == 0
    assert value("idemwatch_lease_lost_total", task=task) == 0
    assert value("idemwatch_unprotected_runs_total", task=task) == 0
    assert value("idemwatch_task_seconds_count", task=task) == 0
    assert value("idemwatch_enabled", task=task) == 1


def test_a_task_whose_protection_is_off_says_so(task: str) -> None:
    metrics.announce(task, "global", enabled=False)
    assert value("idemwatch_enabled", task=task) == 0


def test_series_without_a_task_are_there_before_anything_happens() -> None:
    metrics.announce_process()
    for operation in metrics.OPERATIONS:
        assert value("idemwatch_store_errors_total", store="redis", operation=operation) is not None
    assert value("idemwatch_cache_skips_total", reason="away") is not None
    assert value("idemwatch_circuit_open", store="postgres") is not None
    assert value("idemwatch_series_dropped_total", metric="idemwatch_claims_total") is not None


def test_accessors_give_one_cached_child(task: str) -> None:
    child = metrics.claims(task, "global", "granted")
    assert metrics.claims(task, "global", "granted") is child
    child.inc()
    assert value("idemwatch_claims_total", task=task, scope="global", outcome="granted") == 1


@pytest.mark.usefixtures("few")
def test_tasks_over_the_cap_count_under_other() -> None:
    prefix = uuid4().hex
    for number in range(metrics.TASK_CAP):
        metrics.lease_lost(f"{prefix}.{number}")
    before = value("idemwatch_series_dropped_total", metric="idemwatch_lease_lost_total") or 0
    for number in range(5):
        metrics.lease_lost(f"{prefix}.over.{number}").inc()
    metrics.announce(f"{prefix}.over.5", "global")
    assert value("idemwatch_lease_lost_total", task=metrics.OTHER) == 5
    assert value("idemwatch_lease_lost_total", task=f"{prefix}.over.0") is None
    assert value("idemwatch_enabled", task=metrics.OTHER) is None
    dropped = value("idemwatch_series_dropped_total", metric="idemwatch_lease_lost_total") or 0
    assert dropped - before == 6


@pytest.mark.usefixtures("few")
def test_work_outside_tasks_has_its_label_beyond_the_cap() -> None:
    for number in range(metrics.TASK_CAP + 1):
        metrics.task_seconds(f"{uuid4().hex}.{number}")
    labels = {"task": metrics.SERVICE, "scope": "global", "outcome": "duplicate"}
    before = value("idemwatch_claims_total", **labels) or 0
    metrics.claims(metrics.SERVICE, "global", "duplicate").inc()
    assert value("idemwatch_claims_total", **labels) == before + 1


def test_the_module_leaves_the_hosts_registry_alone() -> None:
    code = (
        "import idemwatch.idempotency.metrics, prometheus_client as p;"
        "assert b'idemwatch' not in p.generate_latest()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_a_host_in_multiprocess_mode_keeps_its_directory_to_itself(tmp_path: Path) -> None:
    code = (
        "import prometheus_client as p; from idemwatch.idempotency import metrics as m;"
        "p.Counter('host_things', 'x').inc(); m.announce('t', 'global');"
        "m.claims('t', 'global', 'granted').inc(); m.WRITEBEHIND_PENDING.set(1);"
        "labels = {'task': 't', 'scope': 'global', 'outcome': 'granted'};"
        "assert m.REGISTRY.get_sample_value('idemwatch_claims_total', labels) == 1"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"host_things" in written
    assert b"idemwatch" not in written
