"""The command behind `make faults`: its words, its exit codes, and that it leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.crew import alive
from faults.rules import RULES
from faults.scenes import SCENES
from idemwatch.demo.processes import descendants
from support.stores import wait_until

RUN = Path(__file__).parent / "faults" / "run.py"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_help_teaches() -> None:
    told = run("--help")
    assert told.returncode == 0
    assert all(name in told.stdout for name in (*RULES, *SCENES))
    assert "Exit codes: 0 no breach, 1 a breach" in told.stdout
    assert "make faults SEED=3 ROUND=4" in told.stdout


@pytest.mark.parametrize(
    "wrong",
    [("--seed=x",), ("--minutes=0",), ("--disable=heartbeet",), ("--only=-1",), ("--scene=none",)],
)
def test_wrong_arguments_are_refused(wrong: tuple[str, ...]) -> None:
    told = run(*wrong)
    assert told.returncode == 2
    assert wrong[0].partition("=")[0] in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.worker
def test_a_round_without_a_breach_ends_with_0_and_says_what_it_saw() -> None:
    told = run("--seed=1", "--only=0", "--scene=late_cache")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "no breach: seed 1, 1 rounds" in told.stdout
    assert "duplicate" in told.stdout.splitlines()[-1]


@pytest.mark.worker
def test_ctrl_c_ends_with_130_and_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "--seed=1", "--scene=frozen"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    assert "round 0: frozen" in process.stderr.readline()
    wait_until(lambda: len(descendants(process.pid)) > 20)
    started = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "interrupted" in process.stderr.read()
    process.stderr.close()
    wait_until(lambda: not any(alive(pid) for pid in started))
    assert [path.name for path in tmp_path.iterdir()] == []
