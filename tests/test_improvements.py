"""What is recommended: one change a schedule, each of them true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from idemwatch.scheduler.config import schedule_of, timing_of
from idemwatch.scheduler.health import health
from idemwatch.scheduler.improvements import improvements
from idemwatch.scheduler.load import load_map
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.recommendations import MOST, URGENCIES, Recommendation

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
REASONS = {"hotspot", "conflict", "duplicate", "dst"}


def schedule(number: int, expression: str = "0 0 * * *", **changed: Any) -> Schedule:
    given = {"id": number, "identifier": str(number), "task": f"t{number}", **changed}
    return schedule_of({**given, "cron_expression": expression})


def found(schedules: Sequence[Schedule], capacity: float = 14) -> dict[str, Recommendation]:
    """By schedule; one each."""
    state = health(schedules, NOW, capacity=capacity)
    told = improvements(schedules, state, NOW, capacity=capacity)
    by_id = {one.schedule_id: one for one in told}
    assert len(by_id) == len(told), "one for each schedule"
    assert {one.reason for one in told} <= REASONS
    assert {one.urgency for one in told} <= set(URGENCIES)
    return by_id


def moved(one: Schedule, told: Recommendation) -> Schedule:
    return replace(one, timing=timing_of(told.recommended))


def test_a_quiet_fleet_needs_nothing() -> None:
    assert found([]) == {}
    assert found([schedule(1), schedule(2, "30 6 * * 1"), schedule(3, "*/5 * * * *")]) == {}


def test_a_crowd_is_moved_as_the_plan_says() -> None:
    crowd = [schedule(number) for number in range(20)]
    told = found(crowd)
    assert told and {one.reason for one in told.values()} == {"hotspot"}
    after = [moved(one, told[one.id]) if one.id in told else one for one in crowd]
    assert health(after, NOW, capacity=14).hotspots == ()
    assert all(one.after <= 0.7 < one.before for one in told.values())


def test_the_younger_of_two_that_mean_the_same_is_cancelled() -> None:
    one, same = schedule(1, "@daily", task="t"), schedule(2, "00 00 * * *", task="t")
    (told,) = found([one, same, schedule(3, "7 5 * * *")]).values()
    assert (told.schedule_id, told.reason, told.current) == ("2", "duplicate", "00 00 * * *")
    assert told.before == pytest.approx(2 / 14) and told.after == pytest.approx(1 / 14)
    assert found([one, replace(same, status=schedule(9, status="PAUSED").status)]) == {}


def test_what_is_to_be_cancelled_is_not_also_moved() -> None:
    crowd = [schedule(number, task="t") for number in range(20)]
    told = found(crowd)
    assert len(told) == 19 and {one.reason for one in told.values()} == {"duplicate"}


def test_one_that_runs_into_itself_is_to_run_less_often() -> None:
    one = schedule(1, "*/5 * * * *", duration_estimate_seconds=15 * 60)
    (told,) = found([one, schedule(2, "*/5 * * * *", duration_estimate_seconds=300)]).values()
    assert (told.schedule_id, told.reason, told.urgency) == ("1", "conflict", "high")
    assert told.recommended == "at most every 15 min"
    assert told.before == pytest.approx((3 + 1) / 14) and told.after == pytest.approx((1 + 1) / 14)


def test_of_those_that_meet_on_an_asset_the_younger_is_moved_to_where_it_meets_none() -> None:
    on = {"asset_id": "press", "client_id": "c", "duration_estimate_seconds": 600}
    fleet = [schedule(n, "0 3 * * *", **on) for n in range(3)]
    told = found(fleet)
    assert set(told) == {"1", "2"}
    assert {(one.reason, one.urgency) for one in told.values()} == {("conflict", "high")}
    after = [fleet[0], *(moved(one, told[one.id]) for one in fleet[1:])]
    assert health(after, NOW, capacity=14).contending == ()
    for one, becomes in zip(fleet[1:], after[1:], strict=True):
        runs = load_map([one, becomes], NOW, capacity=1).concurrency
        assert runs.max() == 1, "it leaves the time at which it ran"
        assert told[one.id].before == pytest.approx(3 / 14)
        assert told[one.id].after == pytest.approx(1 / 14)


def test_where_no_free_time_is_within_the_window_nothing_is_recommended() -> None:
    on = {"asset_id": "press", "duration_estimate_seconds": 3600, "window_minutes": 10}
    assert found([schedule(n, "0 3 * * *", **on) for n in range(2)]) == {}
    fixed = {"asset_id": "press", "movable": False}
    assert found([schedule(n, "0 3 * * *", **fixed) for n in range(2)]) == {}


def test_an_hour_that_the_clock_skips_is_left() -> None:
    one = schedule(1, "30 2 * * *", timezone="America/New_York")
    told = found([one, schedule(2, "30 4 * * *", timezone="America/New_York")])
    (change,) = told.values()
    assert (change.schedule_id, change.reason, change.urgency) == ("1", "dst", "low")
    minute, hour = (int(word) for word in change.recommended.split()[:2])
    assert not 60 <= hour * 60 + minute < 180, "neither skipped nor repeated"
    fixed = replace(one, movable=False)
    assert found([fixed]) == {}


def test_a_move_stays_in_the_window_of_what_it_was_before_its_first_move() -> None:
    on = {"asset_id": "press", "duration_estimate_seconds": 600, "window_minutes": 30}
    other = replace(schedule(2, "29 3 * * *", **on), unmoved=timing_of("0 3 * * *"))
    (told,) = found([schedule(1, "25 3 * * *", **on), other]).values()
    minute, hour = (int(word) for word in told.recommended.split()[:2])
    assert told.schedule_id == "2" and hour * 60 + minute - 180 in range(-30, 16)


def test_very_many_conflicts_cost_no_more_than_some() -> None:
    on = {"asset_id": "press", "duration_estimate_seconds": 60}
    fleet = [schedule(n, "0 3 * * *", **on) for n in range(3 * MOST)]
    assert len(found(fleet, capacity=1000)) == MOST


def test_loads_are_never_below_zero() -> None:
    fleet = [
        schedule(1, "* * * * *", duration_estimate_seconds=3600),
        schedule(2, "every 30s", duration_estimate_seconds=120),
        schedule(3, "30 2 * * *", timezone="Europe/Berlin"),
    ]
    told = found(fleet, capacity=1000)
    assert set(told) == {"1", "2", "3"}
    assert all(one.before >= one.after >= 0 for one in told.values() if one.reason == "conflict")
    assert timedelta(0) < timedelta(seconds=told["1"].after)
