"""The plain twin of the facility tasks does its work, in a real worker, on real servers.

`plain_tasks` is the file under test: a module that overrides the fixture runs these tests over a
migrated copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from idemwatch.demo import facility_settings
from support.facility import CONTACT, Facility, open_facility, overdue
from support.worker import Worker

pytestmark = pytest.mark.worker
CONTEXT = {"job": "filters", "job_id": 1, "day": "2026-03-01"}


@pytest.fixture
def plain_tasks() -> Path:
    """The file with the tasks under test."""
    return Path(facility_settings.__file__).with_name("plain_tasks.py")


@pytest.fixture
def mails_of_two_messages() -> int:
    """How often the plain tasks do what comes twice; a migrated copy does it once."""
    return 2


@pytest.fixture
def facility(database_url: str, tmp_path: Path) -> Iterator[Facility]:
    """An application without any job."""
    with open_facility(database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def run(
    plain_tasks: Path,
    facility: Facility,
    database_url: str,
    redis_url: str,
    new_worker: Callable[..., Worker],
) -> Iterator[Callable[..., Any]]:
    """Run a task in a worker of the file, and wait for its result."""
    servers = {"IDEMWATCH_DATABASE_URL": database_url, "IDEMWATCH_REDIS_URL": redis_url}
    env = {**facility.environment, **servers, "PLAIN_TASKS": str(plain_tasks)}
    new_worker("support.plain_twin", broker=redis_url, backend=redis_url, env=env)
    publisher = Celery("publisher", broker=redis_url, backend=redis_url, set_as_current=False)
    yield lambda name, *args: publisher.send_task(name, args).get(timeout=60)
    publisher.close()


def test_the_five_tasks_do_their_work(facility: Facility, run: Callable[..., Any]) -> None:
    yesterday = overdue(datetime.now(UTC).date())
    job, ticket = facility.add_job(uptodate=yesterday), facility.add_ticket(due_on=yesterday)
    recurring = facility.add_recurring()

    assert run("auto_close_jobs") == {"closed": 1}
    assert facility.closings() == {job: 1}
    assert run("ticket_escalation") == {"escalated": 1}
    assert facility.steps() == {ticket: 1}
    assert run("create_ppm_job", recurring)["schedule_id"] == recurring
    assert facility.ppm_jobs() == {recurring: 1}
    assert facility.outbox() == {"job_closed": 1, "ticket_escalated": 1, "job_due": 1}

    written = run("create_scheduled_reports", "open_jobs", {"day": "2100-01-01"}, 7, "csv")
    assert written["record_count"] == 1
    assert Path(written["report_url"]).read_text().startswith("id,identifier,asset_id")

    sent = run("send_reminder_email", CONTACT, "job_closed", CONTEXT)
    assert (sent["sent"], sent["recipient"]) == (True, CONTACT)
    (mail,) = facility.inbox.mails()
    assert (mail.recipients, mail.subject) == ((CONTACT,), "Job filters was closed")


def test_a_mail_that_is_asked_for_twice_goes_out_so_often(
    facility: Facility, run: Callable[..., Any], mails_of_two_messages: int
) -> None:
    for _ in range(2):
        run("send_reminder_email", CONTACT, "job_closed", CONTEXT)
    assert len(facility.inbox.mails()) == mails_of_two_messages
