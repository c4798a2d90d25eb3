"""Without any one rule of the protocol the fault machine reports a breach: it is not blind.

The runs are real, four at once; each test waits for its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import breach
from faults.rules import RULES

pytestmark = [pytest.mark.worker, pytest.mark.timeout(900)]
AT_ONCE = 4
RUN = Path(__file__).parent / "faults" / "run.py"
TOLD = {
    "owner_check": breach.STALE,
    "fence": breach.FENCE,
    "heartbeat": breach.REPEATED,
    "cache_tombstone": breach.FORGET,
    "lease": breach.ONE_HOLDER,
    "atomic_claim": breach.ONE_HOLDER,
    "check": breach.ONE_HOLDER,
    "result_kept": breach.NOT_AGAIN,
    "cache_after_commit": breach.CACHE,
    "same_owner": breach.OWN_CLAIM,
    "attempt": breach.WAITING,
    "abandon": breach.NO_CRASH,
    "clock_fence": breach.FENCE,
    "turned_away_waits": breach.NEVER_LOST,
    "fingerprint": breach.MISMATCH,
    "failure_is_no_result": breach.FAILURES,
    "late_holder": breach.SUCCESSOR,
    "one_transaction": breach.ONCE,
}
"""For each rule a sentence that does not hold without it."""
Runs = dict[str, "Future[subprocess.CompletedProcess[str]]"]


def _run(rule: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--seed=1", "--minutes=2", f"--disable={rule}"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=dict(os.environ), check=False
    )


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {rule: pool.submit(_run, rule) for rule in RULES}
        yield started
        for run in started.values():
            run.cancel()


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_there_is_a_breach(runs: Runs, rule: str) -> None:
    ended = runs[rule].result()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert TOLD[rule] in ended.stdout, ended.stdout + ended.stderr
