"""What is told of beats: by the clock of the database, and by counters that never fall."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from idemwatch.exporter.beat_collector import BeatCollector, Firings
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.due import advance
from idemwatch.scheduler.firing import Mark, Step, task_id_of
from idemwatch.scheduler.firing_store import FiringStore
from idemwatch.scheduler.gauges import LIVE, OUTCOMES
from idemwatch.scheduler.rows import schedule_of_row
from idemwatch.scheduler.schedule_store import ScheduleStore
from support.promtool import Series, faults, told
from support.table import Table

NAMES = {"schedule_firings", "beat_last_tick_timestamp_seconds", "beats_live", "schedules_overdue"}
ALIVE = LIVE.seconds


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


@pytest.fixture
def collector(database_url: str) -> Iterator[BeatCollector]:
    collector = BeatCollector(PostgresLink(database_url))
    yield collector
    collector.close()


@pytest.fixture
def schedules(link: PostgresLink) -> ScheduleStore:
    return ScheduleStore(link)


def add(store: ScheduleStore, *names: str, cron: str = "0 0 * * *") -> None:
    store.insert(
        [schedule_of({"identifier": one, "task": one, "cron_expression": cron}) for one in names]
    )


def found(collector: BeatCollector) -> dict[str, Series]:
    return told(collector.collect())


def fired(collector: BeatCollector) -> dict[str, float]:
    return {outcome: value for (outcome,), value in found(collector)["schedule_firings"].items()}


def test_a_new_database_has_every_series_at_0_but_the_tick(collector: BeatCollector) -> None:
    got = found(collector)
    assert set(got) == NAMES
    assert got["schedule_firings"] == {(outcome,): 0 for outcome in OUTCOMES}
    assert got["beat_last_tick_timestamp_seconds"] == {}
    assert (got["beats_live"], got["schedules_overdue"]) == ({(): 0}, {(): 0})


def test_promtool_finds_no_fault(collector: BeatCollector, link: PostgresLink) -> None:
    FiringStore(link, "one").tick()
    assert faults(collector.collect()) == ""


# -- ticks -----------------------------------------------------------------------------------------


def test_a_beat_is_live_for_a_while_after_its_tick(
    collector: BeatCollector, link: PostgresLink, table: Table
) -> None:
    for name in ("one", "two", "three"):
        FiringStore(link, name).tick()
    assert found(collector)["beats_live"] == {(): 3}
    for name, seconds in (("one", ALIVE - 10), ("two", ALIVE + 1)):
        table.execute(
            "UPDATE schedule_beat SET last_tick_at = last_tick_at - make_interval(secs => %s) "
            "WHERE name = %s", (seconds, name),
        )  # fmt: skip
    got = found(collector)
    assert got["beats_live"] == {(): 2}
    ((now,),) = table.execute("SELECT extract(epoch FROM clock_timestamp())")
    assert got["beat_last_tick_timestamp_seconds"][()] == pytest.approx(float(now), abs=10)
    FiringStore(link, "three").leave()
    assert found(collector)["beats_live"] == {(): 1}


def test_the_last_tick_stays_told_when_all_beats_stand_still(
    collector: BeatCollector, link: PostgresLink, table: Table
) -> None:
    FiringStore(link, "one").tick()
    table.execute("UPDATE schedule_beat SET last_tick_at = to_timestamp(1000)")
    got = found(collector)
    assert got["beat_last_tick_timestamp_seconds"] == {(): 1000} and got["beats_live"] == {(): 0}


@pytest.mark.parametrize("when", ["infinity", "-infinity", "290000-01-01", "0001-01-01 BC"])
def test_a_tick_of_no_time_of_this_world_hides_no_other(
    collector: BeatCollector, link: PostgresLink, table: Table, when: str
) -> None:
    insert = "INSERT INTO schedule_beat (name, started_at, last_tick_at) VALUES ('x', now(), %s)"
    table.execute(insert, (when,))
    got = found(collector)
    assert got["beat_last_tick_timestamp_seconds"] == {} and got["beats_live"] == {(): 0}
    FiringStore(link, "one").tick()
    table.execute("UPDATE schedule_beat SET last_tick_at = to_timestamp(1000) WHERE name = 'one'")
    assert found(collector)["beat_last_tick_timestamp_seconds"] == {(): 1000}


# -- overdue ---------------------------------------------------------------------------------------


def test_a_schedule_is_overdue_when_its_due_time_and_grace_have_passed(
    collector: BeatCollector, schedules: ScheduleStore, table: Table
) -> None:
    add(schedules, "on time", "in grace", "overdue", "paused", "unplanned", "never")
    table.execute("UPDATE schedule SET misfire_grace_seconds = 60")
    for name, due in (
        ("on time", "now() + interval '1 hour'"),
        ("in grace", "now() - interval '10 seconds'"),
        ("overdue", "now() - interval '2 minutes'"),
        ("paused", "now() - interval '2 hours'"),
        ("never", "'infinity'"),
    ):
        table.execute(f"UPDATE schedule SET next_due_at = {due} WHERE identifier = '{name}'")
    table.execute("UPDATE schedule SET status = 'PAUSED' WHERE identifier = 'paused'")
    table.execute(
        "UPDATE schedule SET next_due_at = now() - interval '2 hours' WHERE identifier = 'paused'"
    )
    assert found(collector)["schedules_overdue"] == {(): 1}


# -- firings ---------------------------------------------------------------------------------------


def count(table: Table, name: str, **counts: int) -> None:
    for column, value in counts.items():
        table.execute(
            f"UPDATE schedule SET {column} = {column} + %s WHERE identifier = %s", (value, name)
        )


def test_outcomes_are_disjoint(
    collector: BeatCollector, schedules: ScheduleStore, table: Table
) -> None:
    add(schedules, "one", "two")
    found(collector)
    count(table, "one", execution_count=5, late_count=2, missed_count=1)
    count(table, "two", execution_count=1, skipped_count=4)
    assert fired(collector) == {"fired": 4, "missed": 1, "late": 2, "skipped_overlap": 4}


def test_a_firing_by_a_beat_counts_once(
    collector: BeatCollector, schedules: ScheduleStore, link: PostgresLink, table: Table
) -> None:
    add(schedules, "minutely", cron="* * * * *")
    found(collector)
    beat = FiringStore(link, "one")
    beat.advance([_step(row) for row in beat.due(10)])
    table.execute("UPDATE schedule SET next_due_at = date_trunc('minute', now())")
    assert beat.advance([_step(row) for row in beat.due(10)])
    with beat.outbox(10) as outbox:
        assert outbox.mark([Mark(one, "fired") for one in outbox.firings]) == 1
    assert fired(collector) == {"fired": 1, "missed": 0, "late": 0, "skipped_overlap": 0}


def _step(row: dict[str, object]) -> Step:
    extra = {"next_due_at", "updated_at", "now"}
    schedule = schedule_of_row({name: row[name] for name in row.keys() - extra})
    found = advance(schedule, row["next_due_at"], row["now"])  # type: ignore[arg-type]
    ids = [task_id_of(schedule.id, one.at) for one in found.due]
    return Step(row, found, '{"task":"t"}', ids)


def test_what_was_counted_before_the_exporter_began_is_not_told_again(
    collector: BeatCollector, schedules: ScheduleStore, table: Table
) -> None:
    add(schedules, "one")
    count(table, "one", execution_count=1000)
    assert fired(collector)["fired"] == 0, "rate() would take it for a thousand at once"
    count(table, "one", execution_count=1)
    assert fired(collector)["fired"] == 1


def test_a_schedule_that_is_deleted_does_not_make_a_counter_fall(
    collector: BeatCollector, schedules: ScheduleStore, table: Table
) -> None:
    add(schedules, "one", "two")
    found(collector)
    count(table, "one", execution_count=100)
    count(table, "two", execution_count=7)
    assert fired(collector)["fired"] == 107
    table.execute("DELETE FROM schedule WHERE identifier = 'one'")
    assert fired(collector)["fired"] == 107
    count(table, "two", execution_count=1)
    assert fired(collector)["fired"] == 108


def test_counts_that_no_integer_holds_together_are_summed_all_the_same(
    collector: BeatCollector, schedules: ScheduleStore, table: Table
) -> None:
    add(schedules, "one", "two")
    table.execute(
        "UPDATE schedule SET execution_count = 9223372036854775807, "
        "late_count = -9223372036854775808, missed_count = 9223372036854775807"
    )
    assert set(fired(collector).values()) == {0.0}


def test_sums_that_fall_and_rise_count_what_is_added() -> None:
    firings = Firings()
    for value in (10, 15, 3, 4, 4):
        firings.seen(dict.fromkeys(OUTCOMES, value))
    assert firings.counts == dict.fromkeys(OUTCOMES, 5 + 1)


def test_a_database_that_is_away_is_an_error() -> None:
    collector = BeatCollector(PostgresLink("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(StoreUnavailable):
        collector.collect()
    assert list(collector.failed()) == []
    collector.close()
