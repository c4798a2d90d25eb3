"""The Dockerfile as instructions, and its build stage carried out without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .venv import ROOT, Venv, clean_environ

FILE: Final = ROOT / "Dockerfile"
IGNORED: Final = shutil.ignore_patterns("__pycache__")


class Instruction(NamedTuple):
    """One instruction. `stage`: how many FROM came before it, itself counted."""

    stage: int
    word: str
    text: str


def instructions() -> list[Instruction]:
    """All of them, continued lines joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    found, stage = [], 0
    for line in filter(None, joined.splitlines()):
        word, _, text = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage, word, text.strip()))
    return found


def texts(word: str, stage: int | None = None) -> list[str]:
    """What follows each `word`."""
    return [one.text for one in instructions() if one.word == word and stage in (None, one.stage)]


def variables(stage: int) -> dict[str, str]:
    """What the ENV lines of a stage set."""
    pairs = (pair.partition("=") for text in texts("ENV", stage) for pair in text.split())
    return {name: value for name, _, value in pairs}


def copied() -> Iterator[tuple[list[str], str]]:
    """Sources in the repository, and target, of each COPY."""
    for text in texts("COPY"):
        *sources, target = text.split()
        if not sources[0].startswith("--from="):
            yield sources, target


def build(folder: Path) -> Venv:
    """Carry out the first stage, with its absolute paths below `folder`."""
    places = {
        path: str(folder / path.lstrip("/")) for path in ("/source", "/wheel", "/opt/idemwatch")
    }
    source = Path(places["/source"])
    for names, target in copied():
        for name in names:
            _copy(ROOT / name, source / target)
    environment = {name: _placed(value, places) for name, value in variables(1).items()}
    (folder / "opt").mkdir()
    for command in texts("RUN", 1):
        _run(_placed(command, places), source, environment)
    return Venv(Path(places["/opt/idemwatch"]))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=IGNORED)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _placed(text: str, places: dict[str, str]) -> str:
    for path, place in places.items():
        text = re.sub(rf"(?<![\w/]){re.escape(path)}(?![\w])", place, text)
    return text


def _run(command: str, folder: Path, environment: dict[str, str]) -> None:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=clean_environ(**environment, PATH=search),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
