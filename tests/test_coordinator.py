"""The coordinator: plain dicts in and out, and what is wrong in them by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from idemwatch.scheduler.config import schedule_of, timing_of
from idemwatch.scheduler.coordinator import ScheduleCoordinator, urgency
from idemwatch.scheduler.cron import Cron, parse_cron
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.occurrences import Interval, bits

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def coordinator(
    schedules: list[dict[str, Any]] | None = None, **changed: Any
) -> ScheduleCoordinator:
    return ScheduleCoordinator(schedules or [], now=lambda: NOW, **changed)


def midnight(count: int, **changed: Any) -> list[dict[str, Any]]:
    return [{"id": number, "cron_expression": "0 0 * * *", **changed} for number in range(count)]


# -- optimize --------------------------------------------------------------------------------------


def test_ten_at_midnight_are_a_hotspot_that_one_leaves() -> None:
    found = coordinator().optimize_schedule_distribution(midnight(10), strategy="balanced")
    assert found["metrics"]["hotspot_count"] > 0 and found["metrics"]["total_schedules"] == 10
    (one,) = found["recommendations"]
    assert (one["original_time"], one["urgency"]) == ("0 0 * * *", "high")
    assert one["recommended_time"] != "0 0 * * *" and parse_cron(one["recommended_time"])
    assert one["impact"] == "Reduces load from 71% to 7%"
    assert json.loads(json.dumps(found)) is not None


def test_schedules_that_run_from_today_for_a_month_are_planned() -> None:
    """The example of the system that went before."""
    today = NOW.date()
    rows = midnight(10, fromdate=today, uptodate=today + timedelta(days=30))
    found = coordinator().optimize_schedule_distribution(rows, strategy="balanced")
    assert found["metrics"]["hotspot_count"] == 1
    (one,) = found["recommendations"]
    assert one["original_time"] == "0 0 * * *" != one["recommended_time"]
    assert one["urgency"] == "high"


def test_the_answer_has_the_keys_that_it_is_known_for() -> None:
    found = coordinator().optimize_schedule_distribution(midnight(12))
    assert list(found) == ["recommendations", "metrics", "load_map"]
    assert set(found["recommendations"][0]) == {
        "schedule_id", "original_time", "recommended_time", "reason", "urgency", "impact",
    }  # fmt: skip
    assert found["metrics"] == {
        "total_schedules": 12,
        "hotspot_count": 1,
        "total_load": pytest.approx(7 * 12 / 14),
        "avg_load": pytest.approx(7 * 12 / 14 / 10_080),
        "max_load": pytest.approx(12 / 14),
        "max_load_after": pytest.approx(9 / 14),
        "lower_bound": pytest.approx(1 / 14),
    }
    assert {one["reason"] for one in found["recommendations"]} == {"Hotspot of 86% at 00:00"}


def test_the_impact_is_the_true_load_before_and_after() -> None:
    found = coordinator().optimize_schedule_distribution(midnight(20), strategy="balanced")
    after = [{**one, "cron_expression": told.get(str(one["id"]), one["cron_expression"])}
             for told in [{one["schedule_id"]: one["recommended_time"]
                           for one in found["recommendations"]}]
             for one in midnight(20)]  # fmt: skip
    loads = coordinator().optimize_schedule_distribution(after)
    assert loads["metrics"]["max_load"] == found["metrics"]["max_load_after"]
    for one in found["recommendations"]:
        minute, hour, *_ = one["recommended_time"].split()
        together = sum(row["cron_expression"].startswith(f"{minute} {hour} ") for row in after)
        assert one["impact"] == f"Reduces load from 143% to {together / 14:.0%}"
        assert one["urgency"] == "critical"


@pytest.mark.parametrize(
    ("size", "word"), [(15, "critical"), (14, "high"), (10, "high"), (9, "medium"), (8, "medium")]
)
def test_the_urgency_is_that_of_the_load_that_a_schedule_leaves(size: int, word: str) -> None:
    found = coordinator().optimize_schedule_distribution(midnight(size), strategy="spread")
    assert {one["urgency"] for one in found["recommendations"]} == {word}


def test_what_leaves_less_than_half_a_load_is_of_low_urgency() -> None:
    """It is moved for the sake of others, which are more than half."""
    noon = [
        {**one, "id": f"noon{one['id']}", "cron_expression": "0 12 * * *"} for one in midnight(3)
    ]
    found = coordinator().optimize_schedule_distribution([*noon, *midnight(9)], strategy="spread")
    urgencies = {one["schedule_id"]: one["urgency"] for one in found["recommendations"]}
    assert {urgencies[name] for name in urgencies if name.startswith("noon")} == {"low"}


def test_a_strategy_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="balanced, spread, consolidate"):
        coordinator().optimize_schedule_distribution([], strategy="fastest")


def test_the_load_map_has_each_half_hour_with_what_starts_in_it() -> None:
    found = coordinator().optimize_schedule_distribution(midnight(7))["load_map"]
    assert list(found) == list(range(0, 1440, 30))
    assert found[0] == {"load": 0.5, "tasks": [str(number) for number in range(7)]}
    assert found[30] == {"load": 0.0, "tasks": []}


def test_the_load_map_has_all_that_starts_and_nothing_that_is_paused() -> None:
    schedules = [
        {"id": "twice a day", "cron_expression": "every 43200s"},
        {"id": "paused", "cron_expression": "0 0 * * *", "status": "PAUSED"},
    ]
    found = coordinator().optimize_schedule_distribution(schedules)["load_map"]
    assert {at for at, slot in found.items() if slot["tasks"] == ["twice a day"]} == {0, 720}
    assert "paused" not in found[0]["tasks"]


def test_the_reason_has_the_time_of_the_half_hours_zone() -> None:
    found = coordinator(zone="Asia/Kathmandu").optimize_schedule_distribution(midnight(24))
    assert {one["reason"] for one in found["recommendations"]} == {"Hotspot of 171% at 05:45"}


def test_the_most_urgent_comes_first() -> None:
    noon = [
        {**one, "id": f"noon{one['id']}", "cron_expression": "0 12 * * *"} for one in midnight(11)
    ]
    found = coordinator().optimize_schedule_distribution([*noon, *midnight(20)])
    urgencies = [one["urgency"] for one in found["recommendations"]]
    assert urgencies[0] == "critical" and urgencies[-1] == "high"
    assert urgencies == sorted(urgencies)


@pytest.mark.parametrize(
    ("load", "word"),
    [(1.01, "critical"), (1.0, "high"), (0.71, "high"), (0.7, "medium"), (0.5, "low")],
)
def test_urgency(load: float, word: str) -> None:
    assert urgency(load) == word


# -- recommend -------------------------------------------------------------------------------------


def recommend(constraints: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    busy = [
        {"id": f"{hour}:{minute}:{n}", "cron_expression": f"{minute} {hour} * * *",
         "duration_estimate_seconds": 1800}
        for hour in range(24) for minute in (0, 30) for n in range(1 if hour in (2, 10) else 6)
    ]  # fmt: skip
    asked = {"task_type": "report", "duration_estimate": 600, "constraints": constraints}
    return coordinator(busy).recommend_schedule_time(**{**asked, **changed})


def hour_of(expression: str) -> int:
    (hour,) = bits(parse_cron(expression).hours)
    return hour


def test_a_quiet_hour_is_recommended_with_two_alternatives() -> None:
    found = recommend()
    assert hour_of(found["cron_expression"]) in (2, 10)
    assert found["estimated_load"] == pytest.approx(1 / 14)
    assert found["reasoning"].startswith("Low load period (7%)")
    assert [hour_of(one["time"]) in (2, 10) for one in found["alternatives"]] == [True, True]
    assert all(one["load"] < 0.3 for one in found["alternatives"])


def test_what_is_paused_is_not_in_the_way() -> None:
    rows = [
        {"id": status, "cron_expression": "* * * * *", "status": status}
        for status in ("PAUSED", "CANCELLED", "PENDING")
    ]
    assert coordinator(rows, capacity=1).recommend_schedule_time("report", 60)[
        "estimated_load"
    ] == 1  # fmt: skip


def test_alternatives_have_reasons_too() -> None:
    found = recommend()
    assert all(one["reasoning"].startswith("Low load period (") for one in found["alternatives"])


@pytest.mark.parametrize(
    ("constraints", "hours"),
    [
        ({"business_hours_only": True}, range(9, 18)),
        ({"not_before": "20:00", "not_after": "21:30"}, range(20, 22)),
        ({"timezone": "Asia/Kathmandu", "not_before": "08:00", "not_after": "08:50"}, [8]),
    ],
)
def test_constraints_are_kept(constraints: dict[str, Any], hours: range | list[int]) -> None:
    found = recommend(constraints)
    times = [found["cron_expression"], *(one["time"] for one in found["alternatives"])]
    assert {hour_of(one) for one in times} <= set(hours)


def test_days_are_in_the_expression_and_only_they_count() -> None:
    monday = [{**one, "cron_expression": "0 3 * * 1"} for one in midnight(14)]
    chosen = {"days": ["Mon", "wednesday"], "not_before": "03:00", "not_after": "03:00"}
    for days, load in ((["mon", "wed"], 1.0), (["tue"], 0.0)):
        found = coordinator(monday).recommend_schedule_time(
            "critical", 60, "high", {**chosen, "days": days}
        )
        assert found["estimated_load"] == load
    assert found["cron_expression"] == "0 3 * * 2"


def test_minutes_that_the_clock_skips_are_avoided() -> None:
    night = {"timezone": "America/New_York", "not_before": "01:00", "not_after": "02:55"}
    with pytest.raises(InvalidSchedule, match="no time of the day"):
        recommend(night)
    assert hour_of(recommend({**night, "avoid_dst": False})["cron_expression"]) in (1, 2)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"task_type": "poem"}, "task_type"),
        ({"priority": "urgent"}, "priority"),
        ({"duration_estimate": 0}, "duration_estimate_seconds"),
        ({"duration_estimate": "long"}, "duration_estimate_seconds"),
        ({"constraints": {"hours": 3}}, "constraints"),
        ({"constraints": {"not_before": "25:00"}}, "not_before"),
        ({"constraints": {"not_after": "08:30+02:00"}}, "not_after"),
        ({"task_type": None}, "task_type"),
        ({"priority": 3}, "priority"),
        ({"duration_estimate": float("nan")}, "duration_estimate_seconds"),
        ({"duration_estimate": -5}, "duration_estimate_seconds"),
        ({"constraints": {"days": ["someday"]}}, "days"),
        ({"constraints": {"timezone": "Mars"}}, "timezone"),
        ({"constraints": {"not_before": "10:00", "not_after": "09:00"}}, "constraints"),
    ],
)
def test_what_cannot_be_asked_for_is_named(changed: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        recommend(**changed)
    assert caught.value.part == part and part in str(caught.value)


def test_an_error_about_no_expression_begins_with_what_is_wrong() -> None:
    with pytest.raises(InvalidSchedule) as caught:
        recommend(duration_estimate=0)
    assert str(caught.value) == "duration_estimate_seconds: 0 is not from 1 s to 31 days"


@pytest.mark.parametrize("days", [6.999, 7, 8, 14, 31])
def test_a_run_of_a_week_meets_all_there_is(days: float) -> None:
    found = coordinator(midnight(7)).recommend_schedule_time("maintenance", days * 86_400)
    assert found["estimated_load"] == 0.5 and found["alternatives"] == []


def test_no_schedules_leave_every_time_free() -> None:
    found = coordinator().recommend_schedule_time("report", 600)
    assert found["estimated_load"] == 0 and len(found["alternatives"]) == 2


# -- health ----------------------------------------------------------------------------------------


def test_health_tells_the_score_and_what_to_do() -> None:
    long = {"id": "long", "cron_expression": "*/5 * * * *", "duration_estimate_seconds": 400}
    found = coordinator().analyze_schedule_health([*midnight(12), long])
    assert (found["overall_score"], found["grade"]) == (93, "A")
    assert [issue["type"] for issue in found["issues"]] == ["hotspot", "overrun"]
    assert found["issues"][0]["affected_schedules"][0] == "0"
    assert found["recommendations"][0] == "Move schedules out of 00:00"
    assert sum(found["load_distribution"].values()) == 48


def test_health_has_the_keys_that_it_is_known_for() -> None:
    pinned = [{**one, "movable": False} for one in midnight(12)]
    hours = [{**one, "id": f"{one['id']} {hour}", "cron_expression": f"0 {hour} * * *"}
             for hour in (1, 2, 3, 4) for one in pinned]  # fmt: skip
    found = coordinator().analyze_schedule_health([*pinned, *hours])
    assert list(found) == [
        "overall_score", "grade", "issues", "recommendations", "load_distribution",
    ]  # fmt: skip
    assert (found["overall_score"], found["grade"]) == (58, "F")
    assert [one["type"] for one in found["issues"]] == ["hotspot"] * 5 + ["health"]
    assert {one["severity"] for one in found["issues"]} == {"warning"}
    assert all(len(one["affected_schedules"]) == 12 for one in found["issues"][:5])
    assert found["load_distribution"] == {
        "excellent": 43, "good": 0, "warning": 0, "critical": 5
    }  # fmt: skip


def test_no_schedules_are_healthy() -> None:
    found = coordinator().analyze_schedule_health([])
    assert (found["overall_score"], found["issues"]) == (100, [])


# -- configurations --------------------------------------------------------------------------------


def test_a_configuration_is_read_whole() -> None:
    one = schedule_of(
        {
            "id": 7, "identifier": "close", "task": "jobs.close", "cron_expression": "0 9 * * mon",
            "dialect": "celery", "timezone": "Europe/Berlin", "asset_id": 3, "client_id": "c",
            "status": "PAUSED", "duration_estimate_seconds": "90", "movable": False,
            "window_minutes": 15,
        }
    )  # fmt: skip
    assert (one.id, one.task, one.zone, one.asset_id) == ("7", "jobs.close", "Europe/Berlin", "3")
    assert (one.duration, one.window) == (timedelta(seconds=90), timedelta(minutes=15))
    assert isinstance(one.timing, Cron) and one.minutes == 2 and not one.movable


def test_an_expression_may_name_its_zone_and_an_interval_its_seconds() -> None:
    named = {"cron_expression": "0 0 * * * America/New_York", "dialect": "sidekiq"}
    assert schedule_of(named).zone == "America/New_York"
    assert timing_of("every 3780s") == Interval(timedelta(minutes=63))


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"cron_expression": None}, "cron_expression"),
        ({"cron_expression": " "}, "cron_expression"),
        ({"cron_expression": "every 0s"}, "interval"),
        ({"cron_expression": "every now"}, "interval"),
        ({"cron_expression": "every infs"}, "interval"),
        ({"cron_expression": "61 * * * *"}, "minute"),
        ({"timezone": "+02:00"}, "timezone"),
        ({"status": "ASLEEP"}, "status"),
        ({"duration_estimate_seconds": -1}, "duration_estimate_seconds"),
        ({"duration_estimate_seconds": 32 * 86_400}, "duration_estimate_seconds"),
        ({"duration_estimate_seconds": float("nan")}, "duration_estimate_seconds"),
        ({"window_minutes": 1440}, "window_minutes"),
        ({"cron": "0 0 * * *"}, "cron"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        schedule_of({"cron_expression": "0 0 * * *", **wrong})
    assert caught.value.part == part


@pytest.mark.parametrize("capacity", [0, -1, float("nan"), float("inf")])
def test_a_capacity_of_nothing_is_refused(capacity: float) -> None:
    with pytest.raises(InvalidSchedule, match="capacity"):
        coordinator(capacity=capacity)
