"""What each row of the benches costs, beside the peers: measured by tests/benchmarks, not here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.catalogue import BENCHES, Bench
from benchmarks.command import _keep_to_one_cpu
from benchmarks.lab import Lab, Servers
from benchmarks.measure import Measured
from benchmarks.progress import Progress
from benchmarks.report import read_results

PEERED: Final = (
    "claim_new",
    "claim_duplicate",
    "claim_complete",
    "lock",
    "key",
    "publish",
    "worker_cpu",
    "load_map_10k",
    "plan_peak_1k",
    "plan_peak_10k",
)
"""Rows in which a peer does something that can be measured."""
SECONDS: Final = 12.0
"""For each of them: fewer turns than `make bench` takes."""
TESTS: Final = Path(__file__).parents[1]
_PEER_AS_BASELINE: Final = "cronstable"
_DIGITS: Final = 3


@dataclass(frozen=True)
class Cost:
    """One row. value: None when nobody has measured it; here: whether this run did, else it is of
    the last `make bench` or `make bench-large`."""

    what: str
    baseline: str
    unit: str
    goal: str
    value: float | None
    peers: Mapping[str, float]
    here: bool


class _ShortLab(Lab):
    def turns(self, turns: int, *, seconds: float = SECONDS) -> Any:
        return super().turns(turns, seconds=min(seconds, SECONDS))


class _Silent(Progress):
    """The bar is the comparison's."""

    def __init__(self) -> None:
        super().__init__(len(PEERED))

    def turn(self, done: int, turns: int) -> None:
        """Say nothing."""


def measure(began: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """All rows by name; `began` is told the name of each that is measured.

    In a process of its own: the peers keep the first client they made, and it is to keep to one
    CPU. Raises OSError when it fails.
    """
    command = [sys.executable, "-m", f"{__package__}.costs"]
    told: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS) as process:
        for line in process.stdout or ():
            told = json.loads(line)
            if "began" in told:
                began(told["began"])
    if process.returncode:
        raise OSError(f"the benches failed (exit code {process.returncode})")
    costs: dict[str, dict[str, Any]] = told["costs"]
    return costs


def main() -> None:
    """Measure; a line of JSON for each row that begins, and one for all at the end."""
    _keep_to_one_cpu()
    measured: dict[str, Measured] = {}
    with Servers() as servers:
        for name in PEERED:
            print(json.dumps({"began": name}), flush=True)
            with _ShortLab(servers, _Silent()) as lab:
                measured[name] = BENCHES[name].measure(lab)
    known = read_results()
    costs = {
        name: asdict(_cost(bench, measured.get(name), known.get(name, {}).get("value")))
        for name, bench in BENCHES.items()
    }
    print(json.dumps({"costs": costs}), flush=True)


def _cost(bench: Bench, measured: Measured | None, known: float | None) -> Cost:
    value = known if measured is None else round(measured.value, _DIGITS)
    found = {} if measured is None else measured.peers
    peers = {name: round(one, _DIGITS) for name, one in found.items()}
    if bench.baseline == _PEER_AS_BASELINE:
        peers[_PEER_AS_BASELINE] = 1.0
    return Cost(
        what=(bench.measure.__doc__ or "").partition("\n")[0],
        baseline=bench.baseline,
        unit=bench.unit,
        goal=bench.goal_text,
        value=value,
        peers=peers,
        here=measured is not None,
    )


if __name__ == "__main__":
    main()
