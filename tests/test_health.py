"""The health score: its parts, its grades, and that more load never makes it better."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.alerts.thresholds import CAPACITY
from idemwatch.scheduler.conflicts import shortest_gap
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.health import Health, health
from idemwatch.scheduler.model import Schedule, Status
from idemwatch.scheduler.occurrences import Interval

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def at(expression: str, number: int = 0, **changed: object) -> Schedule:
    given = {"id": f"{expression} {number}", "task": "task", "timing": parse_cron(expression)}
    return Schedule(**{**given, **changed})  # type: ignore[arg-type]


def crowd(expression: str, size: int) -> list[Schedule]:
    return [at(expression, number) for number in range(size)]


def healthy(schedules: list[Schedule], zone: str = "UTC") -> Health:
    return health(schedules, NOW, capacity=CAPACITY, zone=zone)


@pytest.mark.parametrize(
    ("hotspots", "score", "grade"),
    [(0, 100, "A"), (1, 98, "A"), (2, 88, "B"), (3, 78, "C"), (4, 68, "D"), (5, 58, "F")],
)
def test_each_hotspot_costs_ten_points(hotspots: int, score: int, grade: str) -> None:
    found = healthy([one for hour in range(hotspots) for one in crowd(f"0 {2 * hour} * * *", 12)])
    assert (found.score, found.grade, len(found.hotspots)) == (score, grade, hotspots)
    assert found.hotspots == tuple(4 * hour for hour in range(hotspots))
    assert found.bands == {
        "excellent": 48 - hotspots, "good": 0, "warning": 0, "critical": hotspots
    }  # fmt: skip


def test_twelve_runs_at_once_are_a_load_of_85_percent_of_what_is_assumed() -> None:
    assert round(max(healthy(crowd("0 0 * * *", 12)).slots), 3) == round(12 / 14, 3)


def test_half_hours_side_by_side_count_each() -> None:
    assert len(healthy([*crowd("0 3 * * *", 12), *crowd("30 3 * * *", 12)]).hotspots) == 2


def test_an_hour_between_half_and_70_percent_is_unbalanced() -> None:
    for size, unbalanced in ((7, 0), (8, 1), (9, 1), (10, 0)):
        assert healthy(crowd("0 3 * * *", size)).unbalanced_hours == unbalanced
    assert healthy([*crowd("0 3 * * *", 8), *crowd("30 3 * * *", 12)]).unbalanced_hours == 0


def test_the_worst_day_counts() -> None:
    assert len(healthy(crowd("0 0 * * 3", 12)).hotspots) == 1


def test_half_hours_are_those_of_the_zone() -> None:
    assert healthy(crowd("0 3 * * *", 12), "America/New_York").hotspots == (44,)


def test_only_what_is_active_counts() -> None:
    stopped = [
        at("0 0 * * *", n, status=status)
        for status in (Status.PAUSED, Status.CANCELLED)
        for n in range(20)
    ]
    found = healthy([*stopped, at("0 0 * * *", status=Status.IN_PROGRESS)])
    assert (found.schedules, found.score) == (1, 100)


def test_no_schedules_are_in_the_best_of_health() -> None:
    assert (healthy([]).score, healthy([]).grade) == (100, "A")


@pytest.mark.parametrize(
    ("size", "capacity", "hot", "unbalanced", "quiet"),
    [
        (7, 10, 0, 1, 23), (8, 10, 1, 0, 23), (14, 20, 0, 1, 23), (5, 10, 0, 0, 23),
        (6, 10, 0, 1, 23), (3, 10, 0, 0, 24), (4, 10, 0, 0, 23), (6, 20, 0, 0, 24),
    ],
)  # fmt: skip
def test_70_50_and_30_percent_themselves_are_not_over_it(
    size: int, capacity: int, hot: int, unbalanced: int, quiet: int
) -> None:
    found = health(crowd("0 3 * * *", size), NOW, capacity=capacity)
    assert (len(found.hotspots), found.unbalanced_hours, found.quiet_hours) == (
        hot, unbalanced, quiet
    )  # fmt: skip


@pytest.mark.parametrize(
    ("busy_hours", "bonus"), [(0, 8), (20, 8), (21, 6), (22, 4), (23, 2), (24, 0)]
)
def test_quiet_hours_are_worth_two_points_each_and_eight_at_most(
    busy_hours: int, bonus: int
) -> None:
    fleet = [one for hour in range(busy_hours) for one in crowd(f"0 {hour} * * *", 6)]
    found = healthy(fleet)
    assert found.raw_score == 100 + bonus and found.score == 100


LOADS = st.sampled_from([0.0, 0.1, 0.3, 0.31, 0.5, 0.51, 0.6, 0.7, 0.71, 2.0])


@given(st.lists(LOADS, min_size=48, max_size=48), st.integers(0, 12), st.floats(0, 1))
def test_the_score_is_the_sum_of_its_parts(slots: list[float], conflicts: int, calm: float) -> None:
    slots = [one if number >= 48 * calm else 0.0 for number, one in enumerate(slots)]
    ids = tuple(str(number) for number in range(conflicts))
    found = replace(healthy([]), slots=tuple(slots), overrunning=ids, contending=ids[:2])
    hours = [(slots[n], slots[n + 1]) for n in range(0, 48, 2)]
    hot = sum(one > 0.7 for one in slots)
    unbalanced = sum(0.5 < max(pair) <= 0.7 for pair in hours)
    quiet = sum(max(pair) <= 0.3 for pair in hours)
    raw = 100 - 10 * hot - 5 * conflicts - 3 * unbalanced + min(8, 2 * quiet)
    assert (found.raw_score, found.score) == (raw, min(100, max(0, raw)))
    grades = "FFFFFFDCBAA"
    assert found.grade == grades[found.score // 10]
    bands = [(0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 9)]
    counts = [sum(low < one <= high for one in slots) for low, high in bands]
    counts[0] += slots.count(0.0)
    assert list(found.bands.values()) == counts


# -- conflicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "gap"),
    [
        ("*/5 * * * *", timedelta(minutes=5)),
        ("0,7 * * * *", timedelta(minutes=7)),
        ("0 0,1 * * *", timedelta(hours=1)),
        ("0 0,23 * * *", timedelta(hours=1)),
        ("30 4 * * *", timedelta(days=1)),
        ("30 4 * * 1", timedelta(days=7)),
        ("0 0,23 * * 1", timedelta(hours=23)),
        ("0 0 1 * *", timedelta(days=28)),
        ("0 0 1 1 *", None),
    ],
)
def test_the_shortest_gap_between_two_runs(expression: str, gap: timedelta | None) -> None:
    assert shortest_gap(parse_cron(expression), NOW.date()) == gap


def test_a_run_longer_than_the_gap_is_a_conflict() -> None:
    for seconds, conflicts in ((300, 0), (301, 1)):
        one = at("*/5 * * * *", duration=timedelta(seconds=seconds))
        assert len(healthy([one]).conflicts) == conflicts
    every = Interval(timedelta(seconds=30))
    assert healthy([at("@daily", timing=every)]).overrunning == ("@daily 0",)


def test_two_runs_on_one_resource_are_a_conflict_of_both() -> None:
    long = timedelta(minutes=30)
    first = at("0 2 * * *", asset_id="pump", client_id="c", duration=long)
    for expression, asset, client, met in (
        ("15 2 * * *", "pump", "c", True),
        ("30 2 * * *", "pump", "c", False),
        ("15 2 * * *", "pump", "d", False),
        ("15 2 * * *", "fan", "c", False),
        ("15 2 * * *", None, "c", False),
    ):
        other = at(expression, 1, asset_id=asset, client_id=client, duration=long)
        found = healthy([first, other])
        assert found.contending == ((first.id, other.id) if met else ())
        assert found.raw_score == 108 - 10 * met


def test_a_schedule_in_two_conflicts_counts_once() -> None:
    one, other = (
        at("*/5 * * * *", n, asset_id="pump", duration=timedelta(minutes=6)) for n in (1, 2)
    )
    assert healthy([one, other]).conflicts == (one.id, other.id)


# -- more load -------------------------------------------------------------------------------------

some_schedules = st.builds(
    lambda n, minute, hour, day, minutes: at(
        f"{minute} {hour} * * {day}", n, id=str(n), duration=timedelta(minutes=minutes)
    ),
    n=st.integers(0, 10**9),
    minute=st.sampled_from(["0", "30", "*/10", "17"]),
    hour=st.sampled_from(["*", "0", "3", "3,4", "12"]),
    day=st.sampled_from(["*", "1", "1-5"]),
    minutes=st.sampled_from([1, 9, 45]),
)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(some_schedules, st.integers(1, 9)), max_size=8),
    some_schedules,
    st.integers(1, 5),
)
def test_more_load_never_makes_the_score_better(
    fleet: list[tuple[Schedule, int]], more: Schedule, times: int
) -> None:
    before = [one for one, count in fleet for _ in range(count)]
    found = healthy(before), healthy([*before, *[more] * times])
    assert found[1].raw_score <= found[0].raw_score
    assert 0 <= found[1].score <= 100
