"""The demo as a user runs it: `python -m idemwatch.demo` in a folder that the test looks into."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

DEADLINE_SECONDS = 120
SUMMARY = "out.json"


class Demo:
    """A running demo, whose files all go to `temporary`."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self.process, self._temporary = process, temporary

    def wait_for_line(self, part: str) -> str:
        """The first line of output that contains `part`; the rest stays to be read."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if part in line:
                return line
        raise AssertionError(f"the demo ended without saying {part!r}")

    def address(self, name: str) -> str:
        """The URL that it tells for one of what it started; to be asked in the order of telling."""
        return self.wait_for_line(f"{name}: http").split(": ", 1)[1].strip()

    def end(self, seconds: float = DEADLINE_SECONDS) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def leftovers(self) -> list[str]:
        """Files and processes that are still there."""
        mark = str(self._temporary)
        processes = []
        for process in psutil.process_iter():
            try:
                shown = [*process.cmdline(), process.environ().get("TMPDIR", "")]
            except psutil.Error:
                continue
            if any(mark in part for part in shown):
                processes.append(" ".join(process.cmdline()))
        return [str(path) for path in self._temporary.iterdir()] + processes


def start_demo(folder: Path, *arguments: str, **environment: str) -> Demo:
    """Start it in `folder`, with some arguments and environment. End it, or kill its process."""
    temporary = folder / "temporary"
    temporary.mkdir(mode=0o755, exist_ok=True)
    for one in (temporary, *temporary.parents):  # the servers may run as another user
        if one.stat().st_uid == os.getuid() and one != Path("/"):
            one.chmod(one.stat().st_mode | 0o011)
    process = subprocess.Popen(
        [sys.executable, "-m", "idemwatch.demo", "--metrics-port", "0", *arguments],
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Demo(process, temporary)


@contextmanager
def ended(demo: Demo) -> Iterator[Demo]:
    """The demo, which is killed if the block leaves it running."""
    try:
        yield demo
    finally:
        demo.process.kill()
        demo.process.communicate()


@contextmanager
def within(demo: Demo, seconds: float = DEADLINE_SECONDS) -> Iterator[None]:
    """Kill the demo if the block takes too long, so that reading its output ends."""
    timer = threading.Timer(seconds, demo.process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Played:
    """A scenario that was played to its end."""

    def __init__(self, code: int, out: str, err: str, summary: dict[str, Any], took: float) -> None:
        self.code, self.out, self.err, self.summary, self.took = code, out, err, summary, took

    def delivered(self, alertname: str, status: str) -> list[dict[str, Any]]:
        """What the webhook was told of an alert."""
        told: list[dict[str, Any]] = self.summary["notifications"]
        return [one for one in told if (one["alertname"], one["status"]) == (alertname, status)]

    @property
    def paged(self) -> set[str]:
        """The alerts that woke somebody."""
        return {page["alertname"] for page in self.summary["pages"]}


def play(folder: Path, scenario: str, seconds: float, patience: float = 200) -> Played:
    """Play a scenario; `patience`: how long it may take, start and end included."""
    arguments = ("--scenario", scenario, "--seconds", f"{seconds:g}", "--json", SUMMARY)
    began = time.monotonic()
    with ended(start_demo(folder, *arguments)) as demo:
        code, out, err = demo.end(patience)
        assert demo.leftovers() == []
    written = folder / SUMMARY
    assert written.exists(), (code, out, err)
    return Played(code, out, err, json.loads(written.read_text()), time.monotonic() - began)
