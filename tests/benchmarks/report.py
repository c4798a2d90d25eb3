"""What a run leaves: a verdict on each bench, the table, results.json."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Container, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .catalogue import BENCHES, Bench
from .measure import OURS, Measured
from .peers import PEERS

RESULTS: Final = Path(__file__).with_name("results.json")
_BY_FAR: Final = 0.9
_DIGITS: Final = 3
_PIPE_WIDTH: Final = 180


class Verdict(StrEnum):
    """How a value stands to its goal."""

    OK = "ok"
    WAIVED = "waived"
    MISSED = "MISSED"
    NEEDLESS = "NEEDLESS WAIVER"


FAILURES: Final = (Verdict.MISSED, Verdict.NEEDLESS)
_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.WAIVED: "yellow",
    Verdict.MISSED: "bold red",
    Verdict.NEEDLESS: "bold red",
}


def verdict(name: str, measured: Measured, waived: Container[str]) -> Verdict:
    """A missed goal needs a waiver, one that is met by far must not have any.

    Judged as results.json has it. From one machine to the next a figure varies by a tenth.
    """
    value, bench = round(measured.value, _DIGITS), BENCHES[name]
    if name in waived:
        return Verdict.NEEDLESS if bench.met(value, by=_BY_FAR) else Verdict.WAIVED
    return Verdict.OK if bench.met(value) else Verdict.MISSED


def read_results(path: Path = RESULTS) -> dict[str, Any]:
    """The figures of earlier runs. Raises ValueError for a file that is no JSON."""
    known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return known


def write_results(measured: Mapping[str, Measured], path: Path = RESULTS) -> None:
    """Put the figures into results.json; those that were not measured now stay as they are."""
    known = read_results(path)
    for name, one in measured.items():
        bench = BENCHES[name]
        value = round(one.value, _DIGITS)
        known[name] = {"value": value, "goal": bench.goal, "unit": bench.unit}
    ordered = [*(name for name in BENCHES if name in known), *(known.keys() - BENCHES.keys())]
    text = json.dumps({name: known[name] for name in ordered}, indent=2, ensure_ascii=False)
    _replace(path, text + "\n")


def _replace(path: Path, text: str) -> None:
    """All of it or nothing."""
    descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def show_table(measured: Mapping[str, Measured], verdicts: Mapping[str, Verdict]) -> None:
    """Print the figures, with the peers side by side."""
    table = Table(box=SIMPLE, caption="Ratios to the baseline in the last column, but for a time.")
    table.add_column("bench", no_wrap=True)
    for heading in ("goal", OURS, *PEERS):
        table.add_column(heading, justify="right")
    table.add_column("")
    table.add_column("baseline", min_width=20)
    for name, one in measured.items():
        table.add_row(*_cells(BENCHES[name], one, verdicts[name]))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _cells(bench: Bench, measured: Measured, judged: Verdict) -> list[str | Text]:
    peers = measured.peers
    return [
        bench.name,
        bench.goal_text,
        bench.text(measured.value),
        *(bench.text(peers[peer]) if peer in peers else "-" for peer in PEERS),
        Text(judged, style=_STYLES[judged]),
        ", ".join(part for part in (bench.baseline, measured.baseline) if part),
    ]
