"""The command `idemwatch` as operators run it: to its end, in the background, or in here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result
from idemwatch.exporter.cli import cli

from .venv import clean_environ

PROGRAM = str(Path(sys.executable).with_name("idemwatch"))
DEADLINE_SECONDS = 60.0


def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without a terminal; only `environ` of what is named IDEMWATCH_*."""
    return subprocess.run(
        [PROGRAM, *arguments],
        input=stdin,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def output(*arguments: str, **environ: str) -> str:
    """What a command that must succeed prints."""
    done = run(*arguments, **environ)
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def invoke(*arguments: str, stdin: str | None = None) -> Result:
    """Run it in this process: quicker, where no exit code of an interruption is looked at."""
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="idemwatch")


class Running:
    """A command that runs in the background; killed at the end of the `with`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environ(),
            text=True,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, output, errors."""
        out, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, out, err
