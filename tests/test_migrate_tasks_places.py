"""Files in places that are unlike others: linked, oddly named, or the report's own."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.task_code import HEAD, analysed, migrate, migrated

CODE = f"{HEAD}@shared_task\ndef work(x): return x\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tasks.py").write_text(CODE)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("mode", ["--analyze", "--dry-run", "--format=json"])
@pytest.mark.parametrize("output", ["tasks.py", "./tasks.py", "link"])
def test_a_report_does_not_take_the_place_of_a_source(mode: str, output: str) -> None:
    Path("link").symlink_to("tasks.py")
    done = migrate(mode, "--output", output, ".")
    assert done.exit_code == 2 and "is one of the files to read" in done.output
    assert Path("tasks.py").read_text() == CODE


@pytest.mark.usefixtures("here")
def test_a_file_with_two_names_is_not_parted_from_itself() -> None:
    os.link("tasks.py", "twin.py")
    done = migrate(".")
    assert done.exit_code == 3 and "has 2 names (hard links)" in done.output
    assert Path("tasks.py").samefile("twin.py") and Path("tasks.py").read_text() == CODE


@pytest.mark.usefixtures("here")
def test_a_link_that_leads_nowhere_is_no_failure() -> None:
    Path("#tasks.py").symlink_to("me@host.4711")
    Path("self.py").symlink_to("self.py")
    done = migrate(".")
    assert done.exit_code == 0, done.output
    assert done.output.count("left out: ") == 2 and "a link that leads nowhere" in done.output
    assert migrate("#tasks.py").exit_code != 0


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_closed_is_told_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("closed").mkdir()
    for name in ("stat", "lstat", "scandir"):
        monkeypatch.setattr(os, name, _refusing(getattr(os, name)))
    done = migrate(".")
    assert done.exit_code == 3, done.output
    assert "closed: cannot be read: Permission denied" in done.output
    assert "IdempotentTask" in Path("tasks.py").read_text()


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    """As root, who may read everything, sees it."""

    def refused(path: Any = ".", *args: Any, **options: Any) -> Any:
        inside = call.__name__ == "scandir" and str(path).endswith("closed")
        if inside or "closed/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, *args, **options)

    return refused


@pytest.mark.usefixtures("here")
def test_names_that_the_files_own_encoding_lacks_are_in_the_diff() -> None:
    Path("tasks.py").unlink()
    for name in (os.fsdecode(b"\xff"), "проект"):
        text = f"# coding: latin-1\n{CODE}# é\n"
        Path(f"{name}.py").write_bytes(text.encode("latin-1"))
        done = migrate("--dry-run", f"{name}.py", "--output", "all.diff")
        assert done.exit_code == 1, done.output
        diff = Path("all.diff").read_bytes()
        assert diff.startswith(b"--- a/" + os.fsencode(name)) and diff.endswith(b" # \xe9\n")


@pytest.mark.usefixtures("here")
def test_sarif_names_a_file_whose_name_is_no_text() -> None:
    Path("tasks.py").rename(os.fsdecode(b"\xff.py"))
    done = migrate("--analyze", "--format", "sarif", ".")
    (result,) = json.loads(done.stdout)["runs"][0]["results"]
    (place,) = result["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "%FF.py"


@pytest.mark.usefixtures("here")
def test_no_path_of_the_machine_is_told(tmp_path: Path) -> None:
    analysis = json.dumps(analysed("."))
    done = migrate("--backup", "--format", "json", ".")
    assert str(tmp_path) not in analysis + done.output
    assert json.loads(done.stdout)["changes"][0]["backup"] == "tasks.py.orig"


@pytest.mark.usefixtures("here")
def test_the_report_fits_a_terminal() -> None:
    Path("tasks.py").write_text(
        f"{HEAD}@shared_task\ndef send_mail(recipient, template, order_id):\n"
        "    models.Order.objects.filter(pk=order_id).update(sent=True)\n"
        "    mailer.send_mail(recipient, template)\n"
    )
    report = migrate("--analyze", ".")
    assert max(map(len, report.stdout.splitlines())) <= 80


def test_a_comment_stays_above_what_it_is_about(tmp_path: Path) -> None:
    code = b"from celery import Task\nclass A(Task):\n    # the name\n    name = 'a'\n"
    after = migrated(tmp_path, code + b"    def run(self, x): return x\n")
    assert b"    # the name\n    name = 'a'\n" in after and b"idempotency_ttl" in after
