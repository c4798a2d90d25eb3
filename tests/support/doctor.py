"""The doctor as operators call it: in here, or as a command of Celery's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner
from idemwatch.exporter.cli import cli

from .worker import environment

DEADLINE_SECONDS = 60.0


@dataclass
class Visit:
    """What it printed as JSON, and what it ended with."""

    code: int
    report: dict[str, Any]
    output: str

    def of(self, check: str, level: str | None = None) -> list[dict[str, str]]:
        """The findings of a check, of one level if it is named."""
        found = [one for one in self.report["findings"] if one["check"] == check]
        return [one for one in found if level in (None, one["level"])]

    def text(self, check: str, level: str | None = None) -> str:
        """What they say, joined."""
        return "\n".join(f"{one['found']} -> {one['change']}" for one in self.of(check, level))

    def bad(self) -> dict[str, str]:
        """The checks that found warnings or errors, with the last level of each."""
        bad = ("warning", "error", "unchecked")
        found = self.report["findings"]
        return {one["check"]: one["level"] for one in found if one["level"] in bad}


def visit(*arguments: str, app: Any | None = None) -> Visit:
    """`idemwatch doctor` in this process; with `app` as under `celery -A`."""
    obj = None if app is None else SimpleNamespace(app=app)
    words = ["doctor", "--format", "json", *arguments]
    done = CliRunner().invoke(cli, words, prog_name="idemwatch", obj=obj)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    report = json.loads(done.stdout) if done.exit_code != 3 else {}
    return Visit(done.exit_code, report, done.output)


def by_celery(
    *arguments: str, conf: dict[str, Any], app: str = "support.doctor_app"
) -> subprocess.CompletedProcess[str]:
    """`celery -A app idemwatch doctor`."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", app, "idemwatch", "doctor", *arguments],
        env=environment({"DOCTOR_CONF": json.dumps(conf)}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
