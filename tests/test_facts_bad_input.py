"""What is wrong in files that others wrote, told by the commands with its place, and the rest read.

CSV has its own tests in test_validate_command.py; here are crontabs, manifests, and options.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from support import commands

AT = ("--at", "2026-11-24T00:00")
COMMANDS = ("list", "load", "optimize")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [one for one in os.environ if one.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    done = commands.invoke(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done


def validated(source: str, *options: str) -> Result:
    return run("validate-schedules", "--source", source, *AT, *options)


def told(done: Result) -> str:
    """The report as one line."""
    return " ".join(done.stdout.split())


CRONTAB = (
    "# of the host\n"
    "MAILTO=ops@example.org\n"
    "SHELL = /bin/sh\n"
    "CRON_TZ=Europe/Paris\n"
    "0 4 * * * backup --date=$(date +\\%F)\n"
    "5 4 * * * mail ops%Hello%%\n"
    "0 25 * * * never-read\n"
    "@reboot start\n"
    "0 0 0 4 * * six\n"
    "0 0 0 4 * * 2026 seven\n"
    "0 0 30 2 * february\n"
    "10 4 * * * from-windows\r\n"
    f"{','.join(['1'] * 40_000)} 4 * * * long\n"
    "CRON_TZ=Mars/Olympus\n"
    "15 4 * * * last\n"
)


def test_a_crontab_is_read_but_for_its_wrong_lines_which_have_line_and_column() -> None:
    Path("crontab").write_text(CRONTAB, newline="")
    done = validated("crontab:crontab")
    report = told(done)
    assert done.exit_code == 2 and len(done.stdout) < 6000
    for place, problem in (
        ("line 7, column 3", "hour: 25 is not in 0-23"),
        ("line 8, column 1", "@reboot names no time: run it at start"),
        ("line 9, column 11", "'*' is a sixth field"),
        ("line 10, column 11", "'*' is a sixth field"),
        ("line 12, column 24", "save it with Unix line ends"),
        ("line 13, column 1", "over 400 characters"),
        ("line 14, column 9", "no such IANA zone"),
    ):
        assert f"{place}: " in report and problem in report, place
    assert "line 11: '0 0 30 2 *': never fires" in report
    assert "5 active schedules, 6 rows that cannot be read" in report
    found = json.loads(run("schedules", "list", "--source", "crontab:crontab", *AT,
                           "--format", "json").stdout)  # fmt: skip
    assert [(one["task"], one["timezone"]) for one in found] == [
        ("backup --date=$(date +%F)", "Europe/Paris"),
        ("mail ops", "Europe/Paris"),
        ("from-windows", "Europe/Paris"),
        ("last", "UTC"),
        ("february", "Europe/Paris"),
    ]


GOOD = "kind: CronJob\nmetadata: {name: good}\nspec: {schedule: 0 4 * * *}\n"
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("document", "place", "problem"),
    [
        ("kind: CronJob\nmetadata: {name: x}\nspec: {schedule: 0 25 * * *}\n", "line 7, column 18",
         "hour: 25"),
        ("just words\n", "line 5, column 1", "it has no kind"),
        ("a: b: c\n", "line 5, column 5", "no YAML"),
        (f"{BOMB}kind: *a39\n", "line 44, column 6", "kind must be a string"),
        (f"kind: CronJob\nmetadata: {{name: x}}\n{BOMB}spec: *a39\n", "line 46, column 6",
         "it has no schedule"),
    ],
    ids=["hour", "words", "yaml", "bomb", "bomb in a CronJob"],
)  # fmt: skip
def test_a_manifest_is_read_but_for_its_wrong_documents(
    document: str, place: str, problem: str
) -> None:
    Path("jobs.yaml").write_text(f"{GOOD}---\n{document}---\n{GOOD.replace('good', 'too')}")
    done = validated("jobs.yaml")
    assert done.exit_code == 2 and problem in told(done) and len(done.stdout) < 3000
    assert place in told(done)
    assert "2 active schedules, 1 row that cannot be read" in told(done)


@pytest.mark.parametrize("text", ["kind: Deployment\n", "", "# nothing\n"])
def test_a_file_that_is_no_cronjob_is_told_so(text: str) -> None:
    Path("jobs.yaml").write_text(text)
    done = validated("jobs.yaml")
    assert done.exit_code == 2 and "it has no CronJob" in told(done)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_other_commands_tell_the_place_on_stderr_and_end_with_1(command: str) -> None:
    Path("crontab").write_text("0 4 * * * good\n0 25 * * * wrong\n")
    done = run("schedules", command, "--source", "crontab:crontab", *AT)
    assert done.exit_code == 1 and done.stdout
    assert done.stderr.startswith("crontab:2:3: crontab:2: '0 25 * * *': hour: 25 is not in 0-23")


def test_the_pickle_of_celery_beat_is_never_opened() -> None:
    """It is read as a text of no kind that we know, and refused."""
    Path("celerybeat-schedule").write_bytes(b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.\xff")
    done = validated("celerybeat-schedule")
    assert done.exit_code == 3 and "no UTF-8 text" in done.stderr
    assert sorted(one.name for one in Path().iterdir()) == ["celerybeat-schedule"]


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("validate-schedules",), *(("schedules", c) for c in COMMANDS)]
)
@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--capacity", "nan", "no number"), ("--capacity", "inf", "range"),
        ("--capacity", "0", "range"), ("--capacity", "1e-300", "range"),
        ("--capacity", "-3", "range"), ("--at", "0001-01-01", "not from 1970 to 2199"),
        ("--at", "9999-12-31", "not from 1970 to 2199"), ("--at", "soon", "is no time"),
        ("--timezone", "Mars/Olympus", "no such IANA zone"),
        ("--timezone", "+02:00", "a fixed offset is no zone"),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused_in_one_line(
    command: tuple[str, ...], option: str, value: str, problem: str
) -> None:
    Path("crontab").write_text("0 4 * * * good\n")
    done = run(*command, "--source", "crontab:crontab", f"{option}={value}")
    usage = option == "--capacity"
    assert done.exit_code == (3 if command == ("validate-schedules",) else 2 if usage else 1)
    assert done.stdout == "" and problem in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("year", ["1970-01-02", "2199-12-31"])
@pytest.mark.parametrize(
    "command", [("validate-schedules",), *(("schedules", c) for c in COMMANDS)]
)
def test_the_first_and_the_last_day_that_may_be_asked_for_are_answered(
    command: tuple[str, ...], year: str
) -> None:
    Path("crontab").write_text("CRON_TZ=Pacific/Apia\n0 4 * * * good\n*/5 * * * * often\n")
    done = run(*command, "--source", "crontab:crontab", "--at", year)
    assert done.exit_code in (0, 1) and done.stderr == ""


@pytest.mark.parametrize(
    "wrong",
    [("0",), ("-5",), ("nan",), ("inf",), ("2678401",), ("600", "--not-before", "10:00",
     "--not-after", "09:00")],
    ids=" ".join,
)  # fmt: skip
def test_a_run_that_no_time_is_found_for_is_refused(wrong: tuple[str, ...]) -> None:
    Path("crontab").write_text("0 4 * * * good\n")
    done = run("schedules", "recommend", "--source", "crontab:crontab", "report", *wrong)
    last = done.stderr.splitlines()[-1]
    assert done.exit_code in (1, 2) and last.startswith("Error: ") and "''" not in last


def test_a_run_of_a_week_is_recommended_the_time_of_all_that_there_is() -> None:
    Path("crontab").write_text("0 4 * * * good\n")
    done = run("schedules", "recommend", "--source", "crontab:crontab", "--capacity", "2", *AT,
               "maintenance", "604800")  # fmt: skip
    assert done.exit_code == 0 and " 50%  " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_file_is_a_fleet_of_none(command: str) -> None:
    Path("crontab").write_text("")
    done = run("schedules", command, "--source", "crontab:crontab", *AT)
    assert done.exit_code == 0
