"""The GitHub workflow: valid, with no more rights than it needs, and its exit code is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.venv import ROOT, clean_environ

WORKFLOW = ROOT / ".github" / "workflows" / "schedule-health.yml"
BIN = Path(sys.executable).parent
BROKEN = "name,schedule\nnightly,61 0 * * *\n"
CROWDED = "name,schedule\n" + "".join(f"job {number},0 0 * * *\n" for number in range(12))


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["validate"]["steps"]
    return found


def step(name: str) -> dict[str, Any]:
    (found,) = [one for one in steps() if one.get("name") == name]
    return found


def shell(folder: Path, script: str, source: str) -> int:
    """Run a step as GitHub does: bash -e, in a shell of its own."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=clean_environ(PATH=path, SCHEDULE_SOURCE=source),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode


def test_workflow_is_valid() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, str(WORKFLOW)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "exit_code"), [(BROKEN, 2), (CROWDED, 0), ("name,schedule\n", 0), ("no header", 3)]
)
def test_errors_fail_the_job_and_later_steps_do_not(
    tmp_path: Path, content: str, exit_code: int
) -> None:
    (tmp_path / "fleet.csv").write_text(content)
    assert shell(tmp_path, step("Validate schedules")["run"], "fleet.csv") == exit_code
    assert shell(tmp_path, step("Tell people")["run"], "fleet.csv") == 0
    assert (tmp_path / "schedules.sarif").exists() == (exit_code != 3)


def test_what_follows_the_check_runs_always_and_decides_nothing() -> None:
    names = [one.get("name") for one in steps()]
    after = steps()[names.index("Validate schedules") + 1 :]
    assert len(after) == 3 and all(one["if"].startswith("always()") for one in after)
    assert not any("$?" in one.get("run", "") or "continue-on-error" in one for one in steps())


def test_actions_are_pinned_and_rights_are_the_least() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    uses = [one["uses"] for one in steps() if "uses" in one]
    assert all(action.rpartition("@v")[2].isdecimal() for action in uses)
    assert workflow["permissions"] == {"contents": "read"}
    rights = workflow["jobs"]["validate"]["permissions"]
    assert rights == {"contents": "read", "security-events": "write"}
    assert steps()[0]["with"] == {"persist-credentials": False}
    assert {"push", "schedule"} <= workflow[True].keys()  # YAML 1.1 reads `on` as true


def test_schedules_that_are_checked_here_pass() -> None:
    script = 'idemwatch validate-schedules --source "$SCHEDULE_SOURCE" --at 2026-11-24'
    assert shell(ROOT, script, "tests/data/govuk_k8s.csv") == 0
