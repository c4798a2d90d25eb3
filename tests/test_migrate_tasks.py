"""`idemwatch migrate-tasks` as operators run it: reports, files, trouble, and exit codes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from idemwatch.idempotency import task_migration, task_rewrite, task_write
from idemwatch.idempotency.task_files import LARGEST, source_of
from idemwatch.idempotency.task_progress import LONG_WORK
from idemwatch.idempotency.task_rules import RULES
from support import commands
from support.patching import apply
from support.task_code import HEAD, MODULES, NAMES, analysed, lay_out, migrate
from support.venv import ROOT, clean_environ

PLAIN = "@shared_task\ndef save(x):\n    open('f', 'w').write(x)\n"
TWIN_REPORT = ROOT / "tests" / "data" / "plain_tasks_report.txt"
SARIF = {
    "type": "object",
    "required": ["$schema", "version", "runs"],
    "properties": {"runs": {"type": "array", "minItems": 1, "items": {
        "required": ["tool", "results", "invocations"],
        "properties": {"results": {"type": "array", "items": {
            "required": ["ruleId", "ruleIndex", "level", "message", "locations"],
            "properties": {
                "level": {"enum": ["none", "note", "warning", "error"]},
                "message": {"required": ["text"]},
                "locations": {"type": "array", "minItems": 1, "maxItems": 1, "items": {
                    "properties": {"physicalLocation": {"properties": {
                        "artifactLocation": {
                            "required": ["uri", "uriBaseId"],
                            "properties": {"uriBaseId": {"const": "%SRCROOT%"},
                                           "uri": {"pattern": r"^[^/:\s]+$"}},
                        },
                        "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
                    }}},
                }},
            },
        }}},
    }}},
}  # fmt: skip
"""The part of SARIF 2.1.0 that code scanning reads."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A module with one plain task."""
    path = tmp_path / "tasks.py"
    path.write_text(HEAD + PLAIN)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def twin_report() -> str:
    with chdir(ROOT):
        return migrate("--analyze", "demo/plain_tasks.py").stdout


# -- reports ---------------------------------------------------------------------------------------


def test_report_of_the_demos_plain_twin_is_the_one_that_was_agreed_on() -> None:
    assert twin_report() == TWIN_REPORT.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_change_of_a_module_is_the_one_that_was_agreed_on(name: str, tmp_path: Path) -> None:
    with chdir(lay_out(tmp_path)):
        diff = subprocess.run(
            [commands.PROGRAM, "migrate-tasks", "--dry-run", ".", "--output", "all.diff"],
            env=clean_environ(), capture_output=True, check=False,
        )  # fmt: skip
        assert diff.returncode == 1, diff
        text = Path("all.diff").read_bytes().decode("latin-1")
    (own,) = [one for one in text.split("--- a/") if one.startswith(f"{name}.py")]
    assert own == (MODULES / f"{name}.diff").read_bytes().decode("latin-1")


def test_analysis_changes_nothing_and_has_the_headline_and_categories_in_order(
    tmp_path: Path,
) -> None:
    before = contents(lay_out(tmp_path))
    done = migrate("--analyze", tmp_path)
    assert done.exit_code == 1 and contents(tmp_path) == before
    lines = done.stdout.splitlines()
    assert lines[:2] == [" TASK MIGRATION ANALYSIS", "=" * 80]
    titles = [line.split(" (")[0] for line in lines if line.endswith(("tasks):", "task):"))]
    order = ["CRITICAL", "HIGH_PRIORITY", "EMAIL", "MAINTENANCE", "ALREADY IDEMPOTENT"]
    assert titles == order
    assert max(map(len, lines)) <= 100 + len(str(tmp_path))


def test_json_has_a_task_for_each_and_what_is_recommended(tmp_path: Path) -> None:
    found = analysed(lay_out(tmp_path, "django_shop"))
    by_name = {one["name"]: one for one in found["tasks"]}
    close = by_name["shop.auto_close_job"]
    assert (close["function"], close["line"]) == ("auto_close_job", 43)
    wanted = {"category": "critical", "ttl_seconds": 26 * 3600, "scope": "global",
              "key": "autoclose_key(job_id, day)", "strategy": "IdempotentTask"}  # fmt: skip
    assert close["recommended"].items() >= wanted.items()
    assert found["counts"] == {"migrate": 7, "by_hand": 3, "already": 0}


def test_sarif_is_what_code_scanning_takes(tmp_path: Path) -> None:
    with chdir(lay_out(tmp_path)):
        done = migrate("--analyze", "--format", "sarif")
    log: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(log, SARIF)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [one["id"] for one in rules] == list(RULES) and all(one["help"]["text"] for one in rules)
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in run["results"])
    prints = [json.dumps(one["partialFingerprints"]) for one in run["results"]]
    assert len(set(prints)) == len(prints) > 30
    assert run["invocations"][0]["exitCode"] == done.exit_code == 1
    levels = [one["level"] for one in run["results"]]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)


def test_report_goes_to_a_file_whole(code: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.sarif"
    done = migrate("--analyze", code, "--format", "sarif", "--output", out)
    assert done.exit_code == 1 and done.stdout == "" and json.loads(out.read_text())["runs"]


# -- what is changed -------------------------------------------------------------------------------


def test_dry_run_is_a_patch_that_makes_what_the_migration_makes(code: Path) -> None:
    before = code.read_text()
    done = migrate("--dry-run", code)
    assert done.exit_code == 1 and code.read_text() == before
    patched = apply(done.stdout, str(code).lstrip("/"), before)
    assert migrate(code).exit_code == 0
    assert code.read_text() == patched != before


def test_twice_is_once(tmp_path: Path) -> None:
    lay_out(tmp_path)
    assert migrate(tmp_path).exit_code == 1  # some are for hands
    once = contents(tmp_path)
    again = migrate(tmp_path)
    assert contents(tmp_path) == once
    assert "0 of 22 tasks migrated in 0 files; 17 are idempotent already" in again.output


def test_only_the_task_and_the_category_that_are_asked_for(tmp_path: Path) -> None:
    path = lay_out(tmp_path, "django_shop") / "django_shop.py"
    assert migrate(path, "--task", "shop.auto_close_job").exit_code == 0
    assert path.read_text().count("base=IdempotentTask") == 1
    assert migrate(path, "--category", "Email", "--task", "send_receipt").exit_code == 0
    assert path.read_text().count("base=IdempotentTask") == 2
    assert migrate(path, "--category", "critical").exit_code == 0
    assert path.read_text().count("base=IdempotentTask") == 4


def test_backup_never_overwrites_an_older_one(code: Path) -> None:
    before = code.read_bytes()
    code.with_name("tasks.py.orig").write_text("older")
    done = migrate("--backup", code)
    assert "tasks.py.orig.1, as an older backup is there" in done.output
    assert code.with_name("tasks.py.orig").read_text() == "older"
    assert code.with_name("tasks.py.orig.1").read_bytes() == before != code.read_bytes()


def test_mode_is_kept_and_a_link_stays_one(code: Path, tmp_path: Path) -> None:
    code.chmod(0o640)
    link = tmp_path / "link.py"
    link.symlink_to(code)
    assert migrate(link).exit_code == 0
    assert link.is_symlink() and code.stat().st_mode & 0o7777 == 0o640
    assert "IdempotentTask" in code.read_text()


def test_folders_that_hold_no_code_of_the_team_are_skipped(tmp_path: Path) -> None:
    folders = (".git", ".venv", "node_modules", "migrations", "__pycache__", "own_env", "app")
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks.py").write_text(HEAD + PLAIN)
    (tmp_path / "own_env" / "pyvenv.cfg").touch()
    (tmp_path / "app" / "loop").symlink_to(tmp_path)
    (tmp_path / "app" / "again.py").symlink_to(tmp_path / "app" / "tasks.py")
    (tmp_path / "app" / "away.py").symlink_to(MODULES / "django_shop.py.txt")
    found = analysed(tmp_path)
    assert [one["file"] for one in found["tasks"]] == [str(tmp_path / "app" / "again.py")]
    (away,) = found["not_looked_at"]
    assert away["skipped"] and away["file"].endswith("away.py")


def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    for number in range(LONG_WORK):
        (tmp_path / f"tasks_{number}.py").write_text(HEAD + PLAIN)
    quiet = commands.run("migrate-tasks", "--analyze", str(tmp_path))
    assert quiet.returncode == 1 and quiet.stderr == ""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [commands.PROGRAM, "migrate-tasks", "--analyze", str(tmp_path)],
            env=clean_environ(), stdout=subprocess.PIPE, stderr=theirs, check=False,
        )  # fmt: skip
        os.close(theirs)
        shown = terminal.read(65536)
    assert done.stdout.decode() == quiet.stdout and b"Reading" in shown


# -- trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"from celery import\n", "cannot be parsed: "),
        (b"# celery\nx = '\xff'\n", "cannot be decoded: "),
        (b"# -*- coding: nothing -*-\nimport celery\n", "cannot be decoded: unknown encoding"),
        (b"import celery\nx = '\x00'\n", "cannot be parsed: "),
        (b"import celery\nx = " + b"(" * 5000 + b"\n", "cannot be parsed: "),
        (
            b"from proj.celery import app\n@app.task\ndef f(x): ...\nx = " + b"-" * 1500 + b"1\n",
            "is nested too deeply to be read",
        ),
    ],
)
def test_a_file_that_is_no_python_is_told_and_the_rest_goes_on(
    data: bytes, problem: str, code: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_bytes(data)
    done = migrate(tmp_path)
    assert done.exit_code == 3 and problem in done.output and "broken.py" in done.output
    assert "base=IdempotentTask" in code.read_text()
    assert (tmp_path / "broken.py").read_bytes() == data


def test_a_huge_file_is_left_out_and_told(code: Path, tmp_path: Path) -> None:
    (tmp_path / "huge.py").write_text(HEAD + "#" * LARGEST)
    done = migrate(tmp_path)
    assert done.exit_code == 0 and "left out: " in done.output and "huge.py" in done.output


def test_a_file_that_changed_since_it_was_analysed_is_left(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = task_rewrite.rewritten

    def slow(*arguments: Any) -> str:
        code.write_text("# somebody saves\n")
        return rewritten(*arguments)

    monkeypatch.setattr(task_migration, "rewritten", slow)
    done = migrate(code)
    assert done.exit_code == 3 and "has changed since it was analysed" in done.output
    assert code.read_text() == "# somebody saves\n" and list(code.parent.iterdir()) == [code]


def test_a_read_only_file_is_left(code: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    shutil.copy(code, other)
    code.chmod(0o444)
    done = migrate(tmp_path)
    assert done.exit_code == 3 and f"failed: {code}: is read-only" in done.output
    assert "Idempotent" not in code.read_text() and "Idempotent" in other.read_text()


def test_a_failed_write_leaves_the_file_as_it_was(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = migrate("--backup", code)
    assert done.exit_code == 3 and "cannot be written: No space left on device" in done.output
    assert code.read_bytes() == before and list(code.parent.iterdir()) == [code]


def test_a_killed_write_leaves_no_half_file(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(str(code), code.read_bytes())
    before = code.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        task_write.write(source, "new", backup=False)  # type: ignore[arg-type]
    assert code.read_bytes() == before and list(code.parent.iterdir()) == [code]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "no file or folder 'nowhere'"),
        (("--task", "save_"), "no task 'save_' was found; did you mean 'save'?"),
        (("--task", "zzz"), "--analyze lists them"),
        (("--analyze", "--dry-run"), "--analyze changes nothing"),
        (("--dry-run", "--backup"), "nothing to --backup"),
        (("--category", "urgent"), "'urgent' is not one of"),
        (("--analyze", "--output", "no/where"), "no folder"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_changed(
    arguments: tuple[str, ...], told: str, code: Path, tmp_path: Path
) -> None:
    before = code.read_bytes()
    with chdir(tmp_path):
        done = migrate(*arguments, *([] if arguments[0] == "nowhere" else [code]))
    assert done.exit_code == 2 and told in done.output and code.read_bytes() == before


def test_without_libcst_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        one for one in sys.modules if "migrate_tasks" in one or "idempotency.task_" in one
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libcst", None)
    done = migrate("--analyze")
    assert done.exit_code == 1
    assert 'migrate-tasks needs libcst: pip install "idemwatch[server]"' in done.output


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    done = migrate("--analyze", tmp_path)
    assert done.exit_code == 0 and "Total tasks found: 0" in done.stdout


def test_nothing_of_the_code_is_run(code: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code.write_text(f"{HEAD}open({str(mark)!r}, 'w')\n{PLAIN}")
    assert migrate(code).exit_code == 0 and not mark.exists()


def test_interrupted_is_130_and_every_file_is_whole(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"tasks_{number}.py").write_text(HEAD + PLAIN)
    process = subprocess.Popen(
        [commands.PROGRAM, "migrate-tasks", str(tmp_path)], env=clean_environ(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().startswith("migrated: ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "files were migrated, the others are as they were" in errors
    texts = {path.read_text() for path in tmp_path.iterdir()}
    assert len(texts) == 2 and all(path.suffix == ".py" for path in tmp_path.iterdir())


if __name__ == "__main__":  # writes what was agreed on anew
    TWIN_REPORT.write_text(twin_report())
    with chdir(sys.argv[1]):
        lay_out(Path())
        commands.run("migrate-tasks", "--dry-run", ".", "--output", "all.diff")
        for one in Path("all.diff").read_bytes().split(b"--- a/")[1:]:
            stem = one.split(b".py", 1)[0].decode()
            (MODULES / f"{stem}.diff").write_bytes(one)
