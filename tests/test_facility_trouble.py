"""A process that dies, or an attempt that fails, just before or after its effect is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from idemwatch.demo import trouble
from support.facility import DAY, Facility, open_facility
from support.facility_site import Site, open_site

pytestmark = pytest.mark.worker

KINDS = (trouble.DIES_BEFORE, trouble.DIES_AFTER, trouble.FAILS)
PPM_DAY = "2040-03-01"


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


def one_of_each(facility: Facility, number: int) -> list[tuple[str, tuple[Any, ...]]]:
    """The four tasks with effects in PostgreSQL, each with one piece of work."""
    client = f"client-{number}"
    facility.add_job(client)
    facility.add_ticket(client)
    recurring = facility.add_recurring(f"pump-{number}")
    return [
        ("auto_close_jobs", (DAY, client)),
        ("ticket_escalation", (DAY, client)),
        ("create_ppm_job", (recurring, PPM_DAY)),
        ("create_scheduled_reports", ("open_jobs", {"day": DAY}, number, "csv")),
    ]


def test_an_effect_in_postgresql_happens_once_wherever_its_process_dies(
    facility: Facility, site: Site
) -> None:
    site.start(concurrency=2, app="support.troubled_app")
    numbers, sent = count(1), list[tuple[str, str]]()
    for kind in KINDS:
        for task, args in one_of_each(facility, next(numbers)):
            sent.append((task, site.send(task, *args, headers={trouble.HEADER: kind})))
    results = [(task, site.result(task_id)) for task, task_id in sent]
    site.settle()

    once = [1] * len(KINDS)
    assert sorted(facility.closings().values()) == once
    assert sorted(facility.steps().values()) == once
    assert sorted(facility.ppm_jobs().values()) == once
    assert facility.outbox() == {"job_closed": len(KINDS), "ticket_escalated": len(KINDS)}
    written = facility.rows("SELECT count(*), count(DISTINCT user_id) FROM facility.report")
    assert written == [(len(KINDS), len(KINDS))]
    # Each process that should die did, each key was taken over, and each attempt that should fail.
    deaths = 2 * 4
    assert facility.rows("SELECT count(*) FROM death") == [(deaths,)]
    taken_over: Counter[str] = Counter()
    for task in {task for task, _ in sent}:
        taken_over += site.claims(task)
    assert taken_over["taken_over"] == deaths
    assert all(result for _, result in results)
