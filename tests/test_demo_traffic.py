"""The traffic: what is published, and the process that does it by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import psycopg
import pytest
import redis
from idemwatch.demo import facility_store, trouble
from idemwatch.demo.ledger import FACILITY, MAIL, Ledger
from idemwatch.demo.traffic import PATTERNS, Pattern
from idemwatch.demo.verdict import without_repeated_mail
from idemwatch.demo.works import CLOSE, LANE, Work, letter
from idemwatch.idempotency.migrate import upgrade
from support.stores import wait_until

COMMAND = (sys.executable, "-m", "idemwatch.demo.traffic_command")


@pytest.fixture
def facility_url(database_url: str) -> str:
    """A database with the tables of the facility application."""
    upgrade(database_url, "facility")
    return database_url


def works(pattern: Pattern, unsettled: frozenset[str] = frozenset()) -> Iterator[Work]:
    """Tick after tick, as if each piece of work had its effect at once."""
    while True:
        yield from pattern.next(set(unsettled))


@pytest.mark.parametrize("name", PATTERNS)
def test_two_processes_of_traffic_never_name_the_same_work(name: str) -> None:
    one, other = (
        {work.name for work in islice(works(PATTERNS[name](lane)), 500)} for lane in (1, 2)
    )
    assert len(one) == len(other) == 500
    assert not one & other


@pytest.mark.parametrize("name", PATTERNS)
def test_a_slow_worker_gets_no_endless_backlog(name: str) -> None:
    pattern, unsettled = PATTERNS[name](1), set[str]()
    for _ in range(500):
        unsettled |= {work.name for work in pattern.next(unsettled)}
    assert len(unsettled) <= 110


def test_calm_is_one_duplicate_in_a_hundred() -> None:
    assert Counter(work.messages for work in islice(works(PATTERNS["calm"](1)), 1000)) == {
        1: 990,
        2: 10,
    }


def test_calm_brings_no_trouble_and_mixed_brings_all_of_it() -> None:
    def met(name: str) -> set[str]:
        return {work.trouble for work in islice(works(PATTERNS[name](1)), 500)}

    assert met("calm") == met("duplicates") == {""}
    every = {trouble.DIES_BEFORE, trouble.DIES_AFTER, trouble.FAILS, trouble.SLOW}
    assert met("mixed") == {"", *every}


def test_a_storm_is_all_duplicates() -> None:
    assert {work.messages for work in islice(works(PATTERNS["duplicates"](1)), 100)} == {4}


def test_the_first_number_of_a_lane_is_far_from_the_numbers_of_schedules() -> None:
    work = next(work for work in works(PATTERNS["calm"](3)) if work.task == CLOSE)
    assert work.number == 3 * LANE + 1


def test_by_itself_it_publishes_until_it_is_told_to_end(facility_url: str, redis_url: str) -> None:
    env = {
        **os.environ,
        "IDEMWATCH_DATABASE_URL": facility_url,
        "IDEMWATCH_NAMESPACE": "traffic",
        "CELERY_BROKER_URL": redis_url,
    }
    ledger = Ledger(facility_url)
    with subprocess.Popen(COMMAND, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: ledger.published().traffic_messages > 0)
            wait_until(lambda: _waiting(redis_url) > 0)
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    published = ledger.published().traffic_messages
    ledger.close()
    assert process.returncode == 0, err
    assert _waiting(redis_url) == published


def _waiting(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("traffic:traffic"))


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ((), {}, "idempotency_database_url"),
        (("--pattern", "wild"), {}, "'mixed', 'calm', 'duplicates'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tables_may_be_made_by_many_at_once(facility_url: str) -> None:
    first = Ledger(facility_url)
    second = Ledger(facility_url)
    assert first.new_lane() != second.new_lane()
    with psycopg.connect(facility_url, autocommit=True) as connection:
        connection.execute("INSERT INTO effect (work, task_id) VALUES ('a', '1'), ('a', '2')")
    assert first.effects() == {"a": 2}
    assert second.happened(["a", "b"]) == {"a"}
    first.close()
    second.close()


def test_every_double_of_the_facility_is_counted(facility_url: str) -> None:
    ledger = Ledger(facility_url)
    with psycopg.connect(facility_url, autocommit=True) as connection:
        for twice in (1, 2):
            connection.execute(ADD_ALL.encode(), prepare=False)
            counted = ledger.effects()
            assert counted == {f"{task}:7": twice for task in (*FACILITY, MAIL)}
            assert ledger.happened([*counted, f"{CLOSE}:8", f"{MAIL}:8"]) == set(counted)
            assert ledger.published().effects == 5 * twice
    ledger.close()


ADD_ALL = """
INSERT INTO facility.job (id, identifier, client_id, contact, fromdate, uptodate)
VALUES (7, '', '', '', now(), now()) ON CONFLICT DO NOTHING;
INSERT INTO facility.ticket (id, title, client_id, contact, due_on)
VALUES (7, '', '', '', now()) ON CONFLICT DO NOTHING;
INSERT INTO facility.recurring_job (id, identifier, cron_expression, asset_id, client_id, contact)
VALUES (7, '', '', '', '', '') ON CONFLICT DO NOTHING;
INSERT INTO facility.job_closing (job_id, day) VALUES (7, now());
INSERT INTO facility.ticket_escalation (ticket_id, level, day) VALUES (7, 1, now());
INSERT INTO facility.job (identifier, client_id, contact, fromdate, uptodate, recurring_job_id)
VALUES ('', '', '', now(), now(), 7);
INSERT INTO facility.report (name, params, user_id, format, path, record_count)
VALUES ('', '{}', 7, '', '', 0);
INSERT INTO mail (message_id, subject) VALUES ('7', '');
"""


def test_mail_that_was_repeated_by_a_take_over_is_no_double_and_any_other_is() -> None:
    effects = {f"{MAIL}:a": 2, f"{MAIL}:b": 1, f"{CLOSE}:1": 2}
    assert without_repeated_mail(effects, 1) == ({**effects, f"{MAIL}:a": 1}, 1)
    assert without_repeated_mail(effects, 0) == (effects, 1)


def test_mail_of_the_outbox_is_published_by_one_relay(facility_url: str) -> None:
    with psycopg.connect(facility_url) as one, psycopg.connect(facility_url) as other:
        facility_store.add_mail(one, "a@example.org", "job_due", {"job": "j"})
        one.commit()
        (row,) = facility_store.waiting_mail(one)
        assert letter(row).args == ("a@example.org", "job_due", {"job": "j"})
        assert facility_store.waiting_mail(other) == []
        one.rollback()  # it died before it could say so: the next one publishes the same work
        (again,) = facility_store.waiting_mail(other)
        assert letter(again).name == letter(row).name
        facility_store.mail_published(other, again["id"])
        other.commit()
        assert facility_store.waiting_mail(one) == []
