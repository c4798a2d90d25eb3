"""The beat, turn by turn, on a real PostgreSQL and a real broker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.scheduler.beat import Scheduler
from idemwatch.scheduler.firing import task_id_of
from idemwatch.scheduler.model import CatchUp, Status
from idemwatch.scheduler.occurrences import Moments
from support.desk import Desk, in_an_hour
from support.stores import wait_until

MINUTE = timedelta(minutes=1)


def test_a_new_schedule_is_planned_and_nothing_is_sent(desk: Desk) -> None:
    one = desk.add("0 0 1 1 *")
    assert desk.tick() == 5.0
    assert desk.one("SELECT next_due_at > clock_timestamp() FROM schedule WHERE id = %s", one)
    assert desk.messages() == [] and desk.outcomes(one) == []


def test_a_due_time_is_sent_with_its_schedule_and_time_and_counted(desk: Desk) -> None:
    one = desk.add(args='["ä",1]', kwargs='{"k":null}', priority=4, options='{"queue":"slow"}')
    in_an_hour(desk)
    moment = desk.due(one)
    desk.tick()
    (message,) = desk.messages()
    headers, properties = message["headers"], message["properties"]
    due = moment.isoformat().replace("+00:00", "Z")
    assert (headers["idempotency_schedule"], headers["idempotency_due_at"]) == (str(one), due)
    assert headers["id"] == task_id_of(one, moment) and headers["task"] == "job"
    assert headers["argsrepr"] == "['ä', 1]" and headers["kwargsrepr"] == "{'k': None}"
    assert (properties["delivery_info"]["routing_key"], properties["priority"]) == ("slow", 4)
    assert desk.outcomes(one) == ["fired"]
    row = desk.rows(
        "SELECT execution_count, last_execution_at IS NOT NULL, next_due_at FROM schedule"
    )
    assert row == [(1, True, moment + MINUTE)]
    kept = desk.rows("SELECT record_key, message, beat FROM schedule_firing")
    assert kept == [
        (desk.task.idempotency_call_key(["ä", 1], {"k": None}, headers=headers).key, None,
         desk.beats[0].name)
    ]  # fmt: skip


def test_two_firings_of_one_schedule_are_two_keys_and_one_is_the_same_again(desk: Desk) -> None:
    def key(schedule: str, due: str) -> str:
        headers = {"idempotency_schedule": schedule, "idempotency_due_at": due}
        return str(desk.task.idempotency_call_key(headers=headers).key)

    keys = {key("1", "2026-01-01T00:00:00Z"), key("1", "2026-01-01T00:01:00Z"), key("2", "x")}
    keys |= {key("1", "2026-01-01T00:00:00Z"), key("", ""), key("1", "")}
    assert len(keys) == 4


def test_a_task_that_only_its_worker_knows_is_sent_by_name(desk: Desk) -> None:
    one = desk.add(task="elsewhere")
    in_an_hour(desk)
    desk.due(one)
    desk.tick()
    assert [message["headers"]["task"] for message in desk.messages()] == ["elsewhere"]
    assert desk.rows("SELECT record_key FROM schedule_firing") == [(None,)]


def test_any_number_of_beats_send_a_due_time_once(desk: Desk) -> None:
    ids = [desk.add(args=f"[{number}]") for number in range(50)]
    in_an_hour(desk)
    for one in ids:
        desk.due(one)
    desk.beats += [desk.beat() for _ in range(3)]
    for _ in range(6):
        for beat in desk.beats:
            beat.tick()
    assert len(desk.messages()) == 50
    assert desk.rows("SELECT count(DISTINCT beat) > 1 FROM schedule_firing") == [(True,)]


def test_a_claim_of_what_another_beat_advanced_claims_nothing(desk: Desk) -> None:
    one = desk.add()
    in_an_hour(desk)
    desk.due(one)
    other = desk.beat()
    desk.beats.append(other)
    rows = other._firings.due(10)
    desk.tick()
    from idemwatch.scheduler.beat import _step

    assert other._firings.advance([_step(row, 9) for row in rows]) == {}
    assert len(desk.messages()) == 1


def test_a_schedule_that_was_changed_after_it_was_read_is_read_again(desk: Desk) -> None:
    one = desk.add()
    rows = desk.beats[0]._firings.due(10)
    desk.rows("UPDATE schedule SET cron_expression = '0 0 1 1 *' WHERE id = %s", one)
    from idemwatch.scheduler.beat import _step

    assert desk.beats[0]._firings.advance([_step(row, 9) for row in rows]) == {}
    assert desk.rows("SELECT next_due_at FROM schedule") == [(None,)]


def test_a_single_run_is_sent_once_and_never_again(desk: Desk) -> None:
    when = desk.one("SELECT clock_timestamp()") - timedelta(seconds=5)
    one = desk.add(timing=Moments((when,)), fromdate=when)
    for _ in range(3):
        desk.tick()
    assert desk.outcomes(one) == ["fired"]
    assert desk.rows("SELECT next_due_at = 'infinity' FROM schedule") == [(True,)]
    desk.rows("UPDATE schedule SET status = 'PAUSED'")
    desk.rows("UPDATE schedule SET status = 'PENDING'")  # planned anew: its one time is taken
    desk.tick()
    assert desk.outcomes(one) == ["fired"] and len(desk.messages()) == 1


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED])
def test_what_is_not_active_is_not_sent(desk: Desk, status: Status) -> None:
    one = desk.add(status=status)
    desk.due(one)
    desk.tick()
    assert desk.outcomes(one) == [] and desk.messages() == []


# -- misfires --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "outcomes"),
    [
        (CatchUp.ONE, ["missed"] * 9 + ["late"]),
        (CatchUp.ALL, ["late"] * 10),
        (CatchUp.NONE, ["missed"] * 10),
    ],
)
def test_after_an_outage_misfires_are_recorded_and_caught_up(
    desk: Desk, catch_up: CatchUp, outcomes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    one = desk.add("0 * * * *", catch_up=catch_up, misfire_grace=timedelta(seconds=1))
    moment = desk.one("SELECT date_trunc('hour', clock_timestamp())") - timedelta(hours=9)
    desk.rows("UPDATE schedule SET next_due_at = %s", moment)
    desk.tick()
    assert desk.outcomes(one) == outcomes
    missed, late = outcomes.count("missed"), outcomes.count("late")
    counts = desk.rows("SELECT missed_count, late_count, execution_count FROM schedule")
    assert counts == [(missed, late, late)]
    assert ("missed" in caplog.text) == bool(missed)


def test_a_message_that_waited_past_its_grace_is_missed_and_not_sent(desk: Desk) -> None:
    one = desk.add(catch_up=CatchUp.NONE)
    in_an_hour(desk)
    desk.due(one)
    desk.beats[0]._claim()
    desk.rows("UPDATE schedule_firing SET publish_until = clock_timestamp()")
    desk.tick()
    assert desk.outcomes(one) == ["missed"] and desk.messages() == []
    assert desk.rows("SELECT missed_count FROM schedule") == [(1,)]


def test_a_due_time_of_a_schedule_that_was_paused_since_is_not_sent(desk: Desk) -> None:
    one = desk.add()
    in_an_hour(desk)
    desk.due(one)
    desk.beats[0]._claim()
    desk.rows("UPDATE schedule SET status = 'PAUSED'")
    desk.tick()
    assert desk.outcomes(one) == ["missed"] and desk.messages() == []


def test_a_row_that_cannot_be_read_stops_nobody_else(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = desk.add("every 61s"), desk.add()
    in_an_hour(desk)
    desk.rows("UPDATE schedule SET cron_expression = 'every x' WHERE id = %s", bad)
    desk.due(good)
    desk.tick()
    assert (desk.outcomes(bad), desk.outcomes(good)) == ([], ["fired"])
    assert f"schedule {bad} (nevery 61s) never fires" in caplog.text
    caplog.clear()
    desk.tick()
    assert "never fires" not in caplog.text
    desk.rows("UPDATE schedule SET cron_expression = 'every 60s', args = '[2]' WHERE id = %s", bad)
    desk.tick()
    assert desk.one("SELECT next_due_at < 'infinity' FROM schedule WHERE id = %s", bad)


# -- trouble ---------------------------------------------------------------------------------------


def test_a_message_with_a_fault_waits_and_holds_nobody_up(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = desk.add(options='{"countdown":"soon"}'), desk.add("every 30s")
    in_an_hour(desk)
    desk.due(bad)
    desk.due(good)
    desk.tick()
    assert desk.outcomes(bad) == ["pending"] and "fired" in desk.outcomes(good)
    assert f"schedule {bad}" in caplog.text and "cannot be published" in caplog.text
    assert desk.one("SELECT publish_after > clock_timestamp() + interval '20 seconds' "
                    "FROM schedule_firing WHERE outcome = 'pending'")  # fmt: skip


def test_a_broker_that_is_away_is_told_once_and_nothing_is_lost(
    database_url: str, new_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis()
    desk = Desk(server.database(0), database_url)
    caplog.set_level(logging.INFO)
    try:
        one, other = desk.add(), desk.add("every 120s")
        in_an_hour(desk)
        desk.due(one)
        desk.tick()
        server.kill()
        desk.due(other, 10 * MINUTE)
        assert [desk.tick(), desk.tick()] == [1.0, 1.0]
        assert caplog.text.count("schedules wait: the broker takes no message") == 1
        assert "fired" not in desk.outcomes(other)
        server.restart()
        wait_until(lambda: desk.tick() != 1.0)
        assert set(desk.outcomes(other)) == {"fired"} and "schedules go on" in caplog.text
    finally:
        desk.close()


def test_a_database_that_is_away_is_told_once_and_waited_for(
    redis_url: str,
    new_postgres: Callable[..., PostgresServer],
    migrate: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = new_postgres()
    migrate(server.url)
    desk = Desk(redis_url, server.url)
    try:
        one = desk.add()
        in_an_hour(desk)
        desk.due(one)
        server.kill()
        assert [desk.tick(), desk.tick()] == [1.0, 1.0]
        assert caplog.text.count("schedules wait: postgres is unavailable") == 1
        server.restart()
        wait_until(lambda: desk.tick() != 1.0)
        assert desk.outcomes(one) == ["fired"]
    finally:
        desk.close()


def test_a_beat_that_froze_with_messages_in_hand_lets_go_of_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from idemwatch.scheduler import beat as module

    ids = [desk.add(args=f"[{number}]") for number in range(3)]
    in_an_hour(desk)
    for one in ids:
        desk.due(one)
    publisher = desk.beats[0]._publisher
    publish = publisher.publish

    def publish_and_freeze(*given: Any) -> None:
        publish(*given)
        monkeypatch.setattr(module, "FROZEN_SECONDS", -1)

    monkeypatch.setattr(publisher, "publish", publish_and_freeze)
    assert desk.tick() == 0.1
    assert "was frozen" in caplog.text and len(desk.messages()) == 1
    monkeypatch.undo()
    desk.tick()
    sent = [message["headers"]["id"] for message in desk.messages()]
    assert len(sent) == len(set(sent)) == 3


def test_a_connection_lost_after_publishing_leads_to_a_second_publish_of_the_same_id(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idemwatch.scheduler import firing_sql as module

    one = desk.add()
    in_an_hour(desk)
    desk.due(one)
    with monkeypatch.context() as lost:
        lost.setattr(module, "MARK", "SELECT pg_terminate_backend(pg_backend_pid()), %(beat)s")
        assert desk.tick() == 1.0
    assert desk.outcomes(one) == ["pending"]
    desk.tick()
    assert desk.outcomes(one) == ["fired"]
    assert len({message["headers"]["id"] for message in desk.messages()}) == 1
    assert len(desk.messages()) == 2


def test_a_beat_says_that_it_lives_and_leaves_in_order(desk: Desk) -> None:
    desk.rows("INSERT INTO schedule_beat VALUES ('gone', now(), now() - interval '2 days')")
    desk.tick()
    name = desk.beats[0].name
    assert desk.rows("SELECT name FROM schedule_beat") == [(name,)]
    desk.beats[0].close()
    assert desk.rows("SELECT name FROM schedule_beat") == []


def test_a_beat_without_a_database_ends_and_says_what_to_set(redis_url: str) -> None:
    app = Celery("bare", broker=redis_url, set_as_current=False)
    with pytest.raises(SystemExit, match="idempotency_database_url: is not set"):
        Scheduler(app=app)
    lazy = Scheduler(app=app, lazy=True)  # as Celery makes one for its banner
    assert "PostgreSQL" in lazy.info
    lazy.close()


def test_amqp_is_asked_to_confirm_each_message() -> None:
    from idemwatch.scheduler.publisher import Publisher

    for url, asked in (("amqp://h//", True), (["pyamqp://h//", "amqp://i//"], True),
                       ("redis://h/0", None)):  # fmt: skip
        app = Celery("bare", broker=url, set_as_current=False)
        assert Publisher(app)._options().get("confirm_publish") == asked
