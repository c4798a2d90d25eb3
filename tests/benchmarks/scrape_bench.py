"""A worker's scrape after 500 recycled children, against one after none: CPU time of the text.

It forks, so it runs in an interpreter of its own: `python -m benchmarks.scrape_bench FOLDER`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from idemwatch.idempotency import metrics, slots
from prometheus_client import generate_latest

from .lab import Lab
from .measure import Measured, against

SLOTS: Final = 8
RECYCLED: Final = 500
TASKS: Final = 20
TURNS: Final = 60
_EXECUTIONS: Final = 'idemwatch_claims_total{outcome="granted",scope="global",task="bench.task0"} '


def scrape_recycled(lab: Lab) -> Measured:
    """Eight slots, twenty tasks."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(lab.folder)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        start_new_session=True,  # a Ctrl-C at the terminal reaches only us, and we end it
    )
    value, baseline = json.loads(done.stdout)
    return Measured(value, {}, baseline)


def _one_child(folder: Path, slot: int) -> None:
    """A child that takes its place, counts one execution of each task, and ends."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert status == 0, "the child has counted"
        return
    try:
        slots.bind(folder, str(slot))
        for number in range(TASKS):
            metrics.claims(f"bench.task{number}", "global", "granted").inc()
            metrics.task_seconds(f"bench.task{number}").observe(0.2)
            metrics.completions(f"bench.task{number}", "stored").inc()
        os._exit(0)
    finally:
        os._exit(1)


def _measure(folder: Path) -> Measured:
    for number in range(TASKS):
        metrics.announce(f"bench.task{number}", "global")
    fresh, recycled = folder / "fresh", folder / "recycled"
    for place, children in ((fresh, SLOTS), (recycled, SLOTS + RECYCLED)):
        place.mkdir()
        for child in range(children):
            _one_child(place, child % SLOTS)
    assert _EXECUTIONS + f"{SLOTS}.0\n" in _scrape(fresh)
    assert _EXECUTIONS + f"{SLOTS + RECYCLED}.0\n" in _scrape(recycled)
    return against(
        lambda: _scrape(recycled),
        lambda: _scrape(fresh),
        calls=1,
        turns=range(TURNS),
        clock=time.process_time,
    )


def _scrape(place: Path) -> str:
    slots.merge_from(place)
    return generate_latest(slots.REGISTRY).decode()


if __name__ == "__main__":
    measured = _measure(Path(sys.argv[1]))
    print(json.dumps([measured.value, measured.baseline]))
