"""README.md, followed from top to bottom by a reader with a new virtual environment.

A Python block that begins with `# name.py` is that file; a `$` line is a command. The addresses in
the text are replaced by those of the suite's servers. Nothing else is changed.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from idemwatch.idempotency.options import OPTIONS
from idemwatch.idempotency.settings import NAMES
from support.stores import wait_until
from support.venv import ROOT, Venv, copy_source

README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END_SECONDS = 60

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


class Reader:
    """Someone with a folder and a virtual environment, who does what the README says."""

    def __init__(self, folder: Path, venv: Venv, addresses: dict[str, str]) -> None:
        self.folder, self.venv, self.addresses = folder, venv, addresses
        self.running: list[subprocess.Popen[bytes]] = []

    def here(self, text: str) -> str:
        """`text` with the addresses of the suite's servers."""
        for shown, ours in self.addresses.items():
            text = text.replace(shown, ours)
        return text

    def save(self, block: str) -> None:
        """Write a Python block into the file that its first line names."""
        named = re.match(r"# (\w+\.py)\n", block)
        assert named, f"a Python block does not begin with '# name.py': {block[:60]!r}"
        (self.folder / named[1]).write_text(self.here(block), "utf-8")

    def start(self, command: str) -> None:
        """Run a command that goes on until it is told to stop."""
        program, *arguments = shlex.split(self.here(command))
        with (self.folder / "output").open("ab") as output:
            self.running.append(
                subprocess.Popen(
                    [str(self.venv.path / "bin" / program), *arguments],
                    cwd=self.folder,
                    env=self.venv.environ(),
                    stdout=output,
                    stderr=output,
                )
            )

    def run(self, command: str) -> str:
        """What a command prints, which must succeed."""
        done = subprocess.run(
            ["/bin/sh", "-c", self.here(command)],
            cwd=self.folder,
            env=self.venv.environ(),
            capture_output=True,
            text=True,
            timeout=END_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}\n{self.output()}"
        return done.stdout

    def output(self) -> str:
        """What the commands that go on have printed so far."""
        path = self.folder / "output"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def stop(self) -> list[int]:
        """Stop what was started; the exit codes."""
        for process in self.running:
            process.terminate()
        return [process.wait(END_SECONDS) for process in self.running]


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
    for block in blocks("python"):
        reader.save(block)
    yield reader
    reader.stop()


def blocks(language: str) -> list[str]:
    """README's code blocks of one language, in order."""
    return [text for found, text in BLOCK.findall(README) if found == language]


def commands() -> list[str]:
    """README's commands, in order."""
    lines = (line for block in blocks("console") for line in block.splitlines())
    return [line[2:] for line in lines if line.startswith("$ ")]


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
    for command in commands():
        goes_on = re.fullmatch(r"celery -A \w+ (worker|beat)", command)
        follow = reader.start if goes_on else reader.run
        follow(command)
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
