"""The doctor where servers are away, frozen or refuse; its options; Prometheus, real and false."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from idemwatch.demo.processes import Child, free_port
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.exporter import doctor_fetch
from support import commands
from support.alerting import program
from support.doctor import Visit, visit
from support.scraping import Start
from support.stores import wait_until
from support.venv import clean_environ

SECRET = "hunter2"
WORKERS_AND_STATE = ("idemwatch", "idemwatch-worker")
RULES = Path(__file__).parents[1] / "alerts" / "rules"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("IDEMWATCH_", "CELERY_"))]:
        monkeypatch.delenv(variable)


def with_password(url: str) -> str:
    parts = urlsplit(url)
    user = parts.username or ""
    return parts._replace(netloc=f"{user}:{SECRET}@{parts.hostname}:{parts.port}").geturl()


# -- servers ---------------------------------------------------------------------------------------


def test_servers_that_are_away_are_an_error_each_and_the_rest_goes_on() -> None:
    found = visit(
        "--database-url", f"postgresql://u:{SECRET}@127.0.0.1:1/x",
        "--redis-url", f"redis://u:{SECRET}@127.0.0.1:1/0",
        "--broker-url", f"redis://u:{SECRET}@127.0.0.1:1/0",
        "--prometheus-url", f"http://u:{SECRET}@127.0.0.1:1",
    )  # fmt: skip
    assert found.code == 2 and SECRET not in found.output
    errors = {name for name, level in found.bad().items() if level == "error"}
    assert errors == {"postgres", "redis", "broker", "prometheus"}
    assert found.of("versions", "ok") and found.of("rights", "unchecked")
    assert "start postgres, or correct" in found.text("postgres", "error")


def test_a_wrong_password_is_told_and_never_shown(
    database_url: str, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis(config={"requirepass": "another"})
    found = visit(
        "--database-url", with_password(database_url),
        "--redis-url", f"redis://:{SECRET}@127.0.0.1:{server.port}/0",
    )  # fmt: skip
    assert found.code == 2 and SECRET not in found.output and "another" not in found.output
    assert "password authentication failed" in found.text("postgres", "error")
    assert "WRONGPASS" in found.text("redis", "error") or "invalid" in found.text("redis", "error")


def test_frozen_servers_cost_their_own_checks_and_no_more_than_the_deadline(
    database_url: str,
    redis_url: str,
    new_redis: Callable[..., RedisServer],
    new_postgres: Callable[..., PostgresServer],
) -> None:
    server, database = new_redis(), new_postgres()
    server.freeze()
    database.freeze()
    try:
        began = time.monotonic()
        found = visit(
            "--redis-url", server.url, "--broker-url", server.url, "--database-url", database_url,
            "--deadline", "6",
        )  # fmt: skip
        other = visit("--redis-url", redis_url, "--database-url", database.url, "--deadline", "6")
        seconds = time.monotonic() - began
    finally:
        server.thaw()
        database.thaw()
    assert found.code == other.code == 2 and seconds < 14
    assert found.of("broker", "error")
    assert found.of("redis", "error") and found.of("postgres", "ok") and found.of("beats", "ok")
    assert other.of("postgres", "error") and other.of("redis", "ok")


def test_what_hangs_within_a_connection_ends_with_the_deadline(
    database_url: str, tcp_proxy: Callable[[str], Any]
) -> None:
    proxy = tcp_proxy(database_url)
    proxy.hold_replies()
    began = time.monotonic()
    found = visit("--database-url", proxy.url(database_url), "--deadline", "1.5")
    assert time.monotonic() - began < 5
    assert "no answer within 1.5 s" in found.text("postgres", "error")


# -- its options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--deadline", "nan"], "--deadline"),
        (["--format", "xml"], "Invalid value for '--format'"),
        (["--prometheus-url", f"ftp://u:{SECRET}@x"], "is no address such as http://"),
        (["--prometheus-url", f"http://u:{SECRET}@x:port"], "is no address such as http://"),
        (["--database-url", f"mysql://u:{SECRET}@x"], "must begin with postgresql://"),
        (["--redis-url", f"http://u:{SECRET}@x"], "must begin with redis://"),
        (["--job", ""], "a job has a name"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_a_wrong_option_is_3_and_nothing_is_checked(arguments: list[str], said: str) -> None:
    done = commands.run("doctor", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr and SECRET not in done.stderr


def test_without_any_server_it_says_what_to_set() -> None:
    done = commands.run("doctor")
    assert (done.returncode, done.stderr) == (2, "")
    assert "set one, or say --database-url or --redis-url" in done.stdout
    wrong = commands.run("doctor", IDEMWATCH_TTL="soon")
    assert wrong.returncode == 2 and "idempotency_ttl: 'soon' is neither" in wrong.stdout
    memory = commands.run("doctor", IDEMWATCH_STORE="memory")
    assert memory.returncode == 2 and "records of its own" in memory.stdout


def test_ctrl_c_ends_it_with_130(database_url: str, tcp_proxy: Callable[[str], Any]) -> None:
    proxy = tcp_proxy(database_url)
    proxy.hold_replies()
    waits = threading.Event()
    command = [commands.PROGRAM, "doctor", "--database-url", proxy.url(database_url)]
    with subprocess.Popen(
        command, env=clean_environ(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: (waits.wait(0.05) or True) and _threads(process.pid) > 3)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told.strip()) == (130, "interrupted")


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


# -- Prometheus ------------------------------------------------------------------------------------


@contextmanager
def serving(answers: dict[str, Any], status: int = 200) -> Iterator[str]:
    """An HTTP server that answers by path; `headers` of what it was asked are not looked at."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told_of(targets: Any, groups: Any) -> Visit:
    answers = {
        "/api/v1/targets": {"status": "success", "data": {"activeTargets": targets}},
        "/api/v1/rules": {"status": "success", "data": {"groups": groups}},
    }
    with serving(answers) as url:
        return visit("--prometheus-url", url)


def test_targets_that_are_down_and_alerts_that_fire_are_told() -> None:
    login = f"http://u:{SECRET}@x:1/metrics"
    found = told_of(
        [
            {"labels": {"job": "idemwatch"}, "health": "up"},
            {"labels": {"job": "idemwatch-worker"}, "health": "down", "scrapeUrl": login},
            {"labels": {"job": "idemwatch-worker"}, "health": "up"},
            {"labels": {"job": "another"}, "health": "down"},
        ],
        [
            {
                "name": "idemwatch-pipeline",
                "rules": [
                    {"name": "Watchdog", "labels": {"severity": "none"},
                     "alerts": [{"state": "firing"}]},
                    {"name": "BeatStalled", "labels": {"severity": "critical"},
                     "alerts": [{"state": "firing"}, {"state": "pending"}]},
                    {"name": "Broken", "health": "err"},
                ],
            },
            {"name": "another", "rules": [{"name": "Foreign", "alerts": [{"state": "firing"}]}]},
        ],
    )  # fmt: skip
    assert "job idemwatch-worker: 1 of 2 are not up: http://x:1/metrics" in found.text(
        "prometheus", "error"
    )
    assert "cannot evaluate: Broken" in found.text("prometheus", "error")
    assert "alerts are firing: BeatStalled (1) ->" in found.text("prometheus", "warning")
    assert "job idemwatch: 1 up" in found.text("prometheus", "ok") and SECRET not in found.output


def test_a_target_that_was_just_found_is_no_fault() -> None:
    jobs = [{"labels": {"job": name}, "health": "unknown"} for name in WORKERS_AND_STATE]
    found = told_of(jobs, [])
    assert found.of("prometheus", "error") == []
    assert "1 of 1 are not scraped yet" in found.text("prometheus", "info")


@pytest.mark.parametrize("strange", [None, [], "x", [1, None, "x"], {"a": 1}, [{"labels": 7}]])
def test_answers_of_any_form_are_read(strange: Any) -> None:
    found = told_of(strange, strange)
    assert "has no target of job idemwatch" in found.text("prometheus", "warning")
    assert "no rule group of idemwatch" in found.text("prometheus", "warning")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"<html>", 200, "what answers there is no Prometheus"),
        (b"[" * 100_000, 200, "what answers there is no Prometheus"),
        ({"status": "error"}, 200, "what answers there is no Prometheus"),
        (b"", 401, "HTTP 401 -> say user and password"),
        (b"", 302, "HTTP 302 -> correct --prometheus-url"),
        (b"x" * 5000, 200, "more than 4,000 bytes"),
    ],
)
def test_what_is_no_prometheus_is_told(
    body: Any, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_fetch, "MOST_BYTES", 4000 if said.startswith("more") else 10**6)
    with serving({"/api/v1/targets": body, "/api/v1/rules": body}, status) as url:
        assert said in visit("--prometheus-url", url).text("prometheus", "error")


def test_a_real_prometheus_is_read(tmp_path: Path, start: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    up = start().url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [f"{RULES}/*.yml"],
                "scrape_configs": [
                    {"job_name": name, "static_configs": [{"targets": [target]}]}
                    for name, target in (("idemwatch", up), ("idemwatch-worker", "127.0.0.1:1"))
                ],
            }
        )
    )
    command = [
        program("prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}",
    ]  # fmt: skip
    child = Child("prometheus", command, folder=tmp_path)
    try:
        wait_until(lambda: _scraped(f"http://{address}"))
        found = visit("--prometheus-url", f"http://{address}/")
    finally:
        child.stop()
    assert "job idemwatch: 1 up" in found.text("prometheus", "ok")
    assert "1 of 1 are not up: http://127.0.0.1:1/metrics" in found.text("prometheus", "error")
    assert "rule groups" in found.text("prometheus", "ok")


def _scraped(url: str) -> bool:
    """Whether each target was looked for."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/targets", timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return False
    return len(targets) == 2 and all(one["health"] != "unknown" for one in targets)
