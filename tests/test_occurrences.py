"""When schedules run, through every change of the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

import pytest
from idemwatch.scheduler.clock import zone_of
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.occurrences import Interval, occurrences


def runs(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next runs after a UTC time, in local time with its offset."""
    tz = zone_of(zone)
    found = occurrences(parse_cron(expression), tz, datetime.fromisoformat(after + "Z"))
    return [f"{one.astimezone(tz):%d %H:%M %z}" for one in itertools.islice(found, count)]


NEW_YORK, LORD_HOWE = "America/New_York", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # A fixed time in a gap: once, right after it.
        ("30 2 * * *", NEW_YORK, "2026-03-08T00:00", ["08 03:00 -0400", "09 02:30 -0400"]),
        ("0,30 2,3 * * *", NEW_YORK, "2026-03-08T00:00", ["08 03:00 -0400", "08 03:30 -0400"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["04 02:30 +1100", "05 02:15 +1100"]),
        ("30 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["24 01:00 +0300", "25 00:30 +0300"]),
        ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00", ["29 01:00 +0300", "30 00:00 +0300"]),
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00", ["06 01:00 -0300", "07 00:00 -0300"]),
        (
            "30 1 * * *",
            "Antarctica/Troll",
            "2026-03-28T12:00",
            ["29 03:00 +0200", "30 01:30 +0200"],
        ),
        ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00", ["22 03:00 +0100"]),
        # A day that never was.
        ("0 9 * * *", "Pacific/Apia", "2011-12-30T00:00", ["31 00:00 +1400", "31 09:00 +1400"]),
        # A fixed time in a fold: once, at its first occurrence.
        ("30 1 * * *", NEW_YORK, "2026-11-01T00:00", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["05 01:45 +1100", "06 01:45 +1030"]),
        (
            "30 23 * * *",
            "America/Santiago",
            "2026-04-04T12:00",
            ["04 23:30 -0300", "05 23:30 -0400"],
        ),
        # Wildcards follow the clock: both hours of a fold, none of a gap.
        (
            "30 * * * *",
            NEW_YORK,
            "2026-11-01T05:00",
            ["01 01:30 -0400", "01 01:30 -0500", "01 02:30 -0500"],
        ),
        ("*/30 2 * * *", NEW_YORK, "2026-03-08T00:00", ["09 02:00 -0400", "09 02:30 -0400"]),
        ("30 * * * *", NEW_YORK, "2026-03-08T06:00", ["08 01:30 -0500", "08 03:30 -0400"]),
        (
            "*/20 * * * *",
            LORD_HOWE,
            "2026-04-04T14:30",
            ["05 01:40 +1100", "05 01:40 +1030", "05 02:00 +1030"],
        ),
    ],
)
def test_runs_around_a_change_of_the_clock(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    assert runs(expression, zone, after, len(expected)) == expected


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08T05:00", 23), ("2026-11-01T04:00", 25)])
def test_a_day_of_23_or_25_hours_has_as_many_hourly_runs(day: str, hours: int) -> None:
    start = datetime.fromisoformat(day + "Z")
    found = occurrences(parse_cron("0 * * * *"), zone_of(NEW_YORK), start - timedelta(seconds=1))
    end = start.astimezone(zone_of(NEW_YORK)).date() + timedelta(1)
    today = itertools.takewhile(lambda one: one.astimezone(zone_of(NEW_YORK)).date() < end, found)
    assert len(list(today)) == hours


@pytest.mark.parametrize("zone", [NEW_YORK, LORD_HOWE, "America/St_Johns", "Antarctica/Troll"])
def test_runs_are_in_order_and_each_once(zone: str) -> None:
    for expression in ("*/15 * * * *", "0,15,30,45 0,1,2,3,22,23 * * *"):
        start = datetime(2010, 10, 20, tzinfo=UTC)
        found = occurrences(parse_cron(expression), zone_of(zone), start)
        some = list(itertools.islice(found, 3000))
        assert some == sorted(set(some)) and some[0] > start


# -- every minute of the clock, in each city -------------------------------------------------------

CHANGES = [
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("America/Santiago", "2026-04-05"), ("America/Santiago", "2026-09-06"),
    ("Asia/Beirut", "2026-03-29"), ("Asia/Beirut", "2026-10-25"),
    ("Antarctica/Troll", "2026-03-29"), ("Antarctica/Troll", "2026-10-25"),
    ("Pacific/Apia", "2011-12-30"),
]  # fmt: skip
at_each_change = pytest.mark.parametrize(("zone", "day"), CHANGES, ids=lambda one: str(one))
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def clock(zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """Each minute of the days around a change: the instant, and what the clock on the wall says."""
    start = datetime.fromisoformat(f"{day}T00:00Z") - 3 * DAY
    instants = [start + number * MINUTE for number in range(6 * 1440)]
    return [(one, one.astimezone(zone_of(zone)).replace(tzinfo=None)) for one in instants]


def between(expression: str, zone: str, minutes: list[tuple[datetime, datetime]]) -> list[datetime]:
    first, last = minutes[0][0] + DAY, minutes[-1][0] - DAY
    found = occurrences(parse_cron(expression), zone_of(zone), first)
    return list(itertools.takewhile(lambda one: one <= last, found))


@at_each_change
def test_the_clock_changes_there(zone: str, day: str) -> None:
    apart = {at.replace(tzinfo=None) - wall for at, wall in clock(zone, day)}
    assert len(apart) == 2


@at_each_change
def test_a_fixed_time_runs_once_a_day_at_its_time_or_right_after_the_gap(
    zone: str, day: str
) -> None:
    """It runs in the first minute in which the clock shows its time, or a later one."""
    minutes = clock(zone, day)
    days = sorted({wall.date() + timedelta(more) for _, wall in minutes for more in (0, 1)})
    for hours, past in (
        ("0", "0"), ("0", "30"), ("1", "15"), ("1", "45"), ("2", "0"), ("2", "30"), ("23", "30"),
        ("23", "59"), ("2,3", "10,40"), ("0,23", "0"), ("0,1,2,3,4", "5,20"),
    ):  # fmt: skip
        moments = [
            datetime.combine(date, time(int(hour), int(minute)))
            for date in days for hour in hours.split(",") for minute in past.split(",")
        ]  # fmt: skip
        firsts = {next((at for at, wall in minutes if wall >= one), None) for one in moments}
        after, until = minutes[0][0] + DAY, minutes[-1][0] - DAY
        expected = sorted(at for at in firsts if at and after < at <= until)
        assert between(f"{past} {hours} * * *", zone, minutes) == expected, (past, hours)


@at_each_change
@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("* * * * *", lambda _: True),
        ("30 * * * *", lambda wall: wall.minute == 30),
        ("*/20 2 * * *", lambda wall: wall.minute % 20 == 0 and wall.hour == 2),
        ("15 */2 * * *", lambda wall: wall.minute == 15 and wall.hour % 2 == 0),
        ("* 0,23 * * *", lambda wall: wall.hour in (0, 23)),
        ("*/7 * 29-31 * *", lambda wall: wall.minute % 7 == 0 and wall.day >= 29),
    ],
)
def test_a_wildcard_follows_the_clock_on_the_wall(
    zone: str, day: str, expression: str, fits: Callable[[datetime], bool]
) -> None:
    minutes = clock(zone, day)
    first, last = minutes[0][0] + DAY, minutes[-1][0] - DAY
    expected = [at for at, wall in minutes if first < at <= last and fits(wall)]
    assert between(expression, zone, minutes) == expected


@pytest.mark.parametrize(
    ("zone", "day", "minutes"),
    [
        ("America/New_York", "2026-03-08", 23 * 60), ("America/New_York", "2026-11-01", 25 * 60),
        ("Australia/Lord_Howe", "2026-10-04", 1410), ("Australia/Lord_Howe", "2026-04-05", 1470),
        ("Antarctica/Troll", "2026-03-29", 22 * 60), ("Antarctica/Troll", "2026-10-25", 26 * 60),
        ("Asia/Beirut", "2026-03-29", 23 * 60), ("America/Santiago", "2026-09-06", 23 * 60),
        ("Africa/Casablanca", "2026-03-22", 23 * 60), ("Pacific/Apia", "2011-12-30", 0),
    ],
)  # fmt: skip
def test_what_runs_each_minute_runs_as_often_as_the_day_is_long(
    zone: str, day: str, minutes: int
) -> None:
    runs = between("* * * * *", zone, clock(zone, day))
    of_day = [one for one in runs if f"{one.astimezone(zone_of(zone)):%Y-%m-%d}" == day]
    assert len(of_day) == minutes


# -- intervals and zones ---------------------------------------------------------------------------


def test_an_interval_counts_from_its_anchor() -> None:
    interval = Interval(timedelta(seconds=3780))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first, second = itertools.islice(occurrences(interval, UTC, start), 2)
    assert second - first == interval.every and start < first <= start + interval.every
    assert (first - interval.anchor) % interval.every == timedelta(0)
    assert next(occurrences(interval, UTC, first)) == second


@pytest.mark.parametrize("name", ["Mars/Olympus", "UTC+2", "+02:00", "../etc/passwd", "EST5EDT4"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidSchedule, match="no such IANA zone"):
        zone_of(name)
