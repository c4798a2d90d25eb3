"""Workers while Redis, PostgreSQL or both are away: no work is lost, none is done twice.

The broker is another Redis, which stays: without its broker a worker has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.record import State
from support.fleet import Fleet
from support.stores import wait_until

pytestmark = pytest.mark.worker

Started = tuple[Fleet, RedisServer, PostgresServer]


@pytest.fixture
def by_redis(
    new_fleet: Callable[..., Fleet], new_redis: Callable[..., RedisServer]
) -> Iterator[tuple[Fleet, RedisServer]]:
    """A worker of authority redis."""
    server = new_redis()
    with ExitStack() as stack:
        fleet = new_fleet("redis", redis_url=server.url)
        stack.callback(fleet.close)
        yield fleet, server


@pytest.fixture
def by_postgres(
    new_fleet: Callable[..., Fleet],
    new_redis: Callable[..., RedisServer],
    new_postgres: Callable[..., PostgresServer],
    migrate: Callable[[str], None],
) -> Iterator[Started]:
    """A worker of authority postgres, with both servers of its own."""
    cache, database = new_redis(), new_postgres()
    migrate(database.url)
    with ExitStack() as stack:
        fleet = new_fleet("postgres", redis_url=cache.url, database_url=database.url)
        stack.callback(fleet.close)
        yield fleet, cache, database


def do_some(fleet: Fleet) -> str:
    """A piece of work that is done."""
    label = fleet.label()
    assert fleet.result(fleet.send("work", label)) == label
    return label


def test_workers_go_on_while_their_cache_is_away(by_postgres: Started) -> None:
    fleet, cache, _ = by_postgres
    done = do_some(fleet)
    cache.kill()
    again = fleet.send("work", done)
    assert fleet.result(again) == done
    fresh = do_some(fleet)
    assert fleet.events(done) == fleet.events(fresh) == ["start", "end"]
    cache.restart()
    assert fleet.result(fleet.send("work", fresh)) == fresh
    fleet.wait_for_idle()
    assert fleet.events(fresh) == ["start", "end"]


def test_messages_wait_while_postgresql_is_away(by_postgres: Started) -> None:
    fleet, _, database = by_postgres
    done = do_some(fleet)
    database.kill()
    assert fleet.result(fleet.send("work", done)) == done  # Redis answers
    labels = [fleet.label() for _ in range(3)]
    ids = [fleet.send("work", label) for label in labels]
    fleet.wait(
        lambda: all(fleet.logged(f"sheet.work[{one}] ignored") >= 2 for one in ids),
        "each was sent back twice",
    )
    assert [fleet.events(label) for label in labels] == [[], [], []]
    database.restart()
    assert [fleet.result(one) for one in ids] == labels
    fleet.wait_for_idle()
    assert [fleet.events(label) for label in labels] == [["start", "end"]] * 3
    assert fleet.claims("work", "unavailable") >= 6


def test_a_result_is_kept_though_postgresql_is_away_when_the_work_ends(
    by_postgres: Started,
) -> None:
    fleet, _, database = by_postgres
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    database.kill()
    fleet.open(label)
    fleet.wait_for_event(label, "end")
    database.restart()
    assert fleet.result(task_id) == label
    wait_until(lambda: fleet.state("work", label, label) is State.DONE)
    assert fleet.result(fleet.send("work", label, label)) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


def test_messages_wait_until_the_database_is_migrated(
    new_fleet: Callable[..., Fleet],
    new_redis: Callable[..., RedisServer],
    new_postgres: Callable[..., PostgresServer],
    migrate: Callable[[str], None],
) -> None:
    database = new_postgres()
    fleet = new_fleet("postgres", redis_url=new_redis().url, database_url=database.url)
    assert fleet.logged("tasks wait for their store: postgres") == 1
    assert fleet.logged("run `idemwatch db upgrade`") == 1
    label = fleet.label()
    task_id = fleet.send("work", label)
    fleet.wait(lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 2, "it was sent back")
    assert fleet.events(label) == []
    migrate(database.url)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


def test_messages_wait_while_both_are_away(by_postgres: Started) -> None:
    fleet, cache, database = by_postgres
    done = do_some(fleet)
    cache.kill()
    database.kill()
    fresh = fleet.label()
    ids = [fleet.send("work", done), fleet.send("work", fresh)]
    fleet.wait(
        lambda: all(fleet.logged(f"sheet.work[{one}] ignored") >= 2 for one in ids),
        "each was sent back twice",
    )
    cache.restart()
    database.restart()
    assert [fleet.result(one) for one in ids] == [done, fresh]
    fleet.wait_for_idle()
    assert fleet.events(done) == fleet.events(fresh) == ["start", "end"]


@pytest.mark.parametrize("failure", ["kill", "freeze"])
def test_messages_wait_while_the_redis_that_decides_is_away(
    by_redis: tuple[Fleet, RedisServer], failure: str
) -> None:
    fleet, server = by_redis
    do_some(fleet)
    getattr(server, failure)()
    label, unprotected = fleet.label(), fleet.label()
    task_id, bypassing = fleet.send("work", label), fleet.send("bypassing", unprotected)
    fleet.wait(
        lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 2, "it was sent back twice"
    )
    assert fleet.events(label) == []
    assert fleet.result(bypassing) == unprotected
    assert fleet.claims("bypassing", "bypassed") == 1
    assert fleet.metric("idemwatch_unprotected_runs_total", "sheet.bypassing") == 1
    if failure == "kill":
        server.restart()
    else:
        server.thaw()
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


def test_work_in_flight_in_an_emptied_redis_is_kept_when_it_ends(
    by_redis: tuple[Fleet, RedisServer],
) -> None:
    fleet, server = by_redis
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    server.restart(empty=True)
    fleet.open(label)
    assert fleet.result(task_id) == label
    wait_until(lambda: fleet.state("work", label, label) is State.DONE)
    assert fleet.result(fleet.send("work", label, label)) == label


def test_garbage_in_redis_is_refused_counted_and_never_run(
    by_redis: tuple[Fleet, RedisServer],
) -> None:
    import redis

    fleet, server = by_redis
    label = fleet.label()
    key = fleet.key("work", label)
    with redis.Redis.from_url(server.url) as client:
        client.set(f"idemwatch:{{{key}}}", b"iw999 a record of the future")
        task_id = fleet.send("work", label)
        fleet.wait(
            lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 2, "it was sent back twice"
        )
        assert fleet.events(label) == []
        blind = fleet.label()
        client.set(f"idemwatch:{{{fleet.key('bypassing', blind)}}}", b"garbage")
        fleet.send("bypassing", blind)
        fleet.wait(lambda: fleet.claims("bypassing", "unavailable") >= 1, "it was sent back")
        assert fleet.events(blind) == []
        fleet.store.forget(fleet.key("bypassing", blind))
        assert fleet.metric("idemwatch_store_errors_total", "redis", "claim") >= 2
        fleet.store.forget(key)
    assert fleet.result(task_id) == label
    assert fleet.events(label) == ["start", "end"]


def test_a_holder_frozen_past_its_lease_returns_the_result_of_its_successor(
    new_fleet: Callable[..., Fleet], database_url: str
) -> None:
    fleet = new_fleet("postgres", workers=0, database_url=database_url)
    fleet.start(concurrency=1)
    label, told = fleet.label(), fleet.label()
    frozen = fleet.worker
    message = fleet.signature("work", label, label, link=[fleet.signature("linked", told)])
    task_id = message.apply_async().id
    fleet.wait_for_event(label, "start")
    frozen.freeze()
    fleet.start()
    fleet.wait_for_event(label, "start", times=2)  # its lease ran out, and the message came again
    fleet.open(label)
    fleet.wait_for_event(told, f"linked {label}")
    frozen.thaw()
    fleet.wait(lambda: fleet.events(label).count("end") == 2, "the first holder went on")
    fleet.wait(
        lambda: fleet.metric("idemwatch_completions_total", "sheet.work", "stale") == 1,
        "its completion was refused",
    )
    fleet.wait_for_idle()
    assert fleet.result(task_id) == label
    assert fleet.claims("work", "taken_over") == 1
    assert fleet.events(told) == [f"linked {label}"]


def test_a_holder_that_learns_of_its_lost_lease_is_answered_by_its_successor(
    new_fleet: Callable[..., Fleet], database_url: str
) -> None:
    fleet = new_fleet("postgres", workers=0, database_url=database_url)
    fleet.start(concurrency=1)
    label, told, failed = (fleet.label() for _ in range(3))
    frozen = fleet.worker
    message = fleet.signature(
        "checking", label, label, link=[fleet.signature("linked", told)],
        link_error=[fleet.signature("linked", failed)],
    )  # fmt: skip
    task_id = message.apply_async().id
    fleet.wait_for_event(label, "start")
    frozen.freeze()
    fleet.start()
    fleet.wait_for_event(label, "start", times=2)
    fleet.open(label)
    fleet.wait_for_event(told, f"linked {label}")
    frozen.thaw()
    fleet.wait(
        lambda: fleet.metric("idemwatch_lease_lost_total", "sheet.checking") == 1,
        "the first holder asked for its lease",
    )
    fleet.wait_for_idle()
    assert fleet.result(task_id) == label
    assert fleet.events(label) == ["start", "start", "end"]
    assert fleet.events(told) == [f"linked {label}"] and fleet.events(failed) == []
    assert fleet.claims("checking", "taken_over") == 1
