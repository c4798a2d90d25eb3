"""The beat among others: spoilt rows, locks, strict isolation, lost servers, and an early end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from idemwatch.demo.servers import RedisServer
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler import beat as module
from idemwatch.scheduler import publisher
from idemwatch.scheduler.changes import Change
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.firing_store import FROZEN_SECONDS
from idemwatch.scheduler.model import CatchUp
from support.desk import Desk, job
from support.proxy import TcpProxy
from support.stores import wait_until

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def due_ones(desk: Desk, count: int, **changed: Any) -> list[int]:
    """Schedules that are due."""
    given = {"misfire_grace": HOUR, **changed}
    ids = [desk.add(args=f"[{number}]", **given) for number in range(count)]
    for one in ids:
        desk.due(one)
    return ids


def sent(desk: Desk) -> list[str]:
    return [message["headers"]["id"] for message in desk.messages()]


# -- what others wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoilt",
    [
        r"""args = '["\ud800"]'""",
        "fromdate = 'infinity', uptodate = NULL",
        "uptodate = '-infinity'",
        "cron_expression = 'every 999999999s', next_due_at = '9990-01-01'",
    ],
)
def test_a_row_that_python_has_no_value_for_stops_nobody_else(desk: Desk, spoilt: str) -> None:
    bad, good = due_ones(desk, 2)
    desk.rows(f"UPDATE schedule SET {spoilt} WHERE id = %s", bad)
    assert desk.tick() > 0
    assert desk.outcomes(good) == ["fired"]
    assert len(desk.store.schedules().schedules) + len(desk.store.schedules().problems) == 2


def test_a_schedule_without_an_end_may_say_so_in_sql(desk: Desk) -> None:
    (one,) = due_ones(desk, 1)
    desk.rows("UPDATE schedule SET fromdate = '-infinity', uptodate = 'infinity'")
    desk.due(one)
    desk.tick()
    assert desk.outcomes(one) == ["fired"]


def test_a_key_function_that_fails_costs_the_key_and_not_the_message(desk: Desk) -> None:
    def no_key(*_: Any) -> str:
        raise RuntimeError

    desk.app.task(name="keyed", base=IdempotentTask, shared=False, idempotency_key=no_key)(job)
    (one,) = due_ones(desk, 1, task="keyed")
    desk.tick()
    assert desk.outcomes(one) == ["fired"] and len(sent(desk)) == 1


def test_headers_of_its_options_are_sent_and_are_seen_by_the_key(desk: Desk) -> None:
    desk.app.task(name="theirs", base=IdempotentTask, shared=False, idempotency_scope="user")(job)
    options = '{"headers":{"idempotency_user_id":"u7","x":1,"idempotency_due_at":"never"}}'
    due_ones(desk, 1, task="theirs", options=options)
    due_ones(desk, 1, options='{"headers":null,"expires":60}')
    desk.tick()
    theirs = next(one["headers"] for one in desk.messages() if one["headers"]["task"] == "theirs")
    assert theirs["x"] == 1 and theirs["idempotency_due_at"] != "never"
    assert ":user=u7:" in desk.one("SELECT record_key FROM schedule_firing ORDER BY 1 DESC LIMIT 1")
    assert len(sent(desk)) == 2


def test_a_schedule_that_is_deleted_with_its_message_in_hand_blocks_nobody(desk: Desk) -> None:
    (one,) = due_ones(desk, 1)
    desk.beats[0]._claim()
    publish = desk.beats[0]._publisher.publish
    waits = (
        "SELECT count(*) = 1 FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ThreadPoolExecutor(1) as pool:

        def publish_meanwhile(*given: Any) -> None:
            publish(*given)
            pool.submit(desk.rows, "DELETE FROM schedule WHERE id = %s", one)
            wait_until(lambda: desk.one(waits))

        desk.beats[0]._publisher.publish = publish_meanwhile  # type: ignore[method-assign,assignment]
        desk.tick()
    assert desk.beats[0]._trouble == "" and desk.outcomes(one) == []
    desk.tick()
    assert len(sent(desk)) == 1


# -- locks -----------------------------------------------------------------------------------------


def test_what_was_sent_is_marked_while_its_schedule_is_locked_and_counted_later(
    desk: Desk,
) -> None:
    one, other = due_ones(desk, 2)
    desk.beats[0]._claim()
    with psycopg.connect(desk.database_url) as operator:
        operator.execute("UPDATE schedule SET movable = false WHERE id = %s", (one,))
        desk.tick()
        assert desk.outcomes(one) == desk.outcomes(other) == ["fired"]
        counted = "SELECT execution_count FROM schedule ORDER BY id"
        assert desk.rows(counted) == [(0,), (1,)]
    desk.due(other, MINUTE)
    desk.tick()
    assert desk.rows(counted)[0] == (1,)
    assert len(sent(desk)) == len(set(sent(desk)))


def test_schedules_that_are_locked_hide_none_behind_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIMED_AT_ONCE", 2)
    ids = due_ones(desk, 4)
    for number, one in enumerate(ids):
        desk.due(one, (4 - number) * MINUTE)
    with psycopg.connect(desk.database_url) as operator:
        operator.execute("SELECT FROM schedule WHERE id = ANY (%s) FOR UPDATE", (ids[:3],))
        desk.tick()
        assert desk.outcomes(ids[3])[-1] == "fired" and desk.outcomes(ids[0]) == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_under_a_strict_default_isolation_nothing_is_sent_twice(desk: Desk, level: str) -> None:
    name = desk.one("SELECT current_database()")
    desk.rows(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    strict = Desk(desk.broker, desk.database_url)
    ids = due_ones(strict, 6)
    other = strict.beat()
    strict.beats.append(other)
    publish = strict.beats[0]._publisher.publish

    def publish_meanwhile(*given: Any) -> None:
        publish(*given)
        for one in ids:
            strict.due(one, HOUR)
        other._claim()

    strict.beats[0]._publisher.publish = publish_meanwhile  # type: ignore[method-assign,assignment]
    assert strict.tick() != 1.0
    for beat in strict.beats:
        beat.tick()
    assert len(sent(strict)) == len(set(sent(strict))) > 6
    assert strict.beats[0]._trouble == other._trouble == ""
    strict.close()


def test_imports_in_opposite_orders_do_not_deadlock(desk: Desk, database_url: str) -> None:
    from idemwatch.scheduler.schedule_store import ScheduleStore

    desk.add("every 7s")
    (one,) = desk.store.schedules().schedules
    many = [replace(one, args=f"[{number}]", name=f"n{number}") for number in range(300)]

    def bring(number: int) -> int:
        link = PostgresLink(database_url)
        try:
            return sum(ScheduleStore(link).insert(many if number % 2 else many[::-1]))
        finally:
            link.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(bring, range(4))) == 300


# -- changed in the second in which it is due ------------------------------------------------------


def test_a_schedule_that_is_moved_right_when_it_is_due_fires_once_and_then_as_it_was_moved(
    desk: Desk,
) -> None:
    one = desk.add(misfire_grace=HOUR, priority=5, kwargs='{"a":1}')
    desk.tick()
    moment = desk.due(one)
    (before,) = desk.store.schedules().schedules
    after = replace(before, timing=timing_of("0 0 1 1 *"), unmoved=before.timing)
    desk.store.apply([Change(before, after, "move")], "me")
    desk.tick()
    assert desk.rows("SELECT due_at, outcome FROM schedule_firing") == [(moment, "fired")]
    (message,) = desk.messages()
    assert message["headers"]["kwargsrepr"] == "{'a': 1}" and message["properties"]["priority"] == 5
    assert desk.one("SELECT next_due_at > clock_timestamp() FROM schedule")


def test_a_schedule_that_is_moved_right_after_it_was_claimed_fires_once(desk: Desk) -> None:
    (one,) = due_ones(desk, 1)
    desk.beats[0]._claim()
    desk.rows("UPDATE schedule SET cron_expression = '0 0 1 1 *'")
    desk.tick()
    assert desk.outcomes(one) == ["fired"] and len(sent(desk)) == 1


def test_a_due_time_between_a_change_and_the_beats_next_turn_fires(desk: Desk) -> None:
    one = desk.add("every 1s", catch_up=CatchUp.NONE)
    changed = desk.one("SELECT updated_at FROM schedule")
    wait_until(lambda: desk.one("SELECT clock_timestamp() > %s + interval '1.1 s'", changed))
    desk.tick()
    first = desk.one("SELECT min(due_at) FROM schedule_firing WHERE schedule_id = %s", one)
    assert changed < first <= changed + timedelta(seconds=1)


def test_what_came_into_the_table_before_any_beat_is_not_caught_up(desk: Desk) -> None:
    one = desk.add("0 * * * *")
    desk.rows("ALTER TABLE schedule DISABLE TRIGGER schedule_version")
    desk.rows("UPDATE schedule SET updated_at = now() - interval '1 week'")
    desk.tick()
    assert [outcome for outcome in desk.outcomes(one) if outcome != "fired"] == []


# -- what waited too long --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "outcomes"),
    [
        (CatchUp.ONE, ["missed", "late"]),
        (CatchUp.ALL, ["late", "late"]),
        (CatchUp.NONE, ["missed", "missed"]),
    ],
)
def test_what_the_broker_did_not_take_in_time_is_caught_up_as_any_misfire(
    desk: Desk, catch_up: CatchUp, outcomes: list[str]
) -> None:
    one = desk.add(catch_up=catch_up, misfire_grace=HOUR)
    desk.due(one, MINUTE)
    desk.rows("UPDATE schedule SET uptodate = %s", desk.due(one) + timedelta(seconds=1))
    desk.due(one, MINUTE)
    desk.beats[0]._claim()
    desk.rows("UPDATE schedule_firing SET publish_until = clock_timestamp()")
    desk.tick()
    assert desk.outcomes(one) == outcomes and len(sent(desk)) == outcomes.count("late")


def test_what_waited_too_long_is_not_sent_beside_one_that_is_due(desk: Desk) -> None:
    (one,) = due_ones(desk, 1)
    desk.due(one, MINUTE)
    desk.rows("UPDATE schedule SET uptodate = next_due_at + interval '1 second'")
    desk.due(one, MINUTE)
    desk.beats[0]._claim()
    desk.rows("UPDATE schedule_firing SET publish_until = clock_timestamp()")
    desk.rows("UPDATE schedule SET uptodate = NULL")
    desk.due(one)
    desk.tick()
    assert desk.outcomes(one) == ["missed", "fired"]


def test_while_the_broker_is_away_nothing_is_claimed_that_would_be_missed(
    database_url: str, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    desk = Desk(server.database(0), database_url)
    server.kill()
    (one,) = due_ones(desk, 1)
    assert desk.tick() == 1.0
    assert desk.outcomes(one) == []
    desk.close()


def test_a_message_with_a_fault_is_given_up_once_its_grace_is_over(desk: Desk) -> None:
    (one,) = due_ones(desk, 1, options='{"countdown":"soon"}')
    desk.tick()
    desk.rows("UPDATE schedule_firing SET publish_after = now(), publish_until = now()")
    desk.tick()
    assert desk.outcomes(one) == ["missed"] and sent(desk) == []


@pytest.mark.parametrize(("limit", "value"), [("DUE_TIMES_AT_ONCE", 10), ("BYTES_AT_ONCE", 1000)])
def test_a_long_backlog_is_claimed_as_it_is_sent_and_none_of_it_is_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    one = desk.add("every 1s", catch_up=CatchUp.ALL, misfire_grace=HOUR)
    moment = desk.due(one, MINUTE)
    desk.rows("UPDATE schedule SET uptodate = %s", moment + timedelta(seconds=55))
    desk.due(one, MINUTE)
    waiting = "SELECT count(*) FROM schedule_firing WHERE outcome = 'pending'"
    most = 0
    while desk.tick() == 0.0:
        most = max(most, desk.one(waiting))
    assert desk.outcomes(one) == ["fired"] * 55 and most <= 10


def test_a_megabyte_is_sent_for_each_due_time(desk: Desk) -> None:
    one = desk.add("every 1s", catch_up=CatchUp.ALL, misfire_grace=HOUR, args=f'["{"x" * 2**20}"]')
    moment = desk.due(one, MINUTE)
    desk.rows("UPDATE schedule SET uptodate = %s", moment + timedelta(seconds=40))
    desk.due(one, MINUTE)
    while desk.tick() == 0.0:
        pass
    assert desk.outcomes(one) == ["fired"] * 40
    assert desk.rows("SELECT count(*) FROM schedule_firing WHERE message IS NOT NULL") == [(0,)]


# -- an early end ----------------------------------------------------------------------------------


def test_a_beat_that_is_told_to_end_says_what_it_has_sent(desk: Desk) -> None:
    due_ones(desk, 3)
    publish = desk.beats[0]._publisher.publish

    def publish_and_end(*given: Any) -> None:
        if len(sent(desk)) == 2:
            desk.beats[0].close()  # as Celery's handler of SIGTERM does, wherever it is
            raise SystemExit
        publish(*given)

    desk.beats[0]._publisher.publish = publish_and_end  # type: ignore[method-assign,assignment]
    with pytest.raises(SystemExit):
        desk.tick()
    marked = "SELECT outcome, count(*) FROM schedule_firing GROUP BY outcome ORDER BY outcome"
    assert desk.rows(marked) == [("fired", 2), ("pending", 1)]
    desk.beats.append(desk.beat())
    desk.beats[1].tick()
    assert len(sent(desk)) == len(set(sent(desk))) == 3


def test_the_servers_of_results_are_not_asked(
    redis_url: str, database_url: str, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    desk = Desk(redis_url, database_url, result_backend=server.database(0))
    desk.app.conf.task_ignore_result = False
    desk.task.ignore_result = False
    server.kill()
    due_ones(desk, 3)
    desk.tick()
    assert len(sent(desk)) == 3 and not desk.messages()[0]["headers"]["ignore_result"]
    desk.close()


def test_a_broker_that_says_nothing_holds_a_beat_for_seconds_only(
    redis_url: str,
    database_url: str,
    tcp_proxy: Callable[[str], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(publisher, "PUBLISH_SECONDS", 0.3)
    monkeypatch.setattr(publisher, "CONNECT_SECONDS", 0.3)
    proxy = tcp_proxy(redis_url)
    desk = Desk(proxy.url(redis_url), database_url)
    desk.broker = redis_url
    desk.tick()
    caplog.set_level(logging.INFO)
    first, second = due_ones(desk, 2)
    publish = desk.beats[0]._publisher.publish

    def publish_and_hang(*given: Any) -> None:
        publish(*given)
        proxy.blackhole()

    desk.beats[0]._publisher.publish = publish_and_hang  # type: ignore[method-assign,assignment]
    assert [desk.tick(), desk.tick()] == [1.0, 1.0]
    assert sorted(desk.outcomes(first) + desk.outcomes(second)) == ["fired", "pending"]
    desk.beats[0]._publisher.publish = publish  # type: ignore[method-assign]
    proxy.heal()
    proxy.reset()
    wait_until(lambda: desk.tick() != 1.0)
    assert desk.outcomes(first) == desk.outcomes(second) == ["fired"]
    desk.close()


def test_a_message_that_hangs_ends_before_the_rows_of_its_beat_are_anothers() -> None:
    assert FROZEN_SECONDS / 2 + publisher.PUBLISH_SECONDS < FROZEN_SECONDS
