"""Virtual environments that hold this project, built from a copy, and nothing that is not named.

Commands run there with an environment of their own and out of reach of the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = {"tests", "build", "dist"}
_OURS = ("IDEMWATCH_", "PYTHON", "PYTEST_", "VIRTUAL_ENV", "CELERY_")


def shipped_folders() -> list[Path]:
    """The folders at the top of the repository that hold code for users."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    return [
        path for path in folders if path.name not in NOT_SHIPPED and next(path.rglob("*.py"), None)
    ]


def copy_source(to: Path) -> Path:
    """What a distribution is built from, in `to`: building leaves its residue there."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    for folder in shipped_folders():
        shutil.copytree(folder, to / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def clean_environ(**more: str) -> dict[str, str]:
    """The environment without what would reach into the one under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | more


def python(*arguments: str) -> None:
    """Run this very Python, and fail with what it printed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"


@dataclass(frozen=True)
class Venv:
    """A virtual environment without pip."""

    path: Path

    @classmethod
    def make(cls, path: Path, *requirements: str) -> Venv:
        """A new one in `path` that holds `requirements`."""
        python("-m", "venv", "--without-pip", str(path))
        program = str(path / "bin" / "python")
        python("-m", "pip", "--python", program, "install", "-qq", *requirements)
        return cls(path)

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a shell in which this one is active."""
        search = f"{self.path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return clean_environ(PATH=search, **more)

    def run(
        self, *command: str, folder: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment, in `folder` or in its own."""
        program, *arguments = command
        return subprocess.run(
            [str(self.path / "bin" / program), *arguments],
            cwd=folder or self.path,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            check=False,
        )

    def output(self, *command: str, folder: Path | None = None, **environ: str) -> str:
        """What a program that must succeed prints."""
        done = self.run(*command, folder=folder, **environ)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout
