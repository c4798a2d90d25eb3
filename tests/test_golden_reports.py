"""The reports of eight real inventories, word for word, and their loads against a simulation.

After a change that is meant: `.venv/bin/python tests/test_golden_reports.py` writes them anew, and
`git diff tests/data/reports` shows what an operator will see differently.
"""

from __future__ import annotations

import json
import os
from contextlib import chdir
from datetime import UTC, datetime
from typing import Any

import jsonschema
import numpy as np
import pytest
from idemwatch.alerts.thresholds import CAPACITY
from idemwatch.scheduler.csv_source import read_csv
from idemwatch.scheduler.json_report import schema
from support import commands
from support.simulation import simulated
from support.venv import ROOT

DATA = ROOT / "tests" / "data"
REPORTS = DATA / "reports"
NAMES = sorted(path.stem for path in DATA.glob("*.csv"))
START = datetime(2026, 11, 24, tzinfo=UTC)
FORMS = {"txt": ("--verbose",), "json": ("--format", "json")}


def reported(name: str, form: str) -> str:
    """What the command prints; it looks at the file as an operator in the checkout does."""
    source = ("--source", f"tests/data/{name}.csv", "--at", "2026-11-24T00:00")
    with chdir(ROOT):
        done = commands.invoke("validate-schedules", *source, *FORMS[form])
    assert done.exit_code in (0, 1, 2), done.output
    return done.stdout


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPORTS / f"{name}.json").read_text())
    return found


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [one for one in os.environ if one.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_report_is_the_one_that_was_agreed_on(name: str, form: str) -> None:
    assert reported(name, form) == (REPORTS / f"{name}.{form}").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_half_hours_are_those_of_a_simulation_of_every_run(name: str) -> None:
    fleet = read_csv(name, (DATA / f"{name}.csv").read_text()).schedules
    runs = simulated([one for one in fleet if one.active], START)
    by_day = runs.reshape(7, 48, 30).max(axis=(0, 2)) / CAPACITY
    load = golden(name)["load"]
    assert [one["load"] for one in load["half_hours"]] == np.round(by_day, 6).tolist()
    assert load["highest_concurrency"] == runs.max()
    assert load["mean"] == round(float(runs.mean()) / CAPACITY, 6)


@pytest.mark.parametrize("name", NAMES)
def test_json_is_as_its_schema_says(name: str) -> None:
    validator = jsonschema.Draft202012Validator(
        schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(golden(name))


def test_lines_fit_into_100_columns() -> None:
    for path in REPORTS.glob("*.txt"):
        assert max(map(len, path.read_text().splitlines())) <= 100, path.name


def test_broken_rows_are_named_with_their_lines() -> None:
    text = (REPORTS / "fedora_cron_d.txt").read_text()
    assert "Found 6 rows that cannot be read" in text
    for line in (65, 67, 69, 71, 73, 75):
        assert f"planet-group.cron:2, line {line}:" in text


def test_hotspots_are_named_with_their_tasks_and_load() -> None:
    assert "• 00:00 - 123 tasks (743% load)" in (REPORTS / "gitlab.txt").read_text()


if __name__ == "__main__":
    for name in NAMES:
        for form in FORMS:
            (REPORTS / f"{name}.{form}").write_text(reported(name, form))
