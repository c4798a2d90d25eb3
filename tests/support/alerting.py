"""The programs of Prometheus and Alertmanager, as tests run them: promtool, amtool, a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idemwatch.demo.processes import Child, free_port

ALERTS = Path(__file__).parents[2] / "alerts"
RUNBOOKS = ALERTS / "runbooks"
ALERTMANAGER = "prometheus-alertmanager"
DEADLINE_SECONDS = 60.0
TRIES = 5
"""Of starting on a port that another may take before us."""


def program(name: str) -> str:
    """The path of a program, which must be installed."""
    found = shutil.which(name)
    assert found, f"{name} is missing: apt-get install prometheus prometheus-alertmanager"
    return found


def run(name: str, *arguments: str | Path, folder: Path | None = None) -> str:
    """What a program prints that must succeed."""
    done = attempt(name, *arguments, folder=folder)
    assert done.returncode == 0, f"{name} {arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(
    name: str, *arguments: str | Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A program run to its end."""
    return subprocess.run(
        [program(name), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_SECONDS,
        check=False,
    )


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, *alerts: Mapping[str, str], **annotations: str) -> None:
        """Tell it of alerts, each given by its labels."""
        self._call(
            "/api/v2/alerts", [{"labels": one, "annotations": annotations} for one in alerts]
        )

    def status(self, **labels: str) -> dict[str, Any]:
        """What becomes of the one alert with these labels; empty if it does not know it yet."""
        found = [
            one for one in self._call("/api/v2/alerts") if labels.items() <= one["labels"].items()
        ]
        assert len(found) <= 1, found
        return dict(found[0]["status"]) if found else {}

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            self._call("/api/v2/status")
        except OSError:
            return False
        return True

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextmanager
def running_alertmanager(config: Path, folder: Path) -> Iterator[Alertmanager]:
    """An Alertmanager on a free port, alone."""
    child, server = _start(config, folder)
    try:
        yield server
    finally:
        child.stop()


def _start(config: Path, folder: Path) -> tuple[Child, Alertmanager]:
    for number in range(TRIES):
        address = f"127.0.0.1:{free_port()}"
        child = Child(f"alertmanager{number}", _command(config, folder, address), folder=folder)
        server = Alertmanager(f"http://{address}")
        try:
            # It logs its address only once it is its own.
            child.wait_until(lambda: address in child.log_tail(), DEADLINE_SECONDS)  # noqa: B023
            child.wait_until(server.ready, DEADLINE_SECONDS)
        except BaseException:
            taken = "address already in use" in child.log_tail()
            child.kill()
            if taken and number + 1 < TRIES:
                continue
            raise
        return child, server
    raise AssertionError("unreachable")


def _command(config: Path, folder: Path, address: str) -> Sequence[str]:
    return [
        program(ALERTMANAGER),
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
