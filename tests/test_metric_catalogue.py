"""The catalogue of metrics is what a worker and a state exporter really tell; its page is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.schedules import crontab
from idemwatch.exporter.catalogue import OPEN_LABELS, WORKER, Entry, catalogue
from idemwatch.exporter.metrics_page import SOURCES, page
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency.settings import Settings
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from support.stores import wait_until
from support.table import Table
from support.worker import Worker

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "metrics.md"
FORBIDDEN = {"key", "task_id", "id", "args", "arguments", "user", "user_id", "pid", "host"}


def entries(of_worker: bool) -> list[Entry]:
    return [one for one in catalogue() if (one.source == WORKER) is of_worker]


def parsed(text: str) -> list[Metric]:
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]


def told(families: list[Metric]) -> set[tuple[str, str, str]]:
    """Name, type and help of each family, the name as the catalogue has it."""
    return {
        (one.name + ("_total" if one.type == "counter" else ""), one.type, one.documentation)
        for one in families
    }


def documented(found: list[Entry]) -> set[tuple[str, str, str]]:
    return {(one.name, one.kind, one.text) for one in found}


def strangers(families: list[Metric], found: list[Entry]) -> Iterator[str]:
    """Series whose labels, or whose values of a label, are not documented."""
    for family in families:
        for sample in family.samples:
            if not any(covers(one, sample.name, sample.labels) for one in found):
                yield f"{sample.name}{sample.labels}"


def covers(entry: Entry, name: str, labels: dict[str, str]) -> bool:
    wanted = entry.series.get(name)
    return (
        wanted is not None
        and set(wanted) == set(labels)
        and all(
            value in entry.values[label] for label, value in labels.items() if label in entry.values
        )
    )


@pytest.mark.worker
def test_a_worker_tells_what_is_documented_and_nothing_else(
    new_worker: Callable[..., Worker], redis_url: str, tmp_path: Path
) -> None:
    env = {"METERED_BY": "line", "IDEMWATCH_METRICS_DIR": str(tmp_path)}
    worker = new_worker("support.metered_app", broker=redis_url, backend=redis_url, env=env)
    written = tmp_path / worker.nodename / "url"
    worker.wait_for(written.exists, "the endpoint's address was written")
    families = parsed(scraped(written.read_text().strip()))
    assert told(families) == documented(entries(of_worker=True))
    assert list(strangers(families, entries(of_worker=True))) == []


def scraped(url: str) -> str:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    request = urllib.request.Request(f"{url}/metrics", headers=accept)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.fixture
def busy_app(redis_url: str) -> Iterator[Celery]:
    """An app whose schedules crowd one minute, so that something is recommended."""
    app = Celery("catalogue", broker=redis_url, set_as_current=False)
    app.conf.beat_schedule = {
        f"job-{number}": {"task": f"jobs.{number % 3}", "schedule": crontab(hour=2, minute=15)}
        for number in range(6)
    }
    yield app
    app.close()


def test_a_state_exporter_tells_what_is_documented_and_nothing_else(
    database_url: str, redis_url: str, busy_app: Celery
) -> None:
    table = Table(database_url)
    table.add(3, "jobs.0", state="poisoned", expires="1 hour")
    table.execute("UPDATE endpoint_stats SET hits = 7, first_seen = now(), last_hit = now()")
    settings = Settings(database_url=database_url, redis_url=redis_url)
    state = State(settings, Options(source="beat", capacity=2), busy_app)
    state.start()
    try:
        wait_until(lambda: not state.problems())
        families = parsed(state.text(openmetrics=True).decode())
    finally:
        state.close()
    assert told(families) == documented(entries(of_worker=False))
    assert list(strangers(families, entries(of_worker=False))) == []
    silent = {one.name for one in families if not one.samples}
    assert silent == {  # what no beat has told, and what nobody has dropped
        "idemwatch_schedule_last_run_timestamp_seconds",
        "idemwatch_schedule_last_success_timestamp_seconds",
        "idemwatch_beat_last_tick_timestamp_seconds",
        "idemwatch_series_dropped",
    }


def test_the_committed_page_is_what_the_code_makes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "idemwatch.exporter.metrics_page"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert PAGE.read_text() == done.stdout, "say `make docs`, and commit docs/metrics.md"


def test_every_metric_and_source_has_its_place_on_the_page() -> None:
    text = page(catalogue())
    for entry in catalogue():
        assert f"| `{entry.name}` |" in text
    assert {entry.source for entry in catalogue()} == set(SOURCES)


def test_a_label_is_open_or_all_its_values_are_documented() -> None:
    for entry in catalogue():
        closed = set(entry.labels) - OPEN_LABELS
        assert closed == set(entry.values), f"{entry.name}: {closed ^ set(entry.values)}"
        assert all(entry.values.values())


def test_names_are_as_prometheus_wants_them() -> None:
    for entry in catalogue():
        assert re.fullmatch(r"idemwatch_[a-z]+(_[a-z]+)*", entry.name)
        assert (entry.kind == "counter") == entry.name.endswith("_total")
        assert entry.kind in ("counter", "gauge", "histogram")
        if "timestamp" in entry.name or entry.kind == "histogram":
            assert entry.name.endswith("_seconds")


def test_no_label_could_name_a_piece_of_work_or_a_person() -> None:
    for entry in catalogue():
        assert not set(entry.labels) & FORBIDDEN, entry.name


def test_each_metric_says_what_it_is() -> None:
    for entry in catalogue():
        assert len(entry.text) >= len("Schedules") and not entry.text.endswith("."), entry.name


def test_a_histogram_has_the_series_that_prometheus_makes_of_it() -> None:
    (entry,) = [one for one in catalogue() if one.name == "idemwatch_store_seconds"]
    assert entry.series == {
        "idemwatch_store_seconds_bucket": ("store", "operation", "le"),
        "idemwatch_store_seconds_sum": ("store", "operation"),
        "idemwatch_store_seconds_count": ("store", "operation"),
    }
