"""Code bases of plain tasks in a folder, and `idemwatch migrate-tasks` over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import Result
from idemwatch.idempotency.task_files import Source, source_of
from idemwatch.idempotency.task_model import Report
from idemwatch.idempotency.task_tree import analyse

from . import commands
from .venv import ROOT

MODULES = ROOT / "tests" / "data" / "task_modules"
NAMES = sorted(path.name.removesuffix(".py.txt") for path in MODULES.glob("*.py.txt"))
HEAD = "from celery import shared_task\n"


def lay_out(folder: Path, *names: str) -> Path:
    """The modules of tests/data/task_modules as a code base."""
    for name in names or NAMES:
        (folder / f"{name}.py").write_bytes((MODULES / f"{name}.py.txt").read_bytes())
    return folder


def migrate(*arguments: object) -> Result:
    """Run the command in this process."""
    return commands.invoke("migrate-tasks", *map(str, arguments))


def analysed(*arguments: object) -> dict[str, Any]:
    """What --analyze says, as JSON."""
    found: dict[str, Any] = json.loads(migrate("--analyze", "--format", "json", *arguments).stdout)
    return found


def reports(folder: Path, code: str) -> list[Report]:
    """What is said of the tasks of a module with this code."""
    path = folder / "tasks.py"
    path.write_text(code)
    found = analyse([str(path)])
    assert not found.troubles, found.troubles
    return found.reports


def report(folder: Path, code: str) -> Report:
    """What is said of the one task of a module that imports shared_task."""
    (one,) = reports(folder, HEAD + code)
    return one


def migrated(folder: Path, data: bytes) -> bytes:
    """The content of a module after its tasks were migrated; all could be."""
    path = folder / "tasks.py"
    path.write_bytes(data)
    done = migrate(path)
    assert done.exit_code == 0, done.output
    return path.read_bytes()


def source(data: bytes) -> Source:
    """A file that can be read."""
    found = source_of("tasks.py", data)
    assert isinstance(found, Source)
    return found
