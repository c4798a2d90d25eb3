"""The table of schedules on a real PostgreSQL: filled once, changed as a whole, put back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.changes import Change, without_duplicates
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.errors import (
    InvalidSchedule,
    ScheduleChanged,
    ScheduleConflict,
    UnknownChange,
)
from idemwatch.scheduler.identity import schedule_hash
from idemwatch.scheduler.model import CatchUp, Overlap, Schedule, Status
from idemwatch.scheduler.occurrences import Moments
from idemwatch.scheduler.schedule_store import ScheduleStore
from idemwatch.scheduler.sources import read_source

DATA = Path(__file__).parent / "data"
SUNRISE = Moments(
    (datetime(2026, 1, 1, 7, tzinfo=UTC), datetime(2026, 1, 2, 7, tzinfo=UTC)), "sunrise"
)


@pytest.fixture
def store(link: PostgresLink) -> ScheduleStore:
    return ScheduleStore(link)


def schedule(name: str = "a", text: str = "0 0 * * *", **changed: Any) -> Schedule:
    return Schedule(id=name, name=name, task=f"task.{name}", timing=timing_of(text), **changed)


def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def stored(store: ScheduleStore, *schedules: Schedule) -> list[Schedule]:
    store.insert(schedules)
    return list(store.schedules().schedules)


def moved(one: Schedule, text: str) -> Change:
    after = replace(one, timing=timing_of(text), unmoved=one.anchor)
    return Change(one, after, "move")


WHOLE = Schedule(
    id="1",
    name="whole",
    task="reports.make",
    timing=timing_of("15 2 * * 1-5", "celery"),
    zone="America/New_York",
    args='["a",1]',
    kwargs='{"key":"v\\u0000"}',
    options='{"queue":"q"}',
    duration=timedelta(seconds=90),
    asset_id="pump",
    client_id="acme",
    status=Status.PAUSED,
    fromdate=datetime(2026, 1, 1, tzinfo=UTC),
    uptodate=datetime(2027, 1, 1, tzinfo=UTC),
    priority=3,
    movable=False,
    window=timedelta(minutes=30),
    unmoved=timing_of("0 2 * * 1-5", "celery"),
    misfire_grace=timedelta(seconds=5),
    catch_up=CatchUp.ALL,
    overlap=Overlap.QUEUE_ONE,
)


def test_a_schedule_comes_back_as_it_was_written(store: ScheduleStore) -> None:
    (found,) = stored(store, WHOLE)
    assert replace(found, id="1", place=None) == WHOLE


def test_an_interval_and_a_single_run_have_rows_too(store: ScheduleStore) -> None:
    when = datetime(2026, 5, 1, 8, tzinfo=UTC)
    once = Schedule(id="once", name="once", task="t", timing=Moments((when,)), fromdate=when)
    every = schedule("every", "every 300s")
    found = stored(store, every, once)
    assert [one.timing for one in found] == [every.timing, once.timing]


def test_what_no_expression_tells_is_refused_and_nothing_is_written(store: ScheduleStore) -> None:
    by_sun = replace(schedule("sun"), timing=SUNRISE)
    with pytest.raises(InvalidSchedule, match="sunrise"):
        store.insert([schedule(), by_sun])
    assert store.schedules().schedules == ()


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.csv")))
def test_each_inventory_is_in_the_table_once_however_often_it_is_added(
    store: ScheduleStore, name: str
) -> None:
    given = read_source(str(DATA / f"{name}.csv"), app=None, settings=Settings()).schedules
    assert all(store.insert(given))
    assert not any(store.insert(given))
    found = store.schedules()
    assert [schedule_hash(one) for one in found.schedules] == [schedule_hash(one) for one in given]
    assert found.problems == ()


def test_the_same_meaning_twice_in_one_call_is_added_once(store: ScheduleStore) -> None:
    again = replace(schedule("b", "@daily"), task="task.a")
    assert store.insert([schedule(), again, schedule("c")]) == [True, False, True]


def test_a_cancelled_or_paused_one_does_not_come_back(store: ScheduleStore) -> None:
    for status in (Status.PAUSED, Status.CANCELLED):
        one = schedule(status.lower(), status=status)
        assert store.insert([one]) == [True]
        assert store.insert([replace(one, status=Status.PENDING)]) == [False]


def test_fifty_at_once_leave_one_row(store: ScheduleStore, database_url: str) -> None:
    def add(_: int) -> bool:
        link = PostgresLink(database_url)
        try:
            return ScheduleStore(link).insert([schedule()])[0]
        finally:
            link.close()

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(add, range(50))) == 1
    assert len(store.schedules().schedules) == 1


def test_a_row_that_somebody_spoilt_is_a_problem_and_the_rest_is_read(
    store: ScheduleStore, database_url: str
) -> None:
    stored(store, schedule("a"), schedule("b"), schedule("c"))
    execute(database_url, "UPDATE schedule SET cron_expression = 'x' WHERE identifier = 'b'")
    execute(database_url, "UPDATE schedule SET args = '{}' WHERE identifier = 'c'")
    found = store.schedules()
    assert [one.name for one in found.schedules] == ["a"]
    assert ["(b)" in found.problems[0].schedule, "(c)" in found.problems[1].schedule] == [True] * 2


# -- what the database itself refuses --------------------------------------------------------------

ROW = "INSERT INTO schedule (identifier, task, schedule_hash, {0}) VALUES ('i', 't', %s, {1})"


@pytest.mark.parametrize(
    ("columns", "values", "constraint"),
    [
        ("is_recurring", "true", "schedule_recurring_has_cron"),
        ("cron_expression", "''", "schedule_recurring_has_cron"),
        ("cron_expression", "NULL", "schedule_recurring_has_cron"),
        ("is_recurring", "false", "schedule_single_has_fromdate"),
        ("cron_expression, fromdate, uptodate", "'x', now(), now()", "schedule_ends_after"),
        ("cron_expression, dialect", "'x', 'moon'", "schedule_dialect"),
        ("cron_expression, status", "'x', 'DONE'", "schedule_status"),
        ("cron_expression, next_due_at", "'x', '-infinity'", "schedule_next_due_at"),
        ("cron_expression, priority", "'x', 10", "schedule_priority"),
    ],
)
def test_the_database_refuses_a_row_that_makes_no_sense(
    database_url: str, columns: str, values: str, constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        execute(database_url, ROW.format(columns, values), "h")


def test_the_database_refuses_a_second_active_schedule_of_one_meaning(database_url: str) -> None:
    row = ROW.format("cron_expression, status", "'@daily', %s")
    for status in ("PENDING", "CANCELLED", "CANCELLED", "PAUSED"):
        execute(database_url, row, "h", status)
    with pytest.raises(psycopg.errors.UniqueViolation, match="schedule_active_hash"):
        execute(database_url, row, "h", "IN_PROGRESS")


# -- changes ---------------------------------------------------------------------------------------


def test_changes_are_written_with_their_entry_and_put_back(store: ScheduleStore) -> None:
    before = stored(store, schedule("a"), schedule("b"))
    change_id = store.apply([moved(before[0], "15 0 * * *")], "me")
    changed = store.schedules().schedules
    assert changed[0].timing == timing_of("15 0 * * *") and changed[0].anchor == before[0].timing
    assert changed[1] == before[1]
    (record,) = store.changes()
    assert (record.change_id, record.by, record.reverted_by) == (change_id, "me", None)
    assert [str(one) for one in record.changes] == ["a: 0 0 * * * -> 15 0 * * *"]
    back = store.revert(change_id, "you")
    assert list(store.schedules().schedules) == before
    assert [(one.change_id, one.reverted_by) for one in store.changes()] == [
        (back, None),
        (change_id, back),
    ]
    store.revert(back, "me")
    assert store.schedules().schedules == changed


def test_a_change_is_reverted_once(store: ScheduleStore) -> None:
    (one,) = stored(store, schedule())
    change_id = store.apply([moved(one, "15 0 * * *")], "me")
    store.revert(change_id, "me")
    with pytest.raises(UnknownChange, match="already"):
        store.revert(change_id, "me")
    with pytest.raises(UnknownChange, match="none of this id"):
        store.revert(change_id + 99, "me")


def test_changes_are_made_all_or_none(store: ScheduleStore, database_url: str) -> None:
    first, second = stored(store, schedule("a"), schedule("b"))
    execute(database_url, "UPDATE schedule SET cron_expression = '5 5 * * *' WHERE id = 2")
    with pytest.raises(ScheduleChanged) as caught:
        store.apply([moved(first, "15 0 * * *"), moved(second, "20 0 * * *")], "me")
    assert caught.value.ids == (second.id,)
    assert store.schedules().schedules[0] == first and store.changes() == []


def test_a_schedule_that_was_changed_since_is_not_put_back(
    store: ScheduleStore, database_url: str
) -> None:
    first, second = stored(store, schedule("a"), schedule("b"))
    change_id = store.apply([moved(first, "15 0 * * *"), moved(second, "20 0 * * *")], "me")
    execute(database_url, "UPDATE schedule SET status = 'PAUSED' WHERE id = 2")
    with pytest.raises(ScheduleChanged):
        store.revert(change_id, "me")
    assert store.schedules().schedules[0].timing == timing_of("15 0 * * *")


def test_two_schedules_may_change_places(store: ScheduleStore) -> None:
    one, other = schedule("a"), replace(schedule("b", "5 0 * * *"), task="task.a")
    first, second = stored(store, one, other)
    store.apply([moved(first, "5 0 * * *"), moved(second, "0 0 * * *")], "me")
    assert [s.timing for s in store.schedules().schedules] == [other.timing, one.timing]


def test_a_change_to_what_another_means_is_refused_by_its_name(store: ScheduleStore) -> None:
    one, other = schedule("a"), replace(schedule("b", "5 0 * * *"), task="task.a")
    first, second = stored(store, one, other)
    with pytest.raises(ScheduleConflict, match=r"duplicate of schedule 2 \(b\)"):
        store.apply([moved(first, "5 0 * * *")], "me")
    with pytest.raises(ScheduleConflict, match="the same change"):
        store.apply([moved(first, "9 0 * * *"), moved(second, "9 0 * * *")], "me")
    assert list(store.schedules().schedules) == [first, second]


def test_duplicates_are_cancelled_but_for_the_oldest(
    store: ScheduleStore, database_url: str
) -> None:
    row = ROW.format("cron_expression, timezone", "%s, 'UTC'")
    for number, text in enumerate(("@daily", "00 00 * * *", "0 1 * * *", "0 0 1-31 * *")):
        execute(database_url, row, f"by hand {number}", text)
    found = store.schedules().schedules
    store.apply(without_duplicates(found), "me")
    kept = [one.status for one in store.schedules().schedules]
    assert kept == [Status.PENDING, Status.CANCELLED, Status.PENDING, Status.CANCELLED]


def test_a_database_that_goes_away_leaves_all_as_it_was(
    store: ScheduleStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idemwatch.scheduler import schedule_sql as module

    before = stored(store, schedule("a"))
    monkeypatch.setattr(
        module, "NOTE", "SELECT pg_terminate_backend(pg_backend_pid()), %(change)s::bigint"
    )
    with pytest.raises(StoreUnavailable):
        store.apply([moved(before[0], "15 0 * * *")], "me")
    fresh = PostgresLink(database_url)
    assert list(ScheduleStore(fresh).schedules().schedules) == before
    fresh.close()


def test_a_change_by_any_hand_is_planned_again(store: ScheduleStore, database_url: str) -> None:
    stored(store, schedule())

    def planned(change: str) -> bool:
        execute(database_url, "UPDATE schedule SET next_due_at = now()")
        (was,) = execute(database_url, "SELECT updated_at FROM schedule")
        execute(database_url, f"UPDATE schedule SET {change}")
        ((after, due),) = execute(database_url, "SELECT updated_at, next_due_at FROM schedule")
        assert after > was[0]
        return due is not None

    assert planned("identifier = 'other'") and planned("args = '[1]'")
    for change in ("cron_expression = '1 1 * * *'", "timezone = 'Asia/Tokyo'", "status = 'PAUSED'"):
        assert not planned(change)


def test_a_change_and_its_reversal_mean_what_the_row_has_become_meanwhile(
    store: ScheduleStore, database_url: str
) -> None:
    (one,) = stored(store, schedule())
    execute(database_url, "UPDATE schedule SET args = '[1]'")
    change_id = store.apply([moved(one, "15 0 * * *")], "me")

    def true_hash() -> bool:
        ((kept,),) = execute(database_url, "SELECT schedule_hash FROM schedule")
        return bool(kept == schedule_hash(store.schedules().schedules[0]))

    assert true_hash()
    execute(database_url, "UPDATE schedule SET args = '[2]'")
    store.revert(change_id, "me")
    assert true_hash()


def test_the_changes_of_a_row_that_somebody_spoilt_hide_no_others(
    store: ScheduleStore, database_url: str
) -> None:
    for one in stored(store, schedule("a"), schedule("b")):
        store.apply([moved(one, "15 0 * * *")], "me")
    execute(database_url, "UPDATE schedule SET args = '{}' WHERE identifier = 'a'")
    assert [len(one.changes) for one in store.changes()] == [1, 0]


def test_after_a_failover_the_next_transaction_finds_the_new_server(
    store: ScheduleStore, link: PostgresLink, database_url: str
) -> None:
    link.run(lambda connection: connection.execute("SET default_transaction_read_only = on"))
    with pytest.raises(StoreUnavailable):
        store.insert([schedule()])
    assert store.insert([schedule()]) == [True]
    with link.connection(), link.connection():
        pass
    gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
    execute(database_url, f"{gone} current_database() AND pid <> pg_backend_pid()")
    with pytest.raises(StoreUnavailable):
        store.insert([schedule("b")])
    assert store.insert([schedule("b")]) == [True]
