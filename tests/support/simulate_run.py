"""`idemwatch simulate` as a user runs it, in a folder that the test looks into."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from .commands import PROGRAM
from .venv import clean_environ

DEADLINE_SECONDS = 120.0


class Simulation:
    """A running command, whose temporary files all go to `temporary`."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self.process, self._temporary = process, temporary

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        out, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, out, err

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def publishes(self) -> bool:
        """Whether its first side has a worker that is ready."""
        assert self.process.poll() is None, self.process.communicate()
        logs = self._temporary.glob("idemwatch-simulate-*/plain-w1.1.log")
        return any(" ready." in log.read_text() for log in logs)

    def leftovers(self) -> list[str]:
        """Files and processes that are still there."""
        mark, processes = str(self._temporary), []
        for process in psutil.process_iter():
            try:
                shown = [*process.cmdline(), process.environ().get("TMPDIR", "")]
            except psutil.Error:
                continue
            if any(mark in part for part in shown):
                processes.append(" ".join(process.cmdline()))
        return [str(path) for path in self._temporary.iterdir()] + processes


@contextmanager
def simulation(
    folder: Path, *arguments: str, program: tuple[str, ...] = (PROGRAM,), **environ: str
) -> Iterator[Simulation]:
    """Start it in `folder`; killed at the end of the block."""
    temporary = folder / "temporary"
    temporary.mkdir(mode=0o755)
    for one in (temporary, *temporary.parents):  # the servers may run as another user
        if one.stat().st_uid == os.getuid() and one != Path("/"):
            one.chmod(one.stat().st_mode | 0o011)
    process = subprocess.Popen(
        [*program, "simulate", *arguments],
        env=clean_environ(TMPDIR=str(temporary), **environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Simulation(process, temporary)
    finally:
        process.kill()
        process.communicate()
