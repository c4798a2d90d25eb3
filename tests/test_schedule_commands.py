"""`idemwatch schedules` as operators run it: what it shows of files and of the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from idemwatch.scheduler.coordinator import ScheduleCoordinator
from idemwatch.scheduler.csv_source import read_csv
from support import commands
from support.inventories import INVENTORIES, at_midnight, csv_file, mixed
from support.venv import clean_environ

NOW = "2026-11-24T00:00"
VIEWS = (("list",), ("load",), ("recommend", "report", "600"), ("optimize",))


def run(command: str, *arguments: str, stdin: str | None = None) -> Result:
    """`idemwatch schedules COMMAND`; it must not fail by a traceback."""
    done = commands.invoke("schedules", command, *arguments, stdin=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def look(command: str, source: str, *arguments: str) -> Result:
    """A command that looks at a file, at a time of its own; it must succeed."""
    done = run(command, *arguments, "--source", source, "--at", NOW)
    assert (done.exit_code, done.stderr) == (0, "")
    return done


def as_json(command: str, source: str, *arguments: str) -> Any:
    return json.loads(look(command, source, *arguments, "--format", "json").stdout)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def three(tmp_path: Path) -> str:
    rows = (
        "weekly,30 4 * * 1,vixie,America/New_York,app.reports,5400",
        "often,*/5 * * * *,celery,UTC,app.poll,45",
        "at noon,0 12 * * *,celery,UTC,app.reports.daily,90",
    )
    return csv_file(tmp_path, rows)


# -- list ------------------------------------------------------------------------------------------


def test_list_has_what_runs_next_first_in_the_chosen_zone(three: str) -> None:
    titles, *lines = look("list", three, "--timezone", "Asia/Kathmandu").stdout.splitlines()
    assert titles.split("  ")[0] == "NAME" and "NEXT RUN (Asia/Kathmandu)" in titles
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells == [
        ["often", "app.poll", "*/5 * * * *", "UTC", "PENDING", "2026-11-24 05:50", "45s"],
        ["at noon", "app.reports.daily", "0 12 * * *", "UTC", "PENDING", "2026-11-24 17:45",
         "1m30s"],
        ["weekly", "weekly", "30 4 * * 1", "America/New_York", "PENDING", "2026-11-30 15:15",
         "1h30m"],
    ]  # fmt: skip


def test_list_as_json_has_the_same(three: str) -> None:
    first, second, third = as_json("list", three)
    assert second == {
        "id": "at noon", "name": "at noon", "task": "app.reports.daily",
        "expression": "0 12 * * *", "dialect": "celery", "timezone": "UTC", "status": "PENDING",
        "next_run": "2026-11-24T12:00:00+00:00", "duration_seconds": 90.0, "place": f"{three}:4",
    }  # fmt: skip
    assert first["next_run"] == "2026-11-24T00:05:00+00:00"
    assert third["next_run"] == "2026-11-30T09:30:00+00:00"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--limit", "1"), ["often"]),
        (("--task", "app.poll"), ["often"]),
        (("--task", "app.*"), ["often", "at noon"]),
        (("--task", "other"), []),
        (("--status", "ACTIVE"), ["often", "at noon", "weekly"]),
        (("--status", "paused"), []),
    ],
)
def test_list_shows_what_is_asked_for(
    three: str, options: tuple[str, ...], names: list[str]
) -> None:
    done = run("list", "--source", three, "--at", NOW, "--format", "json", *options)
    assert done.exit_code == 0
    assert [one["name"] for one in json.loads(done.stdout)] == names


def test_what_is_paused_never_runs_and_is_found_by_its_status() -> None:
    (inventory,) = (path for path in INVENTORIES if path.stem == "govuk_k8s")
    paused = as_json("list", str(inventory), "--status", "paused")
    assert paused and {one["next_run"] for one in paused} == {None}
    assert "never" in look("list", str(inventory), "--status", "paused").stdout
    everything = as_json("list", str(inventory))
    assert everything[-len(paused) :] == paused, "what never runs comes last"


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    source = csv_file(tmp_path, ["bad,61 * * * *,vixie,,,", "good,0 3 * * *,vixie,,,"])
    for command in VIEWS:
        done = run(*command, "--source", source, "--at", NOW)
        assert done.exit_code == 1 and done.stdout
        assert done.stderr.startswith(f"{source}:2: bad: '61 * * * *': minute:")
    assert "good" in run("list", "--source", source).stdout


def test_many_problems_are_told_in_short(tmp_path: Path) -> None:
    source = csv_file(tmp_path, ["bad,61 * * * *,vixie,,,"] * 102)
    assert run("list", "--source", source).stderr.splitlines()[-1] == "... and 2 more"


def test_a_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    source = csv_file(tmp_path, ["red\x1b[31m\u2028name,0 3 * * *,vixie,,,"])
    assert "red\\x1b[31m\\u2028name" in look("list", source).stdout
    bad = csv_file(tmp_path, ["red\x1b[31m,61 * * * *,vixie,,,"], "bad.csv")
    assert "\x1b" not in run("list", "--source", bad).stderr


# -- load ------------------------------------------------------------------------------------------


def test_load_draws_48_half_hours_and_what_they_come_to(tmp_path: Path) -> None:
    source = csv_file(tmp_path, [*at_midnight(12), "noon,0 12 * * *,celery,UTC,app.noon,60"])
    lines = look("load", source).stdout.splitlines()
    bars = [line for line in lines if line[2:3] == ":"]
    assert [bars[0][:5], bars[-1][:5], len(bars)] == ["00:00", "23:30", 48]
    assert bars[0].split()[-2:] == ["86%", "12"] and bars[1].split()[-1] == "0%"
    assert bars[24].split()[-2:] == ["7%", "1"]
    told = dict(line.split("  ", 1) for line in lines[50:] if line[:1] != " ")
    assert told["highest load"] == "86% at 00:00, 12 at once"
    assert told["capacity"].strip() == "14 at once (assumed: --capacity says better)"
    assert told["health"].strip() == "98 of 100, grade A"


def test_load_as_json_has_the_same(tmp_path: Path) -> None:
    found = as_json("load", csv_file(tmp_path, at_midnight(12)), "--capacity", "24")
    assert found["capacity"] == {"slots": 24.0, "source": "option"}
    assert (found["highest_load"], found["score"], found["grade"]) == (0.5, 100, "A")
    assert found["half_hours"][0] == {"time": "00:00", "load": 0.5, "starts": 12}
    assert found["half_hours"][47] == {"time": "23:30", "load": 0.0, "starts": 0}
    assert found["mean_load"] == pytest.approx(0.5 / 1440)


def test_half_hours_are_those_of_the_chosen_zone(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(1))
    found = as_json("load", source, "--timezone", "Asia/Kathmandu")["half_hours"]
    assert [one["time"] for one in found if one["starts"]] == ["05:30"]


# -- recommend -------------------------------------------------------------------------------------


def test_recommend_tells_the_best_time_and_two_others_with_reasons(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(12))
    table = look("recommend", source, "report", "600").stdout.splitlines()
    assert [line.split("  ")[0] for line in table[1:]] == ["best", "or", "or"]
    assert all("suitable for a report of 10 minutes" in line for line in table[1:])
    found = as_json("recommend", source, "report", "600")
    assert found["cron_expression"] in table[1] and len(found["alternatives"]) == 2


def test_recommend_keeps_to_the_constraints(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(3))
    options = ("--not-before", "20:00", "--not-after", "20:00", "--day", "Mon", "--day", "fri")
    found = as_json("recommend", source, "critical", "60", "--priority", "high", *options)
    assert (found["cron_expression"], found["alternatives"]) == ("0 20 * * 1,5", [])
    office = as_json("recommend", source, "report", "60", "--business-hours-only")
    assert 9 <= int(office["cron_expression"].split()[1]) <= 17


def test_recommend_avoids_a_change_of_the_clock_unless_told(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(1))
    night = ("--timezone", "America/New_York", "--not-before", "02:00", "--not-after", "02:30")
    done = run("recommend", "report", "60", "--source", source, "--at", NOW, *night)
    assert done.exit_code == 1 and "no time of the day meets all of them" in done.stderr
    assert as_json("recommend", source, "report", "60", "--no-avoid-dst", *night)


# -- optimize --------------------------------------------------------------------------------------


def test_optimize_shows_the_day_before_and_after_and_the_moves(tmp_path: Path) -> None:
    lines = look("optimize", csv_file(tmp_path, at_midnight(24))).stdout.splitlines()
    midnight = next(line for line in lines if line.startswith("00:00"))
    assert [part for part in midnight.split() if part.endswith("%")] == ["171%", "64%"]
    highest = next(line for line in lines if line.startswith("highest load"))
    assert highest.split()[2:] == ["171%", "64%", "7%"]
    moves = lines[next(n for n, line in enumerate(lines) if line.startswith("SCHEDULE")) + 1 :]
    assert len(moves) == 15
    assert all("critical  171% → " in line and "hotspot 00:00" in line for line in moves)


def test_a_long_list_of_moves_is_cut_unless_all_are_asked_for(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(60))
    short = look("optimize", source).stdout.splitlines()
    assert short[-1] == "... and 31 more (--all shows all)"
    assert len(look("optimize", source, "--all").stdout.splitlines()) == len(short) + 30


def test_optimize_as_json_is_the_answer_of_the_coordinator(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(24))
    schedules = read_csv(source, Path(source).read_text()).schedules
    coordinator = ScheduleCoordinator(now=lambda: datetime.fromisoformat(NOW).replace(tzinfo=UTC))
    answer = coordinator.optimize_schedule_distribution(schedules, "spread")
    assert as_json("optimize", source, "--strategy", "spread") == json.loads(json.dumps(answer))


def test_the_plan_can_be_saved(tmp_path: Path) -> None:
    source, saved = csv_file(tmp_path, at_midnight(24)), tmp_path / "plan.json"
    options = ("--source", source, "--at", NOW, "--output", str(saved))
    done = run("optimize", *options)
    assert (done.exit_code, done.stderr) == (0, f"the plan is in {saved}\n")
    assert "15 moves of the strategy balanced" in done.stdout
    assert json.loads(saved.read_text()) == as_json("optimize", source)
    nowhere = run("optimize", *options[:-1], str(tmp_path / "no" / "plan.json"))
    assert nowhere.exit_code == 1 and "No such file or directory" in nowhere.stderr


def test_optimize_says_why_nothing_is_moved(tmp_path: Path) -> None:
    quiet = csv_file(tmp_path, at_midnight(9))
    assert "nothing to move: no minute is over 70%" in look("optimize", quiet).stdout
    pinned = csv_file(tmp_path, ["a,* * * * *,celery,UTC,t,60"] * 14, "pinned.csv")
    assert "what may be moved is where the plan has it" in look("optimize", pinned).stdout


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("command", VIEWS, ids=lambda command: command[0])
def test_every_inventory_is_shown(inventory: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "--source", str(inventory), "--at", NOW)
    assert done.stdout and done.exit_code == bool(done.stderr)
    told = run(*command, "--source", str(inventory), "--at", NOW, "--format", "json")
    assert json.loads(told.stdout) and told.exit_code == done.exit_code


@pytest.mark.parametrize("rows", [[], at_midnight(1)], ids=["none", "one"])
@pytest.mark.parametrize("command", VIEWS, ids=lambda command: command[0])
def test_no_schedule_and_one_are_fleets_too(
    tmp_path: Path, rows: list[str], command: tuple[str, ...]
) -> None:
    options = (*command, "--source", csv_file(tmp_path, rows), "--at", NOW)
    table, told = run(*options), run(*options, "--format", "json")
    assert (table.exit_code, told.exit_code) == (0, 0)
    assert table.stdout or table.stderr == "no schedules\n"
    assert json.loads(told.stdout) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        ("list", "--status", "sleeping"),
        ("list", "--limit", "0"),
        ("list", "--format", "xml"),
        ("load", "--capacity", "0"),
        ("load", "more"),
        ("recommend",),
        ("recommend", "report"),
        ("recommend", "cleaning", "60"),
        ("recommend", "report", "0"),
        ("recommend", "report", "60", "--not-before", "25:00"),
        ("recommend", "report", "60", "--day", "noday"),
        ("recommend", "report", "60", "--priority", "urgent"),
        ("optimize", "--strategy", "random"),
        ("apply", "--strategy", "random"),
        ("revert",),
        ("revert", "one"),
        ("revert", "0"),
        ("import",),
        ("import", "--source", "table"),
        ("shuffle",),
    ],
)
def test_wrong_usage_ends_with_2(wrong: tuple[str, ...], three: str) -> None:
    assert run(*wrong).exit_code == 2


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (("--source", "nowhere.csv"), "no file 'nowhere.csv'"),
        ((), "--source: is not given"),
        (("--at", "noon"), "'noon' is no time"),
        (("--timezone", "Mars/Olympus"), "no such IANA zone"),
        (("--source", "table"), "idempotency_database_url: is not set"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line(wrong: tuple[str, ...], problem: str) -> None:
    for command in VIEWS:
        done = run(*command, *wrong)
        assert (done.exit_code, done.stdout) == (1, "")
        assert problem in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("validate-schedules",), ("schedules",), *(
    ("schedules", one) for one in
    ("list", "load", "recommend", "optimize", "apply", "revert", "import")
)], ids=" ".join)  # fmt: skip
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    done = commands.invoke(*command, "--help")
    assert done.exit_code == 0 and max(map(len, done.stdout.splitlines())) <= 80


def test_every_command_explains_itself_with_examples() -> None:
    assert "idemwatch schedules revert 7" in commands.invoke("schedules", "--help").stdout
    for command in ("list", "load", "recommend", "optimize", "apply", "revert", "import"):
        assert f"idemwatch schedules {command}" in run(command, "--help").stdout


def test_a_hundred_thousand_schedules_are_shown_in_seconds(tmp_path: Path) -> None:
    source = csv_file(tmp_path, mixed(100_000))
    for command in ("list", "load"):
        begun = time.monotonic()
        shown = look(command, source, "--capacity", "20000").stdout
        assert shown.count("\n") > 48
        assert time.monotonic() - begun < 60


def test_without_numpy_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['numpy'] = None; sys.argv = ['idemwatch', 'schedules', 'list']; "
        "from idemwatch.exporter.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_environ(), capture_output=True, text=True,
        timeout=commands.DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert 'schedules needs numpy: pip install "idemwatch[schedules]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_names_the_group() -> None:
    assert "Look at schedules" in commands.invoke("--help").stdout
