"""Metrics of real workers: exact over recycled and killed children, in every pool."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.local import Proxy
from idemwatch.exporter import node_directory, worker
from idemwatch.idempotency.errors import ConfigurationError
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from support.worker import Worker

NewWorker = Callable[..., Worker]
APP = "support.metered_app"

needs_worker = pytest.mark.worker


class Metered:
    """A worker of the metered app, and what its endpoint says."""

    def __init__(self, worker: Worker, publisher: Celery, directory: Path) -> None:
        self.worker, self.publisher = worker, publisher
        self.directory = directory / worker.nodename
        worker.wait_for((self.directory / "url").exists, "the endpoint's address was written")
        self.url = (self.directory / "url").read_text().strip()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> dict[str, float]:
        status, text = self.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert status == 200
        families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
        return {
            f"{sample.name}{sorted(sample.labels.values())}": sample.value
            for family in families
            for sample in family.samples
        }

    def send(self, task: str, times: int) -> None:
        for _ in range(times):
            self.publisher.send_task(f"metered.{task}")

    def granted(self, task: str) -> float:
        name = f"metered.{task}"
        return self.samples()[f"idemwatch_claims_total{sorted([name, 'global', 'granted'])}"]

    def wait_for_granted(self, task: str, times: int) -> None:
        self.worker.wait_for(lambda: self.granted(task) >= times, f"{times} of {task} were counted")


@pytest.fixture
def metered(
    new_worker: NewWorker, redis_url: str, tmp_path: Path
) -> Iterator[Callable[..., Metered]]:
    publisher = Celery("publisher", broker=redis_url, set_as_current=False)

    def start(by: str = "line", env: dict[str, str] | None = None, **options: Any) -> Metered:
        environment = {"METERED_BY": by, "IDEMWATCH_METRICS_DIR": str(tmp_path), **(env or {})}
        if by == "setting":
            environment.setdefault("IDEMWATCH_METRICS_ADDRESS", "127.0.0.1:0")
        running = new_worker(APP, broker=redis_url, backend=redis_url, env=environment, **options)
        return Metered(running, publisher, tmp_path)

    yield start
    publisher.close()


@needs_worker
def test_recycled_and_killed_children_lose_nothing(metered: Callable[..., Metered]) -> None:
    running = metered(concurrency=2, args=["--max-tasks-per-child=1"])
    assert running.granted("count") == 0
    running.send("count", 30)
    running.wait_for_granted("count", 30)
    running.send("die", 3)
    running.wait_for_granted("die", 3)
    running.send("count", 10)
    running.wait_for_granted("count", 40)
    samples = running.samples()
    assert running.granted("count") == 40
    assert running.granted("die") == 3
    assert samples["idemwatch_task_seconds_count['metered.count']"] == 40
    assert samples["idemwatch_task_seconds_sum['metered.count']"] == pytest.approx(8)
    assert not [name for name in samples if name.startswith("host_")]
    assert len(list(running.directory.glob("*.db"))) <= 2
    running.worker.wait_for(
        lambda: running.samples()["idemwatch_writebehind_pending[]"] == 0,
        "the dead children's gauges were reset",
    )


@needs_worker
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_every_pool_by_the_setting_alone(metered: Callable[..., Metered], pool: str) -> None:
    running = metered(by="setting", pool=pool)
    running.send("count", 8)
    running.wait_for_granted("count", 8)
    assert running.granted("count") == 8
    assert bool(list(running.directory.glob("*.db"))) is (pool == "prefork")
    processes = running.samples()["idemwatch_worker_pool_processes[]"]
    assert processes == (2 if pool == "prefork" else 1)


@needs_worker
def test_what_the_worker_says_of_itself(metered: Callable[..., Metered]) -> None:
    running = metered(env={"METERED_PROBLEM": "redis is away"})
    samples = running.samples()
    for state in ("active", "reserved", "scheduled"):
        assert samples[f"idemwatch_worker_tasks['{state}']"] == 0
    (info,) = [name for name in samples if name.startswith("idemwatch_build_info")]
    assert sys.version.split()[0] in info
    assert samples["idemwatch_enabled['metered.count']"] == 1
    assert samples["idemwatch_store_errors_total['claim', 'redis']"] == 0
    assert running.get("/-/healthy") == (200, "healthy\n")
    assert running.get("/-/ready") == (503, "redis is away\n")
    assert running.get("/")[0] == 200
    running.publisher.send_task("metered.count", countdown=3600)
    running.worker.wait_for(
        lambda: running.samples()["idemwatch_worker_tasks['scheduled']"] == 1,
        "the task with a countdown was counted",
    )


@needs_worker
def test_an_end_in_order_leaves_no_file(metered: Callable[..., Metered]) -> None:
    running = metered()
    running.send("count", 2)
    running.wait_for_granted("count", 2)
    running.worker.stop()
    assert not running.directory.exists()
    with pytest.raises(urllib.error.URLError):
        running.get("/metrics")


@needs_worker
def test_a_second_worker_takes_the_next_port(metered: Callable[..., Metered]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = metered(by="setting", env={"IDEMWATCH_METRICS_ADDRESS": f"127.0.0.1:{port}"})
    assert running.url != f"http://127.0.0.1:{port}"
    running.worker.wait_for_log(f"port {port} of 127.0.0.1 is taken; listening on")
    assert running.granted("count") == 0


@needs_worker
@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("IDEMWATCH_METRICS_ADDRESS", "nonsense", "idempotency_metrics_address: 'nonsense' is not"),
        ("IDEMWATCH_METRICS_WEB_CONFIG", "web.yml", "web.yml: line 1: nonsense: no such key"),
        ("IDEMWATCH_METRICS_DIR", "web.yml", "idempotency_metrics_dir: cannot make"),
        ("IDEMWATCH_METRICS_ADDRESS", "192.0.2.1:9912", "cannot listen on 192.0.2.1:9912"),
    ],
)
def test_a_wrong_setting_stops_the_worker(
    redis_url: str, tmp_path: Path, variable: str, value: str, wanted: str
) -> None:
    (tmp_path / "web.yml").write_text("nonsense: 1\n")
    ours = {name: text for name, text in os.environ.items() if not name.startswith("IDEMWATCH_")}
    environment = {"PYTHONPATH": str(Path(__file__).parent), "METERED_BY": "setting"}
    settings = {"IDEMWATCH_METRICS_ADDRESS": "127.0.0.1:0", "IDEMWATCH_METRICS_DIR": str(tmp_path)}
    ended = subprocess.run(
        [*(sys.executable, "-m", "celery", "-A", APP, "-b", redis_url), "worker", "-c", "1"],
        env={**ours, **environment, **settings, variable: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode != 0
    assert wanted in ended.stdout + ended.stderr


def test_without_line_and_setting_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDEMWATCH_METRICS_ADDRESS", raising=False)
    app = Celery("plain", set_as_current=False)
    worker._on_worker_init(sender=SimpleNamespace(app=app, hostname="plain@localhost"))
    assert worker._running is None


def test_readiness_asks_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = "idemwatch.idempotency.service.ready"
    monkeypatch.setattr(problems, lambda app: [f"{app} is away"], raising=False)
    assert worker.stores_ready("redis") == ["redis is away"]


def test_the_line_works_for_a_proxy_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_asked", {})
    app = Celery("proxied", set_as_current=False)
    worker.serve_worker_metrics(Proxy(lambda: app))
    assert worker._wanted(app)


def test_signals_are_connected_once() -> None:
    from celery import signals

    worker.install_signals()
    before = len(signals.worker_init.receivers)
    worker.install_signals()
    assert len(signals.worker_init.receivers) == before


def test_the_import_is_cheap() -> None:
    code = (
        "import sys, idemwatch.exporter.worker;"
        "heavy = {'prometheus_client', 'psycopg', 'redis', 'idemwatch.exporter.endpoint'};"
        "print(heavy & set(sys.modules))"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert shown.strip() == "set()"


def test_two_workers_of_one_name_share_no_directory(tmp_path: Path) -> None:
    first = node_directory.claim(tmp_path, "celery@host")
    second = node_directory.claim(tmp_path, "celery@host")
    assert (first.path.name, second.path.name) == ("celery@host", "celery@host-2")
    first.release()
    third = node_directory.claim(tmp_path, "celery@host")
    assert third.path == first.path
    second.release()
    third.release()
    assert list(tmp_path.iterdir()) == []


def test_a_start_forgets_an_earlier_life(tmp_path: Path) -> None:
    (tmp_path / "celery@host").mkdir(mode=0o755)
    (tmp_path / "celery@host" / "0.db").write_bytes(b"old")
    claimed = node_directory.claim(tmp_path, "celery@host")
    assert list(claimed.path.iterdir()) == []
    assert claimed.path.stat().st_mode & 0o777 == 0o700
    claimed.release()


@pytest.mark.parametrize("node", ["../../etc@host", ".@host", "a/b@host", "n\u00fc@host"])
def test_a_node_name_stays_inside(tmp_path: Path, node: str) -> None:
    claimed = node_directory.claim(tmp_path, node)
    assert claimed.path.parent == tmp_path
    assert claimed.path.resolve().parent == tmp_path.resolve()
    claimed.release()


def test_a_strangers_directory_or_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a@host").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is no directory"):
        node_directory.claim(tmp_path, "a@host")
    (tmp_path / "b@host").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="belongs to user id"):
        node_directory.claim(tmp_path, "b@host")


def test_the_default_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    claimed = node_directory.claim(None, "celery@host")
    assert claimed.path == tmp_path / "idemwatch" / "celery@host"
    assert claimed.path.parent.stat().st_mode & 0o777 == 0o700
    claimed.release()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert node_directory.default_root().name == f"idemwatch-{os.geteuid()}"
