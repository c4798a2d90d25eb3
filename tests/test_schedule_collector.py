"""What is told of schedules: from the table or any source, and no more work than there is news."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from idemwatch.exporter import schedule_collector
from idemwatch.exporter.schedule_collector import ScheduleCollector
from idemwatch.exporter.schedule_runs_store import FIRINGS_LOOKED_AT, SUCCESSES
from idemwatch.exporter.table_reader import TableReader
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.csv_source import read_csv
from idemwatch.scheduler.gauges import MOST_SCHEDULES
from idemwatch.scheduler.health import health
from idemwatch.scheduler.inventory import Inventory, Problem
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.place import Place
from idemwatch.scheduler.schedule_store import ScheduleStore
from support.inventories import csv_file, mixed
from support.promtool import Series, faults, told
from support.stores import NAMESPACE, postgres_subject
from support.table import Table

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
CAPACITY = Capacity(14, "option")


class Fleet:
    """A source, a capacity and a clock that a test changes."""

    def __init__(self, schedules: Sequence[Schedule] = (), source: str = "fleet.csv") -> None:
        self.inventory = Inventory(source, tuple(schedules))
        self.capacity, self.now = CAPACITY, NOW

    def collector(self, link: PostgresLink | None = None) -> ScheduleCollector:
        return ScheduleCollector(
            lambda: self.inventory, lambda: self.capacity, link,
            zone="UTC", namespace=NAMESPACE, now=lambda: self.now,
        )  # fmt: skip


def schedule(name: str, expression: str | None = "0 0 * * *", **changed: Any) -> Schedule:
    return schedule_of({"identifier": name, "cron_expression": expression, **changed})


def by_schedule(series: Series) -> dict[str, float]:
    """Labels are in the order of their names: schedule, task."""
    return {key[0]: value for key, value in series.items()}


# -- any source ------------------------------------------------------------------------------------


def test_an_empty_source_has_its_series_at_0() -> None:
    found = told(Fleet().collector().collect())
    assert found["schedules"] == {("active",): 0, ("cancelled",): 0, ("paused",): 0}
    assert found["schedule_health_score"] == {(): 100}
    assert found["schedules_unreadable"] == {(): 0}
    assert len(found["schedule_load_ratio"]) == 48
    assert found["schedule_capacity"] == {("option",): 14}
    beats = {"schedules_overdue", "schedule_firings", "beats_live"}
    assert not beats & set(found), "those are another collector's"


def test_a_fleet_is_told_with_its_load_health_and_recommendations() -> None:
    fleet = Fleet([schedule(f"nightly {n}") for n in range(20)])
    found = told(fleet.collector().collect())
    assert found["schedule_hotspots"] == {(): 1}
    assert found["schedule_load_ratio"]["00:00",] == pytest.approx(20 / 14)
    before = found["schedule_recommendation_load_before_ratio"]
    after = found["schedule_recommendation_load_after_ratio"]
    assert before.keys() == after.keys() and 0 < len(before) <= 20
    assert {(reason, urgency) for _, reason, *_, urgency in before} == {("hotspot", "critical")}
    assert faults(fleet.collector().collect()) == ""


def test_rows_that_are_no_schedule_are_counted_and_cost_nothing_else() -> None:
    fleet = Fleet([schedule("good")])
    fleet.inventory = replace(
        fleet.inventory, problems=(Problem(Place("fleet.csv", 3), "it is none"),) * 2
    )
    found = told(fleet.collector().collect())
    assert found["schedules_unreadable"] == {(): 2}
    assert found["schedules"]["active",] == 1


def test_the_next_run_of_another_source_is_reckoned() -> None:
    fleet = Fleet([
        schedule("nightly"), schedule("hourly", "0 * * * *"),
        schedule("paused", status="PAUSED"), schedule("over", uptodate="2026-11-24T13:00:00Z"),
        schedule("once", None, is_recurring=False, fromdate="2026-11-25T08:00:00Z"),
        schedule("past", None, is_recurring=False, fromdate="2026-11-23T08:00:00Z"),
    ])  # fmt: skip
    collector = fleet.collector()
    due = by_schedule(told(collector.collect())["schedule_next_run_timestamp_seconds"])
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    assert due == {
        "nightly": midnight,
        "hourly": NOW.timestamp() + 1800,
        "once": midnight + 8 * 3600,
    }
    fleet.now += timedelta(minutes=31)
    due = by_schedule(told(collector.collect())["schedule_next_run_timestamp_seconds"])
    assert due["hourly"] == NOW.timestamp() + 5400, "what has passed is reckoned anew"


def test_a_schedule_that_was_moved_is_reckoned_anew() -> None:
    fleet = Fleet([schedule("one")])
    collector = fleet.collector()
    collector.collect()
    fleet.inventory = Inventory("fleet.csv", (schedule("one", "0 15 * * *"),))
    due = by_schedule(told(collector.collect())["schedule_next_run_timestamp_seconds"])
    assert due == {"one": NOW.timestamp() + 9000}


# -- the analysis is made once ---------------------------------------------------------------------


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """When an analysis was made."""
    made: list[datetime] = []

    def noted(schedules: Sequence[Schedule], now: datetime, **options: Any) -> Any:
        made.append(now)
        return health(schedules, now, **options)

    monkeypatch.setattr(schedule_collector, "health", noted)
    return made


def test_an_analysis_is_made_once_for_what_has_not_changed(analyses: list[datetime]) -> None:
    fleet = Fleet([schedule("one")])
    collector = fleet.collector()
    for _ in range(3):
        collector.collect()
        fleet.now += timedelta(minutes=5)
        fleet.inventory = Inventory("fleet.csv", (schedule("one"),))  # read anew, and the same
    assert analyses == [NOW.replace(minute=0)]


@pytest.mark.parametrize(
    "change",
    [
        lambda fleet: setattr(fleet, "now", NOW + timedelta(minutes=30)),
        lambda fleet: setattr(fleet, "capacity", Capacity(15, "option")),
        lambda fleet: setattr(fleet, "capacity", Capacity(14, "workers")),
        lambda fleet: setattr(fleet, "inventory", Inventory("f", (schedule("one", "@hourly"),))),
        lambda fleet: setattr(fleet, "inventory", Inventory("f")),
    ],
    ids=["the hour", "the capacity", "who said so", "a schedule", "their number"],
)
def test_an_analysis_is_made_anew_when_something_changed(
    analyses: list[datetime], change: Callable[[Fleet], None]
) -> None:
    fleet = Fleet([schedule("one")])
    collector = fleet.collector()
    collector.collect()
    change(fleet)
    collector.collect()
    assert len(analyses) == 2


def test_a_failed_analysis_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet([schedule("one")])
    collector = fleet.collector()
    with monkeypatch.context() as patch:
        patch.setattr(schedule_collector, "improvements", _fails)
        with pytest.raises(ZeroDivisionError):
            collector.collect()
    assert told(collector.collect())["schedules"]["active",] == 1


def _fails(*_: object, **__: object) -> None:
    raise ZeroDivisionError


def test_recommendations_that_hold_stay_when_others_come() -> None:
    crowd = [schedule(f"nightly {n}") for n in range(120)]
    fleet = Fleet(crowd)
    collector = fleet.collector()
    shown = set(told(collector.collect())["schedule_recommendation_load_before_ratio"])
    fleet.inventory = Inventory("f", (*crowd, schedule("other", "0 12 * * *")))
    again = set(told(collector.collect())["schedule_recommendation_load_before_ratio"])
    assert len(shown) == 50 and len(shown & again) > 40


def test_ten_thousand_schedules_cost_little_while_nothing_changes(tmp_path: Path) -> None:
    path = csv_file(tmp_path, mixed(10_000))
    fleet = Fleet()
    fleet.inventory = read_csv(path, Path(path).read_text())
    collector = fleet.collector()
    found = told(collector.collect())
    assert found["schedules"]["active",] == 10_000
    assert len(found["schedule_info"]) == MOST_SCHEDULES
    began = time.process_time()
    collector.collect()
    assert time.process_time() - began < 0.5  # 0.03 s where nothing else runs


# -- the table -------------------------------------------------------------------------------------


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


@pytest.fixture
def of_table(link: PostgresLink) -> ScheduleCollector:
    reader = TableReader(link)
    return ScheduleCollector(reader.read, lambda: CAPACITY, link, zone="UTC", namespace=NAMESPACE)


def test_the_runs_of_the_table_are_those_that_it_has(
    of_table: ScheduleCollector, link: PostgresLink, table: Table
) -> None:
    names = ("one", "two", "never", "paused", "strange")
    ScheduleStore(link).insert([schedule(name, task=name) for name in names])
    table.execute("UPDATE schedule SET status = 'PAUSED' WHERE identifier = 'paused'")
    for name, due, last in (
        ("one", "to_timestamp(5000)", "to_timestamp(4000)"),
        ("two", "to_timestamp(6000.5)", "NULL"),
        ("never", "'infinity'", "'-infinity'"),
        ("paused", "to_timestamp(1)", "to_timestamp(1)"),
        ("strange", "'20000-01-01'", "'0044-03-15 BC'"),
    ):
        table.execute(
            f"UPDATE schedule SET next_due_at = {due}, last_execution_at = {last} "
            f"WHERE identifier = '{name}'"
        )
    found = told(of_table.collect())
    assert by_schedule(found["schedule_next_run_timestamp_seconds"]) == {"one": 5000, "two": 6000.5}
    assert by_schedule(found["schedule_last_run_timestamp_seconds"]) == {"one": 4000}
    assert by_schedule(found["schedule_last_success_timestamp_seconds"]) == {}
    assert found["schedules"] == {("active",): 4, ("cancelled",): 0, ("paused",): 1}
    assert faults(of_table.collect()) == ""


def test_the_most_overdue_are_told_first_by_the_databases_clock(
    of_table: ScheduleCollector, link: PostgresLink, table: Table
) -> None:
    many = [schedule(f"s{n}", f"{n % 60} {n // 60} * * *") for n in range(MOST_SCHEDULES + 50)]
    ScheduleStore(link).insert(many)
    table.execute(
        "UPDATE schedule SET next_due_at = now() - interval '1 hour' * (id - 540) WHERE id > 540"
    )
    found = told(of_table.collect())
    assert len(found["schedule_interval_seconds"]) == MOST_SCHEDULES
    assert len(found["schedule_next_run_timestamp_seconds"]) == 10


def test_the_last_success_is_that_of_a_finished_run(
    of_table: ScheduleCollector, link: PostgresLink, table: Table, database_url: str
) -> None:
    ScheduleStore(link).insert([schedule(name, task=name) for name in ("good", "bad", "new")])
    with ExitStack() as stack:
        records = postgres_subject(stack, database_url)
        for name, key in (("good", "g1"), ("good", "g2"), ("bad", "b1")):
            fire(table, name, key)
            (records.hold if name == "bad" else records.finish)(key)
        found = told(of_table.collect())["schedule_last_success_timestamp_seconds"]
        assert set(by_schedule(found)) == {"good"}
        ((ended,),) = table.execute(
            "SELECT extract(epoch FROM completed_at) FROM idempotency_record WHERE key = %s",
            (f"{NAMESPACE}:g2",),
        )
        assert by_schedule(found)["good"] == pytest.approx(float(ended), abs=0.001)
        for key in ("g1", "g2"):
            records.lose(key)
        again = told(of_table.collect())["schedule_last_success_timestamp_seconds"]
        assert again == found, "that a record expires does not undo the success"
        table.execute("DELETE FROM schedule WHERE identifier = 'good'")
        assert told(of_table.collect())["schedule_last_success_timestamp_seconds"] == {}


def fire(table: Table, name: str, key: str, ago: str = "0") -> None:
    table.execute(
        "INSERT INTO schedule_firing (schedule_id, due_at, outcome, record_key, publish_until) "
        "SELECT id, clock_timestamp() - %s::interval, 'fired', %s, 'infinity' FROM schedule "
        "WHERE identifier = %s", (ago, key, name),
    )  # fmt: skip


def test_a_success_is_looked_for_among_the_last_firings_by_indexes(
    link: PostgresLink, table: Table
) -> None:
    ScheduleStore(link).insert([schedule(f"s{n}", task=f"t{n}") for n in range(50)])
    table.execute(
        "INSERT INTO schedule_firing (schedule_id, due_at, outcome, record_key, publish_until) "
        "SELECT s.id, now() - n * interval '1 minute', 'fired', s.id || ':' || n, 'infinity' "
        "FROM schedule AS s, generate_series(1, 400) AS n"
    )
    table.add(20_000, expires="1 hour")
    table.execute("ANALYZE")
    asked = {"ids": list(range(1, 51)), "looked_at": FIRINGS_LOOKED_AT, "head": "test:"}
    rows = link.run(lambda c: c.execute("EXPLAIN (ANALYZE) " + SUCCESSES, asked).fetchall())
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan Backward using schedule_firing_pkey" in plan, plan
    assert "using idempotency_record_pkey" in plan and "Rows Removed" not in plan, plan


def test_a_source_that_is_away_is_an_error() -> None:
    away = PostgresLink("postgresql://nobody@127.0.0.1:1/none")
    collector = ScheduleCollector(
        TableReader(away).read, lambda: CAPACITY, away, zone="UTC", namespace=NAMESPACE
    )
    with pytest.raises(StoreUnavailable):
        collector.collect()
    assert list(collector.failed()) == []
    collector.close()


# -- the reader of the table -----------------------------------------------------------------------


def test_the_table_is_read_as_by_the_store(link: PostgresLink, table: Table) -> None:
    reader, store = TableReader(link), ScheduleStore(link)
    assert reader.read() == store.schedules()
    store.insert([schedule(name, task=name) for name in ("one", "two", "bad")])
    table.execute("UPDATE schedule SET cron_expression = '99 * * * *' WHERE identifier = 'bad'")
    inventory = reader.read()
    assert inventory == store.schedules()
    assert (len(inventory.schedules), len(inventory.problems)) == (2, 1)


def test_a_table_that_did_not_change_is_the_very_same(link: PostgresLink, table: Table) -> None:
    reader, store = TableReader(link), ScheduleStore(link)
    store.insert([schedule(name, task=name) for name in ("one", "two")])
    before = reader.read()
    table.execute("UPDATE schedule SET next_due_at = now(), execution_count = 7")
    assert reader.read() is before, "what a beat writes is no news"
    table.execute("UPDATE schedule SET duration_estimate_seconds = 7 WHERE identifier = 'one'")
    after = reader.read()
    assert after == store.schedules() != before
    assert after.schedules[1] is before.schedules[1]
    table.execute("DELETE FROM schedule")
    assert reader.read().schedules == ()
