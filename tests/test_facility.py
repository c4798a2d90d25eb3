"""Each task of the facility application, delivered again and again while its processes are killed,
does its work once.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from idemwatch.demo.mail import MailRefused
from idemwatch.demo.smtp_server import Received
from idemwatch.scheduler.errors import ScheduleConflict
from support.facility import CONTACT, DAY, Facility, open_facility
from support.facility_site import Site, open_site
from support.stores import wait_until
from support.worker import Worker

pytestmark = pytest.mark.worker

DELIVERIES = 50
PIECES = 2
"""Pieces of work of each task."""
KILLS = 14
KILL_EVERY_SECONDS = 0.6
MAIL = "send_reminder_email"
BLOCKED = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
   AND query LIKE '%idempotency_record%'
"""

Call = tuple[str, tuple[Any, ...]]


@pytest.fixture
def facility(database_url: str, tmp_path: Path) -> Iterator[Facility]:
    """An application without any job."""
    with open_facility(database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def site(facility: Facility, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """No worker yet."""
    with open_site(facility, tmp_path, redis_url, database_url) as opened:
        yield opened


def calls(facility: Facility) -> list[Call]:
    """Every task, each with some pieces of work."""
    made: list[Call] = []
    for number in range(PIECES):
        client = f"client-{number}"
        facility.add_job(client)
        facility.add_ticket(client)
        recurring = facility.add_recurring(f"asset-{number}")
        context = {"job": "filters", "job_id": number, "day": DAY}
        made += [
            ("auto_close_jobs", (DAY, client)),
            ("ticket_escalation", (DAY, client)),
            ("create_ppm_job", (recurring, "2040-03-01")),
            ("create_scheduled_reports", ("open_jobs", {"day": DAY}, number + 1, "pdf")),
            (MAIL, (CONTACT, "job_closed", context)),
        ]
    return made


def messages(made: list[Call], chance: random.Random) -> list[tuple[str, tuple[Any, ...], str]]:
    """Each call in 50 messages, half of them with one id, in any order."""
    sent = []
    for task, args in made:
        same = str(uuid4())
        ids = [same if number % 2 else str(uuid4()) for number in range(DELIVERIES)]
        sent += [(task, args, one) for one in ids]
    chance.shuffle(sent)
    return sent


def test_fifty_deliveries_while_children_are_killed_do_each_work_once(
    facility: Facility, site: Site, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    made = calls(facility)
    for _ in range(2):
        site.start(concurrency=2)
    with site.kill_children(seed, KILLS, KILL_EVERY_SECONDS) as killer:
        for task, args, task_id in messages(made, random.Random(seed)):
            site.send(task, *args, task_id=task_id)
        wait_until(lambda: killer.killed == KILLS, 60)
    site.settle()
    assert_each_once(facility)
    assert_reports_are_whole(facility, made)
    mails = facility.inbox.mails()
    again = len(mails) - PIECES
    assert len({mail.message_id for mail in mails}) == PIECES
    assert again <= site.claims(MAIL)["taken_over"]
    for task in {task for task, _ in made}:
        outcomes = site.claims(task)
        assert outcomes["granted"] >= 1, (task, outcomes)
        assert outcomes["duplicate"] + outcomes["running"] > DELIVERIES, (task, outcomes)


def assert_each_once(facility: Facility) -> None:
    """One closing, one step and one mail about each, one job of each recurring one."""
    for counted in (facility.closings(), facility.steps(), facility.ppm_jobs()):
        assert sorted(counted.values()) == [1] * PIECES
    assert facility.outbox() == {"job_closed": PIECES, "ticket_escalated": PIECES}
    levels = facility.rows("SELECT escalation_level, status FROM facility.ticket")
    assert levels == [(1, "OPEN")] * PIECES
    statuses = facility.rows(
        "SELECT status, autoclosed FROM facility.job WHERE recurring_job_id IS NULL"
    )
    assert statuses == [("CLOSED", True)] * PIECES
    planned = facility.rows("SELECT task, kwargs FROM public.schedule ORDER BY id")
    assert [task for task, _ in planned] == [MAIL] * PIECES


def assert_reports_are_whole(facility: Facility, made: list[Call]) -> None:
    """One row and one file of each report, and no half of one."""
    asked = sum(task == "create_scheduled_reports" for task, _ in made)
    paths = [Path(path) for (path,) in facility.rows("SELECT path FROM facility.report")]
    assert len(paths) == len(set(paths)) == asked
    finished = {path for path in facility.reports.iterdir() if not path.name.startswith(".")}
    assert finished == set(paths)
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")


def test_a_mail_whose_sender_dies_before_its_record_goes_out_again_with_the_same_message_id(
    facility: Facility, site: Site, database_url: str
) -> None:
    worker = site.start(concurrency=1)
    with psycopg.connect(database_url) as holder:

        def hold_record(_: Received) -> None:
            """So the worker gets its 250, and cannot say that it did."""
            if len(facility.inbox.mails()) == 1:
                holder.execute("SELECT FROM idempotency_record FOR UPDATE")

        facility.inbox.taken = hold_record
        sent = site.send(MAIL, CONTACT, "job_closed", {"job": "filters", "job_id": 1, "day": DAY})
        wait_until(lambda: bool(facility.rows(BLOCKED)))
        kill_child(worker)
        facility.rows(f"SELECT pg_terminate_backend(pid, 10000) FROM ({BLOCKED}) AS waiting")
        holder.rollback()
    result = site.result(sent)
    site.settle()
    first, second = facility.inbox.mails()
    assert first == second
    assert result["message_id"] == first.message_id != ""
    assert site.claims(MAIL)["taken_over"] == 1


def kill_child(worker: Worker) -> None:
    """SIGKILL to the pool's only process; returns when it has gone."""
    (child,) = worker.children()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: child not in worker.children())


def test_without_a_kill_fifty_deliveries_send_one_mail(facility: Facility, site: Site) -> None:
    site.start(concurrency=2)
    same = str(uuid4())
    context = {"job": "filters", "job_id": 1, "day": DAY}
    for number in range(DELIVERIES):
        recipient = CONTACT if number % 3 else CONTACT.title()
        task_id = same if number % 2 else None
        site.send(MAIL, recipient, "job_closed", context, task_id=task_id)
    site.settle()
    (mail,) = facility.inbox.mails()
    assert mail.subject == "Job filters was closed"
    assert site.claims(MAIL)["granted"] == 1


def failed(site: Site, task: str, *args: Any) -> str:
    """How a task fails."""
    status, error = site.outcome(site.send(task, *args))
    assert status == "FAILURE", error
    return f"{type(error).__name__}: {error}"


WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("auto_close_jobs", ("tomorrow",), "day: 'tomorrow' is no day, as 2026-03-01"),
    ("auto_close_jobs", (None,), "day: None is no day"),
    ("auto_close_jobs", (DAY, ["c1"]), "client_id: a value of type list is no text"),
    ("auto_close_jobs", (DAY, "c\0"), "client_id: has a letter that is none"),
    ("create_ppm_job", (1, "9999-12-31"), "day: 9999-12-31 has no day after it"),
    ("create_scheduled_reports", ("open_jobs", {"day": DAY, "title": "\0"}, 1), "title: has a"),
    ("ticket_escalation", ("2026-02-30",), "day: '2026-02-30' is no day"),
    ("create_ppm_job", (4711, DAY), "there is no active recurring job 4711"),
    ("create_ppm_job", ("x", DAY), "schedule_id: 'x' is no id"),
    ("create_ppm_job", (1, "soon"), "'soon' is neither a date nor YYYY-MM-DD"),
    ("create_scheduled_reports", ("secrets", {"day": DAY}, 1), "report_name: 'secrets' is none"),
    ("create_scheduled_reports", ("open_jobs", {"day": DAY}, 1, "exe"), "format: 'exe' is none"),
    ("create_scheduled_reports", ("open_jobs", ["day"], 1), "params: a value of type list"),
    ("create_scheduled_reports", ("open_jobs", {"dya": DAY}, 1), "params: 'dya' is none of day"),
    ("create_scheduled_reports", ("open_jobs", {}, 1), "day: None is no day"),
    ("create_scheduled_reports", ("../etc/passwd", {"day": DAY}, 1), "is none of"),
    ("create_scheduled_reports", ("open_jobs", {"day": DAY}, "anna"), "user_id: 'anna' is no id"),
    (MAIL, ("anna", "job_closed", {}), "recipient_email: is no single e-mail address"),
    (MAIL, (CONTACT, "no_such", {}), "template_name: 'no_such' is none of job_closed"),
    (MAIL, (CONTACT, "job_closed", {"job": "x"}), "context: lacks 'job_id'"),
    (
        MAIL,
        (CONTACT, "job_closed", {"job": "x", "job_id": 1, "day": "\ud800"}),
        "day: has a letter",
    ),
    (MAIL, (CONTACT, "job_closed", "x"), "context: a value of type str is no object"),
]


def test_wrong_arguments_fail_at_once_and_say_what_is_wrong(facility: Facility, site: Site) -> None:
    site.start(concurrency=2)
    for task, args, told in WRONG:
        assert told in failed(site, task, *args), (task, args)
    site.settle()
    assert facility.inbox.mails() == []
    assert facility.outbox() == facility.ppm_jobs() == {}
    assert list(facility.reports.iterdir()) == []


def test_a_conflict_on_the_asset_is_told_and_what_was_in_the_way_may_be_removed(
    facility: Facility, site: Site
) -> None:
    site.start(concurrency=1)
    first, second = facility.add_recurring("pump"), facility.add_recurring("pump")
    day = "2040-03-01"
    site.result(site.send("create_ppm_job", first, day))
    facility.rows("UPDATE facility.recurring_job SET contact = 'b@example.org' WHERE id = %s"
                  " RETURNING id", second)  # fmt: skip
    told = failed(site, "create_ppm_job", second, day)
    assert ScheduleConflict.__name__ in told and "pump" in told
    assert facility.ppm_jobs() == {first: 1}
    facility.rows("UPDATE public.schedule SET status = 'CANCELLED' RETURNING id")
    made = site.result(site.send("create_ppm_job", second, day))
    assert made["schedule_id"] == second
    assert facility.ppm_jobs() == {first: 1, second: 1}


def test_a_mail_that_the_server_refuses_for_good_is_not_tried_again(
    facility: Facility, site: Site
) -> None:
    tries: list[str] = []

    def refuse(mail: Received) -> str:
        tries.append(mail.message_id)
        return "554 no"

    facility.inbox.answer = refuse
    site.start(concurrency=1)
    context = {"job": "filters", "job_id": 1, "day": DAY}
    told = failed(site, MAIL, CONTACT, "job_closed", context)
    assert told.startswith(MailRefused.__name__) and CONTACT not in told
    assert "refuses it for good (reply 554)" in told
    assert len(tries) == 1
    facility.inbox.answer = lambda _: "250 OK"
    assert site.result(site.send(MAIL, CONTACT, "job_closed", context))["sent"] is True
