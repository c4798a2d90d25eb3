"""Schedules that no expression tells, by the sun or by anyone's code: foreseen by asking them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery.schedules import BaseSchedule, crontab, schedstate, schedule, solar
from idemwatch.scheduler.occurrences import Moments
from support.peers import DAY, MONDAY, by_name, celery_runs, new_app, read, read_one, told


@pytest.mark.parametrize("event", ["sunrise", "solar_noon", "dusk_astronomical"])
def test_the_sun_is_foreseen_for_eight_days(event: str) -> None:
    found = read_one(solar(event, 48.2, 16.37))
    assert isinstance(found.timing, Moments)
    assert found.timing.text == f"{event} at 48.2, 16.37"
    made = solar(event, 48.2, 16.37, app=new_app())
    assert [
        one - other
        for one, other in zip(found.timing.at, celery_runs(made, MONDAY, 8), strict=True)
    ] == pytest.approx([timedelta(0)] * 8, abs=timedelta(seconds=1))


def test_a_sun_that_does_not_rise_has_no_runs() -> None:
    polar = {"one": {"task": "t", "schedule": solar("sunrise", 78.2, 15.6)}}
    inventory = read(polar, datetime(2026, 12, 10, tzinfo=UTC))
    if celery.VERSION < (5, 7):  # whose own reckoning fails there
        assert "it cannot say when it runs: TypeError" in told(inventory)["one"]
    else:
        assert by_name(inventory)["one"].timing == Moments((), "sunrise at 78.2, 15.6")


class Sevens(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """Each seven hours, told by `remaining_estimate`."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        left: timedelta = last_run_at + timedelta(hours=7) - self.now()
        return left


class RealClock(Sevens):
    """One that looks at the clock on the wall."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + timedelta(hours=7) - datetime.now(UTC)


class OfficeHours(schedule):  # type: ignore[misc]
    """An interval that is kept from 9 to 17, told by `is_due`."""

    def __repr__(self) -> str:
        return f"<office hours: each {self.run_every}>"

    def is_due(self, last_run_at: datetime) -> Any:
        if 9 <= self.now().hour < 17:
            return super().is_due(last_run_at)
        return schedstate(False, 60)


class Own(BaseSchedule):  # type: ignore[misc]
    """One that answers what it is told to."""

    def __init__(self, left: Any) -> None:
        super().__init__()
        self.left = left

    def remaining_estimate(self, last_run_at: datetime) -> Any:
        if isinstance(self.left, Exception):
            raise self.left
        return self.left and last_run_at + self.left - self.now()


class Crontab(crontab):  # type: ignore[misc]
    """A crontab that knows holidays: none on odd days."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        left: timedelta = super().remaining_estimate(last_run_at)
        run = self.now() + left
        return self.remaining_estimate(run) if run.day % 2 else left


def test_a_custom_schedule_is_foreseen() -> None:
    found = read_one(Sevens())
    assert isinstance(found.timing, Moments)
    assert found.timing.at == tuple(MONDAY + n * timedelta(hours=7) for n in range(1, 28))
    assert found.timing.text.endswith("Sevens (one)")


def test_a_custom_schedule_on_the_real_clock_is_foreseen() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    timing = read_one(RealClock(), now).timing
    assert isinstance(timing, Moments)
    late = [one - now - n * timedelta(hours=7) for n, one in enumerate(timing.at, 1)]
    assert len(late) == 27 and max(map(abs, late)) < timedelta(minutes=1)


def test_a_custom_schedule_is_asked_as_beat_asks() -> None:
    found = read_one(OfficeHours(1800))
    assert isinstance(found.timing, Moments) and found.timing.text.startswith("<office hours")
    assert {one.hour for one in found.timing.at} == set(range(9, 17))
    first_day = [one for one in found.timing.at if one < MONDAY + DAY]
    assert first_day == [MONDAY + timedelta(hours=9, minutes=30 * n) for n in range(16)]


def test_a_crontab_with_rules_of_its_own_is_foreseen() -> None:
    timing = read_one(Crontab(minute=0, hour=5)).timing
    assert isinstance(timing, Moments)
    assert [one.day for one in timing.at] == [2, 4, 6, 8]


def test_a_custom_schedule_that_has_ended_has_no_runs() -> None:
    assert getattr(read_one(Own(None)).timing, "at", None) == ()


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(0), "never advances"),
        (timedelta(hours=-1), "never advances"),
        (timedelta(seconds=1), "over 100,000 times"),
        (KeyError("holidays"), "KeyError: 'holidays'"),
        ("soon", "TypeError"),
    ],
)
def test_a_custom_schedule_that_leads_nowhere_is_a_problem(left: Any, said: str) -> None:
    made = Own(left)
    assert said in told(read({"one": {"task": "t", "schedule": made}}))["one"]
    assert made.nowfun is None  # it has its own clock again


class Pestering(BaseSchedule):  # type: ignore[misc]
    """One that is never due, and is to be asked at once again."""

    def is_due(self, last_run_at: datetime) -> Any:
        return schedstate(False, 0)


def test_one_that_asks_to_be_asked_without_end_is_a_problem() -> None:
    inventory = read({"one": {"task": "t", "schedule": Pestering()}})
    assert "never advances" in told(inventory)["one"]
