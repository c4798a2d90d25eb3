"""The app's beat_schedule in the beat's table: added, changed, taken out, and left as moved."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.schedules import crontab
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.beat import Scheduler
from idemwatch.scheduler.changes import Change
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.schedule_store import ScheduleStore
from idemwatch.scheduler.sync_store import entries_of, sync


@pytest.fixture
def store(link: PostgresLink) -> ScheduleStore:
    return ScheduleStore(link)


def app_with(redis_url: str, database_url: str, **entries: Any) -> Celery:
    app = Celery("synced", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(
        idempotency_database_url=database_url, beat_schedule=entries, timezone="Europe/Paris"
    )
    return app


def entry(task: str = "t", schedule: Any = 60.0, **changed: Any) -> dict[str, Any]:
    return {"task": task, "schedule": schedule, **changed}


def rows(database_url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT identifier, cron_expression, timezone, status FROM schedule ORDER BY id"
        ).fetchall()


def execute(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def start(redis_url: str, database_url: str, **entries: Any) -> None:
    """A beat of this app starts."""
    beat = Scheduler(app=app_with(redis_url, database_url, **entries))
    beat.tick()
    assert beat._synced, beat._trouble
    beat.close()


def test_entries_are_added_once_and_fire(redis_url: str, database_url: str) -> None:
    entries = {
        "every": entry(schedule=timedelta(minutes=1), args=(1,), options={"queue": "q"}),
        "nightly": entry(schedule=crontab(minute=5, hour=2)),
    }
    for _ in range(2):
        start(redis_url, database_url, **entries)
    assert rows(database_url) == [
        ("every", "every 60s", "UTC", "PENDING"),
        ("nightly", "5 2 * * *", "Europe/Paris", "PENDING"),
    ]


def test_a_changed_entry_is_changed_and_one_that_is_gone_is_cancelled(
    redis_url: str, database_url: str
) -> None:
    start(redis_url, database_url, a=entry(schedule=crontab(minute=5)), b=entry("b"))
    start(redis_url, database_url, a=entry(schedule=crontab(minute=6)), c=entry("c"))
    assert [(name, text, status) for name, text, _, status in rows(database_url)] == [
        ("a", "6 * * * *", "PENDING"),
        ("b", "every 60s", "CANCELLED"),
        ("c", "every 60s", "PENDING"),
    ]
    start(redis_url, database_url, b=entry("b"))
    assert [status for *_, status in rows(database_url)] == ["CANCELLED", "PENDING", "CANCELLED"]


def test_what_an_operator_moved_or_paused_stays_so_until_the_entry_changes(
    redis_url: str, database_url: str, store: ScheduleStore
) -> None:
    entries = {"a": entry(schedule=crontab(minute=5)), "b": entry("b")}
    start(redis_url, database_url, **entries)
    one = store.schedules().schedules[0]
    after = replace(one, timing=timing_of("9 * * * *", "celery"), unmoved=one.timing)
    store.apply([Change(one, after, "move")], "me")
    execute(database_url, "UPDATE schedule SET status = 'PAUSED' WHERE identifier = 'b'")
    start(redis_url, database_url, **entries)
    told = [(text, status) for _, text, _, status in rows(database_url)]
    assert told == [("9 * * * *", "PENDING"), ("every 60s", "PAUSED")]
    start(redis_url, database_url, **{**entries, "a": entry(schedule=crontab(minute=6))})
    assert rows(database_url)[0][1] == "6 * * * *"
    assert store.schedules().schedules[0].unmoved is None


def test_what_others_put_into_the_table_is_left_alone(
    redis_url: str, database_url: str, store: ScheduleStore
) -> None:
    theirs = Schedule(id="x", name="theirs", task="t", timing=timing_of("every 60s"))
    store.insert([theirs])
    start(redis_url, database_url, a=entry())
    start(redis_url, database_url)
    assert rows(database_url) == [("theirs", "every 60s", "UTC", "PENDING")]


def test_an_entry_that_no_table_can_hold_is_told_and_the_others_are_kept(
    redis_url: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    start(redis_url, database_url, bad=entry(schedule="nonsense"), good=entry("g"))
    assert [name for name, *_ in rows(database_url)] == ["good"]
    assert "an entry of beat_schedule never fires: beat: bad" in caplog.text


def test_a_backend_that_expires_nothing_gets_celerys_cleanup(
    redis_url: str, database_url: str
) -> None:
    app = app_with(redis_url, database_url)
    assert entries_of(app) == []
    app = Celery("synced", broker=redis_url, backend="file:///tmp", set_as_current=False)
    app.conf.update(idempotency_database_url=database_url, timezone="Europe/Paris")
    (one,) = entries_of(app)
    assert (one.task, one.zone, one.options) == (
        "celery.backend_cleanup",
        "Europe/Paris",
        '{"expires":43200}',
    )


def test_it_may_be_turned_off(redis_url: str, database_url: str) -> None:
    app = app_with(redis_url, database_url, a=entry())
    app.conf.idempotency_sync_beat_schedule = False
    beat = Scheduler(app=app)
    beat.tick()
    beat.close()
    assert rows(database_url) == []


def test_beats_that_start_at_once_add_each_entry_once(
    redis_url: str, database_url: str, link: PostgresLink
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    given = entries_of(
        app_with(redis_url, database_url, **{f"e{n}": entry(f"t{n}") for n in range(20)})
    )

    def begin(_: int) -> None:
        own = PostgresLink(database_url)
        sync(own, given)
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(16)))
    assert len(rows(database_url)) == 20
