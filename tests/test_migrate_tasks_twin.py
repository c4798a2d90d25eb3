"""The demo's plain twin, migrated: its own tests pass, and a duplicate is turned away."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from idemwatch.demo import facility_settings
from support.facility import CONTACT, Facility, overdue
from support.task_code import migrate
from support.venv import ROOT


def _tests_of_the_twin() -> ModuleType:
    path = ROOT / "tests" / "test_facility_plain.py"
    spec = importlib.util.spec_from_file_location("plain_twin_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_TWIN = _tests_of_the_twin()
pytestmark = pytest.mark.worker
facility, run = _TWIN.facility, _TWIN.run
test_the_migrated_tasks_do_their_work = _TWIN.test_the_five_tasks_do_their_work


@pytest.fixture
def plain_tasks(tmp_path: Path) -> Path:
    """A migrated copy of the file, in the place of the one that the tests are for."""
    copy = tmp_path / "plain_tasks.py"
    shutil.copy(Path(facility_settings.__file__).with_name("plain_tasks.py"), copy)
    done = migrate(copy)
    assert done.exit_code == 0 and "5 of 5 tasks migrated in 1 file" in done.output
    return copy


@pytest.fixture
def publisher(run: Callable[..., Any], redis_url: str) -> Iterator[Celery]:
    """Who publishes to the worker that `run` has started."""
    app = Celery("publisher", broker=redis_url, backend=redis_url, set_as_current=False)
    yield app
    app.close()


def test_a_duplicate_is_turned_away_with_the_first_result(
    facility: Facility, publisher: Celery, database_url: str
) -> None:
    recurring = facility.add_recurring()
    facility.add_job(uptodate=overdue(datetime.now(UTC).date()))

    def twice(name: str, *args: Any, **options: Any) -> list[Any]:
        sent = [publisher.send_task(name, args, **options) for _ in range(2)]
        return [one.get(timeout=60) for one in sent]

    mails = twice("send_reminder_email", CONTACT, "job_closed",
                  {"job": "filters", "job_id": 1, "day": "2026-03-01"})  # fmt: skip
    assert mails[0] == mails[1] and len(facility.inbox.mails()) == 1
    made = twice("create_scheduled_reports", "open_jobs", {"day": "2100-01-01"}, 7, "csv")
    assert made[0] == made[1]
    # Scope task: a message that is delivered twice is one, two that were published are two.
    once = twice("create_ppm_job", recurring, task_id="one-message")
    assert once[0] == once[1] and facility.ppm_jobs() == {recurring: 1}
