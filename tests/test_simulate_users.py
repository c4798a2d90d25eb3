"""What the demo's commands say of a user's app that fails, and of a file that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from idemwatch.demo import simulate_run
from idemwatch.demo.simulate_report import Report
from support.commands import invoke

APP = """
from celery import Celery
from idemwatch.idempotency import IdempotentTask

app = Celery("faulty", broker="memory://", set_as_current=False{more})


def key(_task, number):
    return {{}}[number]


@app.task(base=IdempotentTask, name="faulty.work", shared=False, idempotency_key=key)
def work(number):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def said(*arguments: str) -> str:
    """What a wrong usage is told."""
    result = invoke("simulate", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_an_app_whose_tasks_cannot_be_imported_is_told_in_a_line(folder: Path) -> None:
    (folder / "faulty_include.py").write_text(APP.format(more=', include=["no_such_module"]'))
    told = said("--app", "faulty_include", "--call", "faulty.work:[{n}]")
    assert "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'" in told


def test_what_a_users_module_says_loses_its_password(folder: Path) -> None:
    (folder / "faulty_secret.py").write_text("raise OSError('amqp://u:s3cret@broker// is away')")
    told = said("--app", "faulty_secret", "--call", "faulty.work:[{n}]")
    assert "OSError: amqp://***@broker// is away" in told and "s3cret" not in told


def test_a_key_function_that_fails_is_told_by_its_kind(folder: Path) -> None:
    (folder / "faulty_key.py").write_text(APP.format(more=""))
    told = said("--app", "faulty_key", "--call", "faulty.work:[{n}]")
    assert "idempotency_key of faulty.work raised KeyError for faulty.work(1)" in told


def test_a_full_disk_is_no_verdict_and_what_was_counted_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Counted:
        """A report without failures."""

        failures = ()
        as_text = staticmethod(lambda: "all that was counted\n")
        as_json = staticmethod(lambda: "{}" * 100_000)

    def simulate(*_: object) -> Report:
        return Counted()  # type: ignore[return-value]

    monkeypatch.setattr(simulate_run, "simulate", simulate)
    result = invoke("simulate", "--seed", "1", "--json", "/dev/full")
    assert result.exit_code == 3
    assert result.output.startswith("all that was counted")
    assert "--json: cannot write '/dev/full': No space left on device" in result.output
