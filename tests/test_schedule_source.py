"""The schedules that the exporter reads again and again: the same while nothing has changed."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from celery import Celery
from idemwatch.exporter import schedule_source
from idemwatch.exporter.schedule_source import DURATIONS_SECONDS, ScheduleSource
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.schedule_store import ScheduleStore

RUN = """
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, result_type, created_at, completed_at, expires_at)
VALUES (%(key)s, 't.nightly', 'global', 'h', 'postgres', 'done', 'o', 'i', 0, 1, now(), '',
        now() - %(took)s::interval, now(), now() + interval '1 day')
"""


class Setting:
    """The beat_schedule of an app, whose task leaves records in a database."""

    def __init__(self, link: PostgresLink, url: str) -> None:
        self.now = 0.0
        self.url = url
        self.app = Celery("tests.source", set_as_current=False)
        self.app.conf.beat_schedule = {"nightly": {"task": "t.nightly", "schedule": 60.0}}
        self.source = ScheduleSource(
            "beat", app=self.app, settings=Settings(database_url=url), link=link,
            clock=lambda: self.now,
        )  # fmt: skip

    def ran(self, took: timedelta) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DELETE FROM idempotency_record")
            connection.execute(RUN, {"key": "idemwatch:one", "took": took})

    def duration(self) -> timedelta:
        (one,) = self.source.read().schedules
        return timedelta(seconds=round(one.duration.total_seconds()))


@pytest.fixture
def setting(link: PostgresLink, database_url: str) -> Setting:
    return Setting(link, database_url)


def test_durations_are_measured_and_gone_by_for_ten_minutes(setting: Setting) -> None:
    setting.ran(timedelta(seconds=7))
    assert setting.duration() == timedelta(seconds=7)
    setting.ran(timedelta(seconds=9))
    setting.now += DURATIONS_SECONDS - 1
    assert setting.duration() == timedelta(seconds=7)
    setting.now += 2
    assert setting.duration() == timedelta(seconds=9)


def test_a_new_task_is_measured_at_once(setting: Setting) -> None:
    setting.app.conf.beat_schedule = {"other": {"task": "t.other", "schedule": 60.0}}
    setting.source.read()
    setting.ran(timedelta(seconds=7))
    setting.app.conf.beat_schedule = {"nightly": {"task": "t.nightly", "schedule": 60.0}}
    assert setting.duration() == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("created", "completed", "seconds"),
    [
        ("now()", "NULL", 60),
        ("now()", "'infinity'", 60),
        ("'-infinity'", "now()", 60),
        ("'infinity'", "now()", 60),
        ("now()", "'-infinity'", 60),
        ("'-infinity'", "'infinity'", 60),
        ("'4000-01-01 BC'", "'290000-01-01'", 60),
        ("now()", "now() - interval '1 year'", 0.001),
        ("now()", "now() + interval '1000 years'", 31 * 86400),
    ],
)
@pytest.mark.parametrize("source", ["table", "beat"])
def test_a_record_with_times_of_no_sense_costs_no_memory_and_no_schedule(
    setting: Setting, link: PostgresLink, created: str, completed: str, seconds: float, source: str
) -> None:
    """A run of a thousand years in the load map once took all the memory of its host."""
    setting.ran(timedelta(seconds=7))
    ScheduleStore(link).insert(
        [schedule_of({"identifier": "one", "task": "t.nightly", "cron_expression": "0 0 * * *"})]
    )
    with psycopg.connect(setting.url, autocommit=True) as connection:
        connection.execute(
            f"UPDATE idempotency_record SET created_at = {created}, completed_at = {completed}"
        )
        connection.execute(
            "INSERT INTO schedule_firing (schedule_id, due_at, outcome, publish_until, record_key) "
            "SELECT id, now(), 'fired', now(), 'one' FROM schedule"
        )
    settings = Settings(database_url=setting.url)
    found = ScheduleSource(source, app=setting.app, settings=settings, link=link).read()
    assert [one.duration for one in found.schedules] == [timedelta(seconds=seconds)]


def test_durations_of_before_stay_while_the_database_is_away(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.ran(timedelta(seconds=7))
    setting.source.read()

    def away(*_: object) -> None:
        raise StoreUnavailable("postgres", "away")

    monkeypatch.setattr(schedule_source, "durations_on", away)
    setting.now += DURATIONS_SECONDS + 1
    assert setting.duration() == timedelta(seconds=7)


def test_the_table_gives_the_very_same_while_no_row_has_changed(
    link: PostgresLink, database_url: str
) -> None:
    settings = Settings(database_url=database_url)
    source = ScheduleSource(None, app=None, settings=settings, link=link)
    first = source.read()
    assert isinstance(first, Inventory) and first.source == "table"
    assert source.read() is first


def test_the_table_that_is_away_is_no_empty_inventory(database_url: str) -> None:
    link = PostgresLink("postgresql://u@127.0.0.1:1/db")
    source = ScheduleSource(None, app=None, settings=Settings(database_url=database_url), link=link)
    source.check()
    with pytest.raises(StoreUnavailable):
        source.read()
