"""Someone who follows a page from top to bottom, and does nothing that it does not say.

A Python block that begins with `# name.py` is that file; a `$` line is a command. Addresses in the
text are replaced by those of the suite's servers. Nothing else is changed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .venv import Venv

BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END_SECONDS: Final = 60
GOES_ON: Final = re.compile(r"celery -A \w+ (worker|beat)")


def blocks(page: str, language: str) -> list[str]:
    """A page's code blocks of one language, in order."""
    return [text for found, text in BLOCK.findall(page) if found == language]


def commands(page: str) -> list[str]:
    """A page's commands, in order."""
    lines = (line for block in blocks(page, "console") for line in block.splitlines())
    return [line[2:] for line in lines if line.startswith("$ ")]


class Reader:
    """Someone with a folder and a virtual environment, who does what a page says."""

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

    def follow(self, lines: Iterable[str]) -> None:
        """Run each command: a worker or beat in the background, any other to its end."""
        for command in lines:
            (self.start if GOES_ON.fullmatch(command) else self.run)(command)

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
