"""`idemwatch boards build`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from idemwatch.alerts.names import BOARDS
from support import commands
from support.venv import ROOT

COMMITTED = ROOT / "dashboards" / "json"


def built(folder: Path, *options: str) -> dict[str, Any]:
    done = commands.invoke("boards", "build", str(folder), *options)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(folder / f"{uid}.json") for uid in BOARDS]
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


def test_what_is_committed_equals_a_rebuild(tmp_path: Path) -> None:
    built(tmp_path / "new")
    assert {path.name for path in COMMITTED.iterdir()} == {f"{uid}.json" for uid in BOARDS}
    for uid in BOARDS:
        new = (tmp_path / "new" / f"{uid}.json").read_text()
        assert new == (COMMITTED / f"{uid}.json").read_text(), "run make boards"


def test_thresholds_and_jobs_are_arguments(tmp_path: Path) -> None:
    changed = built(
        tmp_path, "--threshold", "hit_rate=0.125", "--threshold", "hotspots=7",
        "--job", "state.exporter", "--worker-job", "workers", "--runbook-url", "https://wiki/x/",
    )  # fmt: skip
    overview = json.dumps(changed["idemwatch-overview"])
    assert '"value": 0.12500000000000003}' in overview  # the first number over it
    assert '"value": 8}' in overview
    assert "over 12.5%" in overview and "https://wiki/x/${__data.fields.Alert}.md" in overview
    for board in changed.values():
        assert not re.search(r"idemwatch-worker\b", json.dumps(board))
    variables = {one["name"]: one for one in changed["idemwatch-overview"]["templating"]["list"]}
    assert variables["job"]["definition"] == (
        'label_values(up{job=~"state\\\\.exporter|workers"}, job)'
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--threshold", "hit_rate=2"), ("--threshold", "hit_rate"), ("--threshold", "nothing=1"),
        ("--job", 'a"b'), ("--worker-job", ""), ("--job", "$job"),
        ("--runbook-url", "javascript:alert(1)"), ("--runbook-url", "https://me:hunter2@wiki"),
    ],
)  # fmt: skip
def test_what_would_spoil_a_board_is_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = commands.invoke("boards", "build", str(tmp_path / "new"), *options)
    assert done.exit_code == 2
    assert "hunter2" not in done.output
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = commands.invoke("boards", "build", str(tmp_path / "file" / "json"))
    assert done.exit_code == 1
    assert f"cannot write {tmp_path / 'file' / 'json'}: Not a directory" in done.stderr


def test_a_board_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "idemwatch-overview.json").mkdir()
    done = commands.invoke("boards", "build", str(tmp_path))
    assert done.exit_code == 1
    assert "idemwatch-overview.json: it is a folder" in done.stderr


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert commands.invoke("boards", "build", str(tmp_path / "file")).exit_code == 2
