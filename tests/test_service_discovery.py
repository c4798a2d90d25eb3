"""GET /sd: what Prometheus is told of workers, and when it is told nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from idemwatch.exporter.service_discovery import NODE, PATH, TEXT, route, target_groups
from idemwatch.exporter.worker_collector import WorkerCollector
from idemwatch.exporter.worker_directory_store import Listed, WorkerDirectory
from idemwatch.idempotency.redis_link import RedisLink
from support.scraping import Start, get


def worker(node: str, target: str | None, ago: float = 1.0, scheme: str = "http") -> Listed:
    return Listed(node, target, scheme, 4, ago)


class Known(WorkerCollector):
    """A collector that was refreshed with these workers; None: it never was."""

    def __init__(self, workers: list[Listed] | None) -> None:
        super().__init__(WorkerDirectory(RedisLink.from_url("redis://127.0.0.1:1"), "n"))
        self.workers = workers

    def listed(self) -> tuple[Listed, ...] | None:
        return None if self.workers is None else tuple(self.workers)


def test_each_worker_is_a_group_with_its_node_and_scheme() -> None:
    found = target_groups([worker("b", "two:2", scheme="https"), worker("a", "one:1", ago=800)])
    assert found == [
        {"targets": ["one:1"], "labels": {NODE: "a", "__scheme__": "http"}},
        {"targets": ["two:2"], "labels": {NODE: "b", "__scheme__": "https"}},
    ]


def test_a_worker_without_an_address_is_not_listed() -> None:
    assert target_groups([worker("a", None)]) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_target_is_listed_once_for_the_node_seen_last(order: int) -> None:
    found = target_groups([worker("dead", "h:1", ago=300), worker("live", "h:1", ago=2)][::order])
    assert [group["labels"][NODE] for group in found] == ["live"]


def test_prometheus_gets_json(start: Start) -> None:
    known = Known([worker("celery@a", "[::1]:9912")])
    running = start(routes={PATH: (TEXT, route(known))})
    answer = get(running, PATH)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body) == target_groups(known.workers or [])
    known.workers = []
    assert json.loads(get(running, PATH).body) == []
    assert TEXT.encode().replace(b"'", b"&#x27;") in get(running, "/").body


def test_without_a_fresh_list_prometheus_keeps_what_it_has(start: Start) -> None:
    running = start(routes={PATH: (TEXT, route(Known(None)))})
    answer = get(running, PATH)
    assert answer.status == 503 and b"not known" in answer.body


def test_promtool_understands_the_answer(tmp_path: Path) -> None:
    """It reads files of the same form; http_sd has no check of its own."""
    groups = target_groups([worker("celery@a", "web-1:9912"), worker("b", "[2001:db8::1]:80")])
    (tmp_path / "sd.json").write_text(json.dumps(groups))
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n  - job_name: w\n    file_sd_configs:\n      - files: [sd.json]\n"
    )
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: apt-get install prometheus"
    done = subprocess.run(
        [program, "check", "config", "prometheus.yml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
