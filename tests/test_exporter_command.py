"""`idemwatch exporter` as operators run it: started, scraped, ended, and refused."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
import trustme
from idemwatch.demo.servers import PostgresServer
from support.commands import run
from support.exporters import ExporterProcess, value
from support.stores import wait_until
from support.venv import clean_environ

CELERY = str(Path(sys.executable).with_name("celery"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_where_and_ends_in_order(
    redis_url: str, database_url: str, number: signal.Signals
) -> None:
    urls = {"IDEMWATCH_REDIS_URL": redis_url, "IDEMWATCH_DATABASE_URL": database_url}
    with ExporterProcess("--refresh-seconds", "1", "--threshold", "health=80", **urls) as process:
        assert process.told == f"idemwatch exporter: {process.url}/metrics\n"
        wait_until(process.healthy)
        assert value(process.series(), "threshold", name="health") == 80
        began = time.monotonic()
        code, errors = process.end(number)
    assert (code, errors) == (0, "")
    assert time.monotonic() - began < 10


def age(process: ExporterProcess) -> float:
    at = value(process.series(), "collector_last_success_timestamp_seconds", collector="beats")
    return time.time() - (at or 0)


def test_it_ends_soon_though_a_store_hangs(
    new_postgres: Callable[..., PostgresServer], migrate: Callable[[str], None]
) -> None:
    server = new_postgres()
    migrate(server.url)
    with ExporterProcess("--refresh-seconds", "1", "--database-url", server.url) as process:
        wait_until(process.healthy)
        server.freeze()
        asked = value(
            process.series(), "collector_last_success_timestamp_seconds", collector="beats"
        )
        wait_until(lambda: time.time() - (asked or 0) > 2.5)  # by now it asks again, in vain
        began = time.monotonic()
        code, errors = process.end()
    assert code == 0, errors
    assert time.monotonic() - began < 10
    assert "Traceback" not in errors


def test_a_password_is_never_told(database_url: str) -> None:
    wrong = "postgresql://postgres:s3cret@127.0.0.1:1/db"
    with ExporterProcess(
        "--refresh-seconds", "1", "--log-level", "debug",
        "--redis-url", "redis://:s3cret@127.0.0.1:1/0", "--broker-url", "amqp://u:s3cret@127.0.0.1:1//",
        IDEMWATCH_DATABASE_URL=wrong,
    ) as process:  # fmt: skip
        wait_until(lambda: "its first refresh" not in process.get("/-/ready")[1])
        status, ready = process.get("/-/ready")
        _, metrics = process.get()
        code, errors = process.end()
    assert (status, code) == (503, 0)
    for name in ("postgres", "redis", "broker"):
        assert f"{name}: " in ready
        assert f"collector {name} fails" in errors
    assert "s3cret" not in ready + metrics + errors


def test_tls_and_passwords(tmp_path: Path, redis_url: str) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.pem\n"
        f"basic_auth_users:\n  alice: {hashed}\n"
    )
    with ExporterProcess("--web.config.file", str(web), "--redis-url", redis_url) as process:
        assert process.url.startswith("https://")
        process.tls = ssl.create_default_context()
        authority.configure_trust(process.tls)
        assert process.get()[0] == 401
        assert process.get("/sd")[0] == 401
        assert process.get("/-/healthy")[0] == 200
        process.login = ("alice", "open sesame")
        assert process.get()[0] == 200
        wait_until(lambda: process.get("/sd")[0] == 200)
        assert json.loads(process.get("/sd")[1]) == []


def test_with_an_app_it_has_its_settings_broker_queues_and_schedules(
    tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('proj', broker={redis_url!r})\n"
        f"app.conf.update(idempotency_redis_url={redis_url!r}, idempotency_namespace='mine',\n"
        "    task_default_queue='letters', idempotency_schedule_capacity=9,\n"
        "    beat_schedule={'nightly': {'task': 't.nightly', 'schedule': 60.0}})\n"
    )
    with ExporterProcess(
        "--refresh-seconds", "1", program=(CELERY, "-A", "proj", "idemwatch"),
        PYTHONPATH=str(tmp_path),
    ) as process:  # fmt: skip
        wait_until(process.healthy)
        found = process.series()
        assert process.end()[0] == 0
    assert value(found, "queue_messages", queue="letters") == 0
    assert value(found, "schedule_capacity", source="setting") == 9
    assert value(found, "schedules", status="active") == 1


def test_help_teaches() -> None:
    done = run("exporter", "--help")
    assert done.returncode == 0
    for word in ("Examples:", "Exit codes:", "/-/ready", "celery -A proj", "hit_rate", "9911"):
        assert word in done.stdout, word


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 1, "IDEMWATCH_DATABASE_URL"),
        (("--database-url", "mysql://u:s3cret@h/d"), 1, "idempotency_database_url"),
        (("--redis-url", "redis://u:s3cret@h:port/0"), 1, "idempotency_redis_url"),
        (("--broker-url", "pigeon://u:s3cret@h"), 1, "--broker-url"),
        (("--redis-url", "redis://h/0", "--queue", "mail"), 1, "--queue: needs a broker"),
        (("--broker-url", "redis://h/0", "--queue", ""), 1, "--queue: a queue has a name"),
        (("--broker-url", ""), 1, "nothing to look at"),
        (("--broker-url", "redis://h/0", "--timezone", "Mars/Olympus"), 1, "no such IANA zone"),
        (("--source", "no-such.csv"), 1, "no file 'no-such.csv'"),
        (("--threshold", "hit_rate=2"), 2, "hit_rate: 2.0 is not from 0.0001 to 0.9999"),
        (("--threshold", "hitrate=0.1"), 2, "is not NAME=NUMBER with a NAME of hit_rate"),
        (("--threshold", "health=nan"), 2, "health: nan is not from 1 to 100"),
        (("--refresh-seconds", "0"), 2, "1<=x<=300"),
        (("--refresh-seconds", "301"), 2, "1<=x<=300"),
        (("--refresh-seconds", "nan"), 2, "no number"),
        (("--capacity", "nan"), 2, "no number"),
        (("--capacity", "0"), 2, "0.01<=x"),
        (("--log-level", "loud"), 2, "debug"),
        (("--broker-url", "redis://h/0", "--web.listen-address", "9911"), 1, "is not HOST:PORT"),
        (("--broker-url", "redis://h/0", "--web.config.file", "none.yml"), 1, "none.yml"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], code: int, told: str) -> None:
    done = run("exporter", *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(
            "exporter", "--broker-url", "redis://127.0.0.1:1/0", "--web.listen-address", address
        )
    assert done.returncode == 1
    assert f"{address} is in use" in done.stderr


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tls_server_config:\n  cert_fil: server.pem\n", "cert_fil"),
        ("basic_auth_users:\n  alice: plain\n", "alice"),
        ("nonsense: 1\n", "nonsense"),
    ],
)
def test_a_bad_web_config_is_an_error_at_start_that_names_the_key(
    tmp_path: Path, text: str, key: str
) -> None:
    web = tmp_path / "web.yml"
    web.write_text(text)
    done = run(
        "exporter", "--broker-url", "redis://127.0.0.1:1/0", "--web.config.file", str(web),
        "--web.listen-address", "127.0.0.1:0",
    )  # fmt: skip
    assert done.returncode == 1
    assert key in done.stderr and str(web) in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_it_says_which_one_to_install() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\nfrom idemwatch.exporter.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "exporter", "--help"],
        capture_output=True, text=True, check=False, env=clean_environ(),
    )  # fmt: skip
    assert done.returncode == 1
    assert 'exporter needs numpy: pip install "idemwatch[server]"' in done.stderr
