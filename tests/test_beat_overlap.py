"""Runs of one schedule that meet: let through, skipped, or the newest one kept waiting."""

from __future__ import annotations

from datetime import timedelta

from idemwatch.scheduler.model import Overlap
from support.desk import Desk, in_an_hour

MINUTE = timedelta(minutes=1)


def held(desk: Desk, schedule_id: int, seconds: float = 60) -> str:
    """The last firing's run holds a live lease; its key."""
    key = desk.one(
        "SELECT record_key FROM schedule_firing WHERE schedule_id = %s AND record_key IS NOT NULL "
        "ORDER BY due_at DESC LIMIT 1", schedule_id,
    )  # fmt: skip
    desk.rows(
        "INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, "
        "owner, task_id, attempt, fence, lease_until, expires_at) VALUES ('idemwatch:' || %s, "
        "'job', 'global', '', 'postgres', 'running', 'o', 't', 0, 1, "
        "clock_timestamp() + make_interval(secs => %s), clock_timestamp() + interval '1 day')",
        key, seconds,
    )  # fmt: skip
    return str(key)


def fire(desk: Desk, schedule_id: int, ago: int) -> None:
    desk.due(schedule_id, ago * MINUTE)
    desk.rows("UPDATE schedule SET uptodate = next_due_at + interval '1 second'")
    desk.due(schedule_id, ago * MINUTE)
    desk.tick()


def test_a_run_that_holds_its_lease_makes_the_next_one_skipped(desk: Desk) -> None:
    one = desk.add(overlap=Overlap.SKIP)
    in_an_hour(desk)
    fire(desk, one, 3)
    held(desk, one)
    fire(desk, one, 2)
    assert desk.outcomes(one) == ["fired", "skipped_overlap"]
    assert desk.rows("SELECT skipped_count, execution_count FROM schedule") == [(1, 1)]


def test_a_message_without_a_run_or_a_lease_that_ran_out_holds_nothing_up(desk: Desk) -> None:
    one = desk.add(overlap=Overlap.SKIP)
    in_an_hour(desk)
    fire(desk, one, 5)
    fire(desk, one, 4)
    held(desk, one, seconds=-1)
    fire(desk, one, 3)
    assert desk.outcomes(one) == ["fired"] * 3


def test_one_waits_for_the_run_to_end_and_it_is_the_newest(desk: Desk) -> None:
    one = desk.add(overlap=Overlap.QUEUE_ONE)
    in_an_hour(desk)
    fire(desk, one, 5)
    key = held(desk, one)
    fire(desk, one, 4)
    fire(desk, one, 3)
    again = "UPDATE schedule_firing SET publish_after = clock_timestamp()"
    desk.rows(again)
    desk.tick()
    assert desk.outcomes(one) == ["fired", "skipped_overlap", "pending"]
    assert desk.rows("SELECT publish_until = 'infinity' FROM schedule_firing "
                     "WHERE outcome = 'pending'") == [(True,)]  # fmt: skip
    desk.rows("DELETE FROM idempotency_record WHERE key = 'idemwatch:' || %s", key)
    desk.rows(again)
    desk.tick()
    assert desk.outcomes(one) == ["fired", "skipped_overlap", "fired"]


def test_of_a_plain_task_no_lease_tells_and_each_due_time_is_sent(desk: Desk) -> None:
    one = desk.add(task="plain", overlap=Overlap.SKIP)
    in_an_hour(desk)
    fire(desk, one, 5)
    fire(desk, one, 4)
    assert desk.outcomes(one) == ["fired", "fired"]


def test_a_second_due_time_in_one_turn_gives_the_first_time_to_begin(desk: Desk) -> None:
    one = desk.add(overlap=Overlap.SKIP)
    in_an_hour(desk)
    desk.due(one, MINUTE)
    desk.tick()
    assert desk.outcomes(one) == ["fired", "pending"]
