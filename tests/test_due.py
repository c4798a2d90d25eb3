"""What of a schedule's due times is fired, late, or missed: decided from plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.due import Advance, Due, advance
from idemwatch.scheduler.model import CatchUp, Schedule
from idemwatch.scheduler.occurrences import Moments

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


def schedule(text: str = "0 * * * *", **changed: Any) -> Schedule:
    return Schedule(id="1", task="t", timing=timing_of(text), **changed)


def fired(found: Advance) -> list[datetime]:
    return [one.at for one in found.due if not one.missed]


def missed(found: Advance) -> list[datetime]:
    return [one.at for one in found.due if one.missed]


def test_a_new_schedule_begins_with_its_first_run_after_now() -> None:
    assert advance(schedule(), None, NOON) == Advance((), NOON + HOUR)
    later = schedule(fromdate=NOON + 3 * HOUR)
    assert advance(later, None, NOON) == Advance((), NOON + 3 * HOUR)
    before = schedule(fromdate=NOON - 300 * HOUR)
    assert advance(before, None, NOON).next_at == NOON + HOUR


def test_what_is_not_due_yet_stays_as_it_was_planned() -> None:
    assert advance(schedule(), NOON + HOUR, NOON) == Advance((), NOON + HOUR)


def test_a_due_time_within_its_grace_is_fired_and_may_wait_until_the_end_of_it() -> None:
    found = advance(schedule(), NOON, NOON + MINUTE)
    (one,) = found.due
    assert (one.at, one.missed, one.late, one.until) == (NOON, False, False, NOON + MINUTE)
    assert found.next_at == NOON + HOUR


def test_a_due_time_past_its_grace_is_caught_up_once() -> None:
    found = advance(schedule(), NOON, NOON + MINUTE + SECOND)
    (one,) = found.due
    assert one.late and not one.missed and one.until == NOON + 2 * MINUTE + SECOND


def test_of_many_misfires_the_latest_is_fired_and_the_others_are_missed() -> None:
    found = advance(schedule(), NOON, NOON + 3.5 * HOUR)
    assert fired(found) == [NOON + 3 * HOUR]
    assert missed(found) == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert found.next_at == NOON + 4 * HOUR


def test_a_misfire_is_not_caught_up_beside_one_that_is_on_time() -> None:
    found = advance(schedule(), NOON, NOON + 3 * HOUR)
    assert [one.at for one in found.due if one.late] == []
    assert fired(found) == [NOON + 3 * HOUR] and len(missed(found)) == 3


@pytest.mark.parametrize(("catch_up", "count"), [(CatchUp.ALL, 4), (CatchUp.NONE, 0)])
def test_all_or_none_are_caught_up(catch_up: CatchUp, count: int) -> None:
    found = advance(schedule(catch_up=catch_up), NOON, NOON + 3.5 * HOUR)
    assert len(fired(found)) == count and len(found.due) == 4


def test_a_long_outage_is_dealt_with_in_steps_and_only_the_last_is_caught_up() -> None:
    every, now = schedule("every 1s"), NOON + 2500 * SECOND + SECOND / 2
    steps, planned = 0, NOON
    due: list[Due] = []
    while planned <= now:
        found = advance(every, planned, now, most=1000)
        due += found.due
        assert found.next_at is not None
        planned, steps = found.next_at, steps + 1
    assert steps == 3
    assert [one.at for one in due] == [NOON + n * SECOND for n in range(2501)]
    on_time = [one for one in due if not one.missed]
    assert len(on_time) == 60 and not any(one.late for one in due)


def test_a_single_run_fires_once_though_it_was_written_too_late() -> None:
    single = Schedule(id="1", task="t", timing=Moments((NOON,)), fromdate=NOON)
    assert advance(single, None, NOON - HOUR) == Advance((), NOON)
    found = advance(single, None, NOON + SECOND)
    assert fired(found) == [NOON] and found.next_at is None
    late = advance(single, None, NOON + HOUR)
    assert [one.late for one in late.due] == [True]


def test_nothing_is_due_once_the_schedule_has_ended() -> None:
    ending = schedule(uptodate=NOON + HOUR)
    found = advance(ending, NOON, NOON)
    assert fired(found) == [NOON] and found.next_at is None
    assert advance(ending, NOON + HOUR, NOON + 5 * HOUR) == Advance((), None)
    assert advance(ending, None, NOON + HOUR) == Advance((), None)


def test_a_schedule_that_never_fires_has_no_next_run() -> None:
    assert advance(schedule("0 0 30 2 *"), None, NOON) == Advance((), None)


@given(
    every=st.integers(1, 300),
    outage=st.integers(0, 4000),
    grace=st.integers(1, 600),
    catch_up=st.sampled_from(CatchUp),
    most=st.integers(1, 50),
)
def test_each_due_time_is_dealt_with_once_whatever_the_steps(
    every: int, outage: int, grace: int, catch_up: CatchUp, most: int
) -> None:
    one = schedule(f"every {every}s", catch_up=catch_up, misfire_grace=grace * SECOND)
    planned = advance(one, None, NOON).next_at
    now = NOON + outage * SECOND
    assert planned is not None
    due: list[Due] = []
    while planned <= now:
        found = advance(one, planned, now, most=most)
        due += found.due
        assert found.next_at is not None and found.next_at > planned
        planned = found.next_at
    whole = (
        [at for n in range(5000) if (at := due[0].at + n * every * SECOND) <= now] if due else []
    )
    assert [d.at for d in due] == whole
    late = [d for d in due if d.late]
    on_time = [d for d in due if not d.late and not d.missed]
    assert [d.at for d in on_time] == [at for at in whole if now - at <= grace * SECOND]
    assert all(d.until >= now or d.missed for d in due)
    if catch_up is CatchUp.ONE:
        assert len(late) == (1 if due and not on_time else 0)
    elif catch_up is CatchUp.NONE:
        assert not late
    else:
        assert len(late) + len(on_time) == len(due)


@pytest.mark.parametrize(
    ("text", "zone", "day", "local"),
    [
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30"]),  # a fold
        ("30 2 * * *", "America/New_York", "2026-03-08", ["03:00"]),  # a gap
        ("30 * * * *", "Australia/Lord_Howe", "2026-04-05", None),  # a fold of half an hour
        ("0 0 * * *", "America/Santiago", "2026-09-06", ["01:00"]),  # a gap at midnight
    ],
)
@pytest.mark.parametrize("step", [MINUTE, 50 * MINUTE, 30 * HOUR])
def test_each_wall_time_fires_once_however_often_the_beat_looks(
    text: str, zone: str, day: str, local: list[str] | None, step: timedelta
) -> None:
    one = schedule(text, zone=zone, catch_up=CatchUp.ALL)
    here = ZoneInfo(zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=here).astimezone(UTC) - HOUR
    now, planned, due = begin, advance(one, None, begin).next_at, list[datetime]()
    while now < begin + 27 * HOUR:
        now += step
        found = advance(one, planned, now)
        due += [d.at for d in found.due]
        planned = found.next_at
    assert len(set(due)) == len(due)
    walls = [f"{at.astimezone(here):%H:%M}" for at in due if str(at.astimezone(here))[:10] == day]
    assert local is None or walls == local


def test_a_step_looks_no_further_than_the_next_run() -> None:
    for text in ("every 999999999s", "0 0 29 2 1", "0 12 25 11 *"):
        found = advance(schedule(text), NOON, NOON)
        assert fired(found) == [NOON] and found.next_at is not None


def test_one_that_came_to_be_since_the_beat_looked_begins_there_but_not_with_a_misfire() -> None:
    every, now = schedule("every 1s"), NOON + SECOND / 2
    assert fired(advance(every, None, now, since=now - 3 * SECOND)) == [
        NOON - 2 * SECOND, NOON - SECOND, NOON,
    ]  # fmt: skip
    old = advance(every, None, now, since=now - 9 * HOUR)
    assert len(fired(old)) == 60 and not missed(old)
    assert advance(every, None, now, since=now + HOUR).next_at == NOON + SECOND
