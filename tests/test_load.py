"""The load map, against a simulation of every single run."""

from __future__ import annotations

import csv
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from idemwatch.scheduler import load
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.load import WEEK, load_map
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import Interval, Timing
from support.simulation import MINUTE, simulated

DATA = Path(__file__).with_name("data")
ZONES = ("UTC", "America/New_York", "Europe/London", "Australia/Lord_Howe", "Asia/Beirut",
         "America/Santiago", "Antarctica/Troll", "Asia/Kathmandu")  # fmt: skip


def some_timing(chance: random.Random) -> Timing:
    minute, hour = chance.randrange(60), chance.randrange(24)
    timings: list[Timing] = [
        parse_cron(f"*/{chance.randrange(1, 30)} * * * *"),
        parse_cron(f"{minute} * * * *"),
        parse_cron(f"{minute},{(minute + 7) % 60} {hour},{(hour + 5) % 24} * * *"),
        parse_cron(f"{minute} {hour} * * {chance.randrange(7)}"),
        parse_cron(f"{minute} {hour} {chance.randrange(1, 32)} * *"),
        parse_cron(f"{minute} {hour} 1-7 * {chance.randrange(7)}", "celery"),
        parse_cron(f"0/30 {minute} {hour} ? * 6L", "quartz"),
        Interval(timedelta(seconds=chance.choice([7, 60, 90, 300, 3780, 86_400]))),
    ]
    return chance.choice(timings)


def some_fleet(seed: int, size: int = 40) -> list[Schedule]:
    chance = random.Random(seed)
    durations = [0, 1, 60, 61, 300, 3600, 90_000, 600_000]
    return [
        Schedule(
            id=str(number),
            task="task",
            timing=some_timing(chance),
            zone=chance.choice(ZONES),
            duration=timedelta(seconds=chance.choice(durations)),
        )
        for number in range(size)
    ]


@pytest.mark.parametrize(
    "start",
    [
        datetime(2026, 11, 24, 13, 7, tzinfo=UTC),
        datetime(2026, 10, 28, 22, 0, tzinfo=UTC),
        datetime(2026, 3, 6, tzinfo=UTC),
        datetime(2026, 4, 2, 23, 59, tzinfo=UTC),
        datetime(2028, 2, 26, tzinfo=UTC),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_the_load_is_that_of_a_simulation(start: datetime, seed: int) -> None:
    fleet = some_fleet(seed)
    found = load_map(fleet, start, capacity=14)
    assert found.concurrency.tolist() == simulated(fleet, start).tolist()
    assert (found.load == found.concurrency / 14).all()


def inventory(name: str) -> list[Schedule]:
    """The rows that can be read."""
    found = []
    with (DATA / f"{name}.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            try:
                timing: Timing = (
                    Interval(timedelta(seconds=float(row["schedule"][6:-1])))
                    if row["schedule"].startswith("every ")
                    else parse_cron(row["schedule"], row["dialect"])
                )
            except InvalidSchedule:
                continue
            zone = row["timezone"] or "UTC"
            found.append(Schedule(id=str(number), task=row["name"], timing=timing, zone=zone))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.csv")))
def test_the_load_of_real_inventories_is_that_of_a_simulation(name: str) -> None:
    fleet, start = inventory(name), datetime(2026, 10, 27, 8, 30, tzinfo=UTC)
    assert (
        load_map(fleet, start, capacity=1).concurrency.tolist() == simulated(fleet, start).tolist()
    )


@pytest.mark.parametrize(
    ("name", "peak", "when"),
    [
        ("gitlab", 105, "2026-03-01T00:00Z"),
        ("posthog", 46, "2026-01-02T00:00Z"),
        ("vets_api", 31, "2026-09-01T04:00Z"),
        ("govuk_notify", 12, None),
        ("saleor", 3, None),
        ("fedora_cron_d", 57, None),
    ],
)
def test_the_busiest_minute_of_the_year_is_the_one_that_another_hand_counted(
    name: str, peak: int, when: str | None
) -> None:
    calendar = [
        Schedule(id=one.id, task=one.task, timing=one.timing, zone=one.zone)
        for one in inventory(name)
        if not isinstance(one.timing, Interval)
    ]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    year = load_map(calendar, start, capacity=1, minutes=365 * 1440).concurrency
    assert year.max() == peak
    if when is not None:
        assert year[(datetime.fromisoformat(when) - start) // MINUTE] == peak


MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def concurrency(expression: str, duration: timedelta, dialect: str = "vixie") -> list[int]:
    """Of one schedule, in the week of MONDAY."""
    timing = parse_cron(expression, dialect)
    one = Schedule(id="1", task="task", timing=timing, duration=duration)
    return [round(runs) for runs in load_map([one], MONDAY, capacity=14).concurrency]


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(0.001, 1), (1, 1), (59, 1), (60, 1), (60.5, 2), (61, 2), (120, 2)]
)
def test_a_run_counts_in_each_minute_that_it_has_begun(seconds: float, minutes: int) -> None:
    found = concurrency("0 12 * * 1", timedelta(seconds=seconds))
    assert [at for at, runs in enumerate(found) if runs] == [720 + n for n in range(minutes)]


def test_a_run_that_goes_on_past_the_end_of_the_week_counts_at_its_beginning_too() -> None:
    found = concurrency("50 23 * * 0", timedelta(minutes=20))
    assert [at for at, runs in enumerate(found) if runs] == [*range(10), *range(WEEK - 10, WEEK)]


def test_runs_longer_than_a_day_are_there_beside_each_other() -> None:
    found = concurrency("0 0 * * *", timedelta(days=2, hours=12))
    assert found == ([3] * 720 + [2] * 720) * 7


@pytest.mark.parametrize(("days", "runs"), [(7, [1] * 7), (8, [2, 1, 1, 1, 1, 1, 1])])
def test_runs_as_long_as_a_week_and_longer(days: int, runs: list[int]) -> None:
    found = concurrency("0 0 * * 1", timedelta(days=days))
    assert found == [count for count in runs for _ in range(1440)]
    assert max(concurrency("0 0 1 * *", timedelta(days=31))) == 1


def test_a_start_at_any_second_counts_in_its_minute() -> None:
    found = concurrency("0/20 30 9 ? * MON", timedelta(seconds=60), "quartz")
    assert [(at, runs) for at, runs in enumerate(found) if runs] == [(570, 3)]


@pytest.mark.parametrize("expression", ["0/30 15 2 ? * *", "0 15,45 2 ? * *", "0/30 0 2,3 ? * *"])
def test_times_that_one_gap_swallows_are_one_run_in_the_load_too(expression: str) -> None:
    start = datetime(2026, 3, 6, tzinfo=UTC)
    timing = parse_cron(expression, "quartz")
    one = Schedule(id="1", task="task", timing=timing, zone="America/New_York")
    found = load_map([one], start, capacity=14).concurrency
    assert found.tolist() == simulated([one], start).tolist()


@pytest.mark.parametrize(
    ("expression", "minutes", "slots"),
    [
        ("20 0 * * *", 20, [0, 1]), ("0 0 * * *", 30, [0]), ("0 0 * * *", 31, [0, 1]),
        ("29 23 * * *", 1, [46]), ("59 23 * * *", 2, [0, 47]), ("45 23 * * 0", 30, [0, 47]),
        ("0 0 * * 3", 1440, list(range(48))),
    ],
)  # fmt: skip
def test_a_run_counts_in_each_half_hour_that_it_touches(
    expression: str, minutes: int, slots: list[int]
) -> None:
    one = Schedule(
        id="1", task="t", timing=parse_cron(expression), duration=timedelta(minutes=minutes)
    )
    found = load_map([one], MONDAY, capacity=1)
    assert found.by_half_hour().nonzero()[0].tolist() == slots


def test_a_half_hour_has_the_highest_load_of_its_minutes_on_the_worst_day() -> None:
    fleet = [
        Schedule(id=f"{day} {n}", task="t", timing=parse_cron(f"{10 + n % 2} 3 * * {day}"))
        for day, count in (("1", 3), ("2", 9), ("*", 1))
        for n in range(count)
    ]
    found = load_map(fleet, MONDAY, capacity=10).by_half_hour()
    assert found[6] == 0.6 and found.sum() == pytest.approx(0.6), "5 of 9, and the daily one"


def test_the_load_is_the_same_laid_out_in_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, start = some_fleet(7), datetime(2026, 3, 26, tzinfo=UTC)
    whole = load_map(fleet, start, capacity=1).concurrency
    monkeypatch.setattr(load, "PART", 100)
    assert (load_map(fleet, start, capacity=1).concurrency == whole).all()


def test_a_fleet_that_runs_each_minute_fits_into_little_memory() -> None:
    """A gigabyte once, which is more than a state exporter is given."""
    fleet = [
        Schedule(
            id=str(n), name="n", task="t", timing=parse_cron("* * * * *", seed=str(n)),
            duration=timedelta(days=31),
        )
        for n in range(4000)
    ]  # fmt: skip
    tracemalloc.start()
    try:
        found = load_map(fleet, datetime(2026, 3, 26, tzinfo=UTC), capacity=1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000_000
    assert found.concurrency.min() == found.concurrency.max() == 4000 * 31 * 1440


def test_no_schedules_are_no_load() -> None:
    found = load_map([], datetime(2026, 1, 1, tzinfo=UTC), capacity=14)
    assert found.concurrency.shape == (WEEK,) and not found.concurrency.any()
    assert found.by_half_hour().tolist() == [0.0] * 48


def test_half_hours_are_those_of_the_zone() -> None:
    one = Schedule(id="1", task="task", timing=parse_cron("45 8 * * *"), zone="Asia/Kathmandu")
    found = load_map([one], datetime(2026, 1, 1, 5, 20, tzinfo=UTC), capacity=2)
    assert found.by_half_hour("Asia/Kathmandu").nonzero()[0].tolist() == [17]
    assert found.by_half_hour("UTC").nonzero()[0].tolist() == [6]
    assert found.by_half_hour().max() == 0.5
