"""The load map, against a simulation of every single run."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
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
