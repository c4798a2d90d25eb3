"""README.md, followed from top to bottom by a reader with a new virtual environment.

What a reader does with a page: support/reader.py.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from idemwatch.idempotency.options import OPTIONS
from idemwatch.idempotency.settings import NAMES
from support.reader import END_SECONDS, Reader, blocks, commands
from support.stores import wait_until
from support.venv import ROOT, Venv, copy_source

README = (ROOT / "README.md").read_text("utf-8")

ORDERS_AND_REPORTS = """
import orders, reports
orders.app.conf.task_always_eager = orders.app.conf.task_eager_propagates = True
for _ in range(2):
    assert orders.charge.delay(1).get() == "order 1 charged"
    assert orders.ship.delay(1, parcels=2).get() == 2
    assert orders.invoice(1) == {"order": 1}
    assert reports.build_report.delay("load", 2026, 7).get() == "load-2026.pdf"
    assert reports.remind.delay(1, "2026-03-01", trace=_).get() == "reminded about 1"
    assert reports.welcome.delay(user_id=7).get() == "welcome sent to 7"
assert orders.restock("bolts") < orders.restock("bolts")
"""
ONE_DUPLICATE = r'^idemwatch_claims_total\{.*outcome="duplicate".*\} 1.0$'
SCRAPE = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9912/metrics", timeout=30).read().decode())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """A virtual environment with this project and what the README's reader would have."""
    source = copy_source(tmp_path_factory.mktemp("source"))
    return Venv.make(tmp_path_factory.mktemp("venv"), f"{source}[server]", "pytest")


@pytest.fixture
def reader(venv: Venv, tmp_path: Path, redis_url: str, empty_database_url: str) -> Iterator[Reader]:
    addresses = {
        "redis://localhost:6379/0": redis_url,
        "redis://localhost:6379/1": redis_url,
        "redis://localhost:6379/2": redis_url,
        "postgresql://localhost/jobs": empty_database_url,
        "127.0.0.1:9912": f"127.0.0.1:{free_port()}",
    }
    reader = Reader(tmp_path, venv, addresses)
    for block in blocks(README, "python"):
        reader.save(block)
    yield reader
    reader.stop()


def scheduled(database_url: str) -> list[str]:
    """What the beat has put into its table."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT identifier FROM schedule ORDER BY identifier")
        return [identifier for (identifier,) in rows]


@pytest.mark.worker
@pytest.mark.timeout(400)
def test_readme_runs_from_top_to_bottom(reader: Reader, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE charge (order_id int PRIMARY KEY)")
    reader.follow(commands(README))
    reader.run(f"python -c '{ORDERS_AND_REPORTS}'")
    reader.run("python -m pytest test_jobs.py")
    scraped = reader.run(f"python -c '{SCRAPE}'")
    assert re.search(
        r'^idemwatch_claims_total{.*outcome="duplicate".*} 1.0$', scraped, re.MULTILINE
    )
    wait_until(lambda: scheduled(empty_database_url) == ["close-job", "close-others"], END_SECONDS)
    assert all(process.poll() is None for process in reader.running), reader.output()
    assert set(reader.stop()) == {0}, reader.output()


def test_each_make_target_named_in_the_readme_exists() -> None:
    targets = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "test-beats", "check", "bench"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_each_setting_is_in_the_readme() -> None:
    listed = re.findall(r"^\| `idempotency_(\w+)` \| `IDEMWATCH_(\w+)` \|", README, re.MULTILINE)
    assert {name for name, _ in listed} == NAMES
    assert all(variable == name.upper() for name, variable in listed)


def test_each_task_option_is_in_the_readme() -> None:
    listed = re.findall(r"^\| `idempotency_(\w+)` \| (?!`)", README, re.MULTILINE)
    assert set(listed) == OPTIONS
