"""`idemwatch validate-schedules` as CI runs it: every option, and an exit code for every end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import Result
from idemwatch.scheduler import validation_run
from support import commands
from support.venv import clean_environ

HEAD = "name,schedule,dialect,timezone,queue_or_task,duration_estimate_seconds\n"
HEALTHY = ("early,5 3 * * *,celery,UTC,app.early,60", "late,5 4 * * *,celery,UTC,app.late,60")
CROWDED = tuple(f"job {n},0 0 * * *,celery,UTC,app.job_{n},60" for n in range(12))
TWICE = ("one,0 5 * * *,celery,UTC,app.one,60", "two,0 5 * * *,celery,UTC,app.one,60")
AT = ("--at", "2026-11-24T00:00")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [one for one in os.environ if one.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def fleet(*rows: str) -> str:
    Path("fleet.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return "fleet.csv"


def run(*rows: str, options: tuple[str, ...] = ()) -> Result:
    """In this process. It must not fail by a traceback."""
    done = commands.invoke("validate-schedules", "--source", fleet(*rows), *AT, *options)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done


def really(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The installed command."""
    return commands.run("validate-schedules", *arguments, stdin=stdin, **environ)


# -- exit codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "fail_on", "exit_code"),
    [
        (HEALTHY, "warning", 0), (HEALTHY, "error", 0),
        (CROWDED, "warning", 1), (CROWDED, "error", 0),
        (TWICE, "warning", 2), (TWICE, "error", 2),
    ],
    ids=["healthy", "healthy-error", "crowded", "crowded-error", "twice", "twice-error"],
)  # fmt: skip
def test_exit_code_tells_the_result(rows: tuple[str, ...], fail_on: str, exit_code: int) -> None:
    done = really("--source", fleet(*rows), *AT, "--fail-on", fail_on)
    assert (done.returncode, done.stderr) == (exit_code, "")
    if fail_on == "warning":
        assert really("--source", "fleet.csv", *AT).returncode == exit_code, "it is the default"


@pytest.mark.parametrize(
    "options",
    [
        ("--frobnicate",), ("--format", "xml"), ("--fail-on", "info"), ("--capacity", "0"),
        ("--capacity", "many"), ("--at", "tomorrow"), ("--timezone", "Mars/Olympus"),
        ("--timezone", "+01:00"), ("--output",), ("stray",), ("--schedule-id", "nobody"),
        ("--fix", "--schedule-id", "early"), ("--check-idempotency",), ("--source", "none.csv"),
        ("--source", "table"), ("--source", "beat"), ("--output", "no/folder/report.json"),
        ("--output", "."), ("--database-url", "nonsense"),
        ("--database-url", "postgresql://me:hunter2@127.0.0.1:1/db"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_whatever_keeps_it_from_running_is_exit_code_3(options: tuple[str, ...]) -> None:
    done = run(*HEALTHY, options=options)
    assert (done.exit_code, done.stdout) == (3, ""), done.output
    assert done.stderr.splitlines()[-1].startswith("Error: ") and "hunter2" not in done.stderr


def test_wrong_usage_of_the_installed_command_is_3_too() -> None:
    for wrong in (["--frob"], ["--source", "none.csv"], ["--format"], []):
        done = really(*wrong)
        assert (done.returncode, done.stdout) == (3, "") and "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["", "no header\n", "\x00\x01", "name,schedule,x\n"])
def test_a_file_that_is_no_inventory_is_3_and_a_broken_row_2(content: str) -> None:
    Path("fleet.csv").write_text(content)
    assert really("--source", "fleet.csv").returncode == 3
    Path("fleet.csv").write_text('name,schedule\n"open\n')
    assert really("--source", "fleet.csv").returncode == 2


def test_a_fault_of_ours_is_3_with_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(validation_run, "validate", broken)
    done = commands.invoke("validate-schedules", "--source", fleet(*HEALTHY))
    assert done.exit_code == 3 and "nobody foresaw this" in done.stderr
    assert "Traceback" in done.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "from idemwatch.exporter.cli import main\n"
        "sys.argv = ['idemwatch', 'validate-schedules', *sys.argv[1:]]\nmain()"
    )
    command = [sys.executable, "-c", script]
    for more, exit_code in ((["--source", fleet(*HEALTHY)], 3), (["--help"], 0)):
        done = subprocess.run([*command, *more], env=clean_environ(), capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == exit_code
        assert ('pip install "idemwatch[schedules]"' in done.stderr) == (exit_code == 3)


def test_help_teaches_with_examples() -> None:
    done = run(options=("--help",))
    assert done.exit_code == 0 and done.stdout.count("idemwatch validate-schedules") >= 6
    for option in ("--verbose", "--format", "--output", "--schedule-id", "--check-duplicates",
                   "--check-hotspots", "--check-idempotency", "--fix", "--dry-run", "--fail-on",
                   "--source", "--capacity", "--at", "--timezone", "--redis-url",
                   "--database-url"):  # fmt: skip
        assert option in done.stdout
    assert "validate-schedules" in commands.invoke("--help").stdout


def test_nobody_who_reads_on_does_not_change_the_exit_code() -> None:
    script = f'"{commands.PROGRAM}" validate-schedules --source "$0" --verbose; echo $? >&2'
    fleet(*CROWDED)
    done = subprocess.run(
        ["bash", "-c", f"({script}) | true", "fleet.csv"],
        env=clean_environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "1\n"


# -- options ---------------------------------------------------------------------------------------


def test_verbose_tells_of_each_check() -> None:
    assert "Checking" not in run(*HEALTHY).stdout
    done = run(*CROWDED, options=("--verbose",))
    assert "Found 1 schedule hotspot\n" in done.stdout
    assert "• 00:00 - 12 tasks (86% load), 12 runs at once on Tue 24 Nov 00:00" in done.stdout


@pytest.mark.parametrize(
    ("options", "checks"),
    [
        (("--check-duplicates",), ["duplicates"]),
        (("--check-hotspots",), ["hotspots"]),
        (("--check-hotspots", "--check-duplicates"), ["duplicates", "hotspots"]),
    ],
)
def test_checks_alone(options: tuple[str, ...], checks: list[str]) -> None:
    done = run(*CROWDED, *TWICE, "broken,x,celery,UTC,t,1", options=(*options, "--format", "json"))
    assert json.loads(done.stdout)["checks"] == checks
    assert done.exit_code == (2 if "duplicates" in checks else 1)


def test_one_schedule_alone_decides_the_exit_code() -> None:
    rows = (*CROWDED, *TWICE, *HEALTHY)
    for name, exit_code in (("early", 0), ("job 3", 1), ("two", 2)):
        assert run(*rows, options=("--schedule-id", name)).exit_code == exit_code
    refused = run(*rows, options=("--schedule-id", "erly"))
    assert refused.exit_code == 3 and "did you mean 'early'?" in refused.stderr


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit"])
def test_output_holds_what_would_be_printed(form: str) -> None:
    printed = run(*TWICE, options=("--format", form)).stdout
    done = run(*TWICE, options=("--format", form, "--output", "report"))
    assert Path("report").read_text("utf-8") == printed
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "report: 1 error, 0 warnings, 0 info\n"
    assert run(*TWICE, options=("--format", form, "--output", "-")).stdout == printed
    if form == "junit":
        ET.fromstring(printed)
    elif form != "text":
        json.loads(printed)


def test_capacity_moment_and_zone_are_those_that_were_asked_for() -> None:
    options = ("--capacity", "120", "--timezone", "Asia/Tokyo", "--format", "json")
    told = json.loads(run(*CROWDED, options=options).stdout)
    assert told["capacity"] == {"slots": 120, "source": "option"} and told["result"] == "passed"
    assert told["week"]["start"] == "2026-11-24T00:00:00Z"
    assert [one["start"] for one in told["load"]["half_hours"] if one["load"]] == ["09:00"]


def test_standard_input_is_a_source() -> None:
    done = really("--source", "csv:-", *AT, stdin=HEAD + "\n".join(TWICE) + "\n")
    assert done.returncode == 2 and "two, line 3: means the same as one" in done.stdout


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a,61 * * * *,vixie,UTC,t,1", "minute: 61 is not in 0-59"),
        (f"a,{'1,' * 40_000}1 * * * *,vixie,UTC,t,1", "values for 6 columns"),
        (f'a,"{"1," * 40_000}1 * * * *",vixie,UTC,t,1', "it has over 400 characters"),
        ("a,0 0 0 * * *,vixie,UTC,t,1", "it has 6 fields"),
        ("a,0 0 * * *,vixie,Mars/Olympus,t,1", "no such IANA zone"),
        ("a,0 0 * * *,vixie,UTC,t,0", "'0' is not from 1 s to 31 days"),
        ("a,0 0 * * *,vixie,UTC,t,-5", "'-5' is not from 1 s to 31 days"),
        ("a,0 0 * * *,vixie,UTC,t,nan", "'nan' is out of range"),
        ("a,0 0 * * *,cron,UTC,t,1", "'cron' is none of"),
        ("a,@reboot,vixie,UTC,t,1", "@reboot names no time"),
    ],
    ids=["minute", "80kB", "80kB-quoted", "six", "zone", "0s", "-5s", "nan", "dialect", "reboot"],
)
def test_a_wrong_row_is_told_with_its_line_and_the_rest_goes_on(row: str, told: str) -> None:
    done = run(*HEALTHY, row)
    assert done.exit_code == 2 and len(done.stdout) < 5000
    assert "line 4: " in done.stdout and told in " ".join(done.stdout.split())
    assert "2 active schedules, 1 row that cannot be read" in done.stdout


def test_what_is_right_and_strange_is_no_broken_row() -> None:
    never = run("a,0 0 30 2 *,vixie,UTC,t,60")
    assert never.exit_code == 1 and "never fires" in never.stdout
    week = run("a,0 0 * * *,vixie,UTC,t,604800")
    assert week.exit_code == 1 and "runs for 7 d, its next start comes after 1 d" in week.stdout
    assert "highest 50% (7 runs at once)" in week.stdout


@pytest.mark.parametrize(("rows", "told"), [((), "No schedule is active"), (HEALTHY[:1], "passed")])
def test_fleets_of_none_and_one(rows: tuple[str, ...], told: str) -> None:
    done = run(*rows)
    assert done.exit_code == 0 and told in done.stdout


@pytest.mark.timeout(100)
def test_a_hundred_thousand_schedules_take_seconds() -> None:
    rows = (f"job {n},{n % 60} {n % 24} * * *,celery,UTC,app.job_{n},60" for n in range(100_000))
    done = really("--source", fleet(*rows), "--capacity", "1000", *AT)
    assert done.returncode in (1, 2) and "100,000 active schedules" in done.stdout
    assert len(done.stdout) < 5000


# -- changes of what is no table -------------------------------------------------------------------


def test_fix_of_a_file_is_refused_after_the_patch_was_printed() -> None:
    done = run(*CROWDED, *TWICE, options=("--fix",))
    assert done.exit_code == 3 and "--fix changes the table only" in done.stderr
    assert "--- a/fleet.csv\n+++ b/fleet.csv\n@@ " in done.stdout
    assert "\n-two,0 5 * * *,celery" in done.stdout and "\n+job " in done.stdout
    assert Path("fleet.csv").read_text() == HEAD + "".join(f"{r}\n" for r in (*CROWDED, *TWICE))


@pytest.mark.parametrize("options", [("--fix", "--dry-run"), ("--dry-run",)], ids=" ".join)
def test_dry_run_prints_the_patch_and_ends_as_without_it(options: tuple[str, ...]) -> None:
    done = run(*CROWDED, options=options)
    assert done.exit_code == 1 and "\n+job " in done.stdout
    assert sorted(one.name for one in Path().iterdir()) == ["fleet.csv"]


def test_dry_run_writes_only_the_output() -> None:
    options = ("--dry-run", "--format", "json", "--output", "report.json")
    done = run(*CROWDED, *TWICE, options=options)
    told = json.loads(Path("report.json").read_text())
    assert told["change_id"] is None and {one["reason"] for one in told["changes"]} == {
        "move", "duplicate",
    }  # fmt: skip
    assert "@@ " in done.stdout
    assert sorted(one.name for one in Path().iterdir()) == ["fleet.csv", "report.json"]


def test_json_on_standard_output_stays_json() -> None:
    done = run(*CROWDED, options=("--dry-run", "--format", "json"))
    assert json.loads(done.stdout)["changes"] and "@@ " in done.stderr


def test_only_what_was_checked_is_mended() -> None:
    rows = (*CROWDED, *TWICE)
    twice = run(*rows, options=("--dry-run", "--check-duplicates")).stdout
    crowd = run(*rows, options=("--dry-run", "--check-hotspots")).stdout
    assert "\n-two," in twice and "\n+job" not in twice
    assert "\n-two," not in crowd and "\n+job" in crowd


def test_nothing_to_fix_is_no_refusal() -> None:
    done = run(*HEALTHY, options=("--fix",))
    assert done.exit_code == 0 and done.stdout.endswith("Nothing to fix.\n")


# -- with an app -----------------------------------------------------------------------------------

APP = """
from celery import Celery
from idemwatch.idempotency import IdempotentTask

app = Celery("proj", broker="memory://", backend="cache+memory://")

@app.task(base=IdempotentTask, idempotency_key_args=())
def constant(): ...

@app.task(base=IdempotentTask)
def safe(): ...

@app.task
def plain(): ...

app.conf.beat_schedule = {
    name: {"task": f"proj.{name}", "schedule": 3600.0 * hours}
    for hours, name in enumerate(("constant", "safe", "plain", "gone"), 1)
}
"""


def test_celery_brings_its_schedule_tasks_and_keys() -> None:
    Path("proj.py").write_text(textwrap.dedent(APP))
    celery = str(Path(sys.executable).with_name("celery"))
    command = [celery, "-A", "proj", "idemwatch", "validate-schedules", *AT, "--capacity", "14"]

    def ends(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], env=clean_environ(), capture_output=True,
                              text=True, check=False, timeout=60)  # fmt: skip

    done = ends("--check-idempotency")
    assert done.returncode == 2 and "unless beat runs with -S" in " ".join(done.stdout.split())
    with Path("proj.py").open("a") as file:
        file.write('app.conf.beat_scheduler = "idemwatch.scheduler.beat:Scheduler"\n')
    done = ends("--format", "json", "--check-idempotency")
    assert done.returncode == 2, done.stderr
    told = json.loads(done.stdout)
    assert told["source"] == "beat" and told["summary"]["active"] == 4
    assert {(one["code"], one["subject"]) for one in told["findings"]} == {
        ("swallowed", "constant"), ("not_idempotent", "proj.plain"), ("unregistered", "proj.gone"),
    }  # fmt: skip
    assert [one for one in told["not_asked"] if "app" in one] == []
    for wrong in ("--frob", "--source=none.csv"):
        assert ends(wrong).returncode == 3
