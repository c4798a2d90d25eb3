"""idempotency_at_publish: one message for equal calls, and none less than the work needs."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task, chord, group
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.publishing import CONFIRMED, UNCONFIRMED, forget_publication
from idemwatch.idempotency.record import SECOND
from kombu.exceptions import OperationalError
from support.eager import counted
from support.proxy import TcpProxy
from support.publishers import Desk, work
from support.stores import DEADLINE_SECONDS, ENDED_US, HOUR_US

KINDS = ("redis", "postgres", "cached")


@pytest.fixture(params=KINDS)
def conf(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where records and notes stand: Redis, PostgreSQL alone, or both."""
    found: dict[str, Any] = {"idempotency_authority": "redis"}
    if request.param != "redis":
        found["idempotency_authority"] = "postgres"
        found["idempotency_database_url"] = request.getfixturevalue("database_url")
    if request.param != "postgres":
        found["idempotency_redis_url"] = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def desk(conf: dict[str, Any], redis_url: str) -> Iterator[Desk]:
    made = Desk(redis_url, conf)
    yield made
    made.close()


@pytest.fixture
def plain(redis_url: str) -> Iterator[Desk]:
    """A publisher whose records and notes are in Redis."""
    made = Desk(redis_url, {"idempotency_authority": "redis", "idempotency_redis_url": redis_url})
    yield made
    made.close()


# -- what the option does --------------------------------------------------------------------------


def test_a_second_call_gets_the_result_of_the_first_and_no_message(desk: Desk) -> None:
    first = desk.task.delay(1, y=2)
    again = [desk.task.delay(x=1, y=2), desk.task.apply_async((1, 2)), desk.task.s(1, 2).delay()]
    assert {one.id for one in again} == {first.id} and desk.messages == 1
    assert desk.task.delay(2).id != first.id and desk.messages == 2
    assert counted("publishes", desk.task, outcome="published") == 2
    assert counted("publishes", desk.task, outcome="answered") == 3


def test_of_many_publishers_at_once_one_publishes(desk: Desk) -> None:
    start = Barrier(4)
    task = desk.task
    task.delay(0)  # what a first message costs takes longer than anyone would wait

    def publish() -> str:
        start.wait(DEADLINE_SECONDS)
        return str(task.delay(1).id)

    with ThreadPoolExecutor(4) as pool:
        ids = [future.result() for future in [pool.submit(publish) for _ in range(4)]]
    assert len(set(ids)) == 1 and desk.messages == 2


def test_finished_work_is_answered_while_its_result_can_be_had(desk: Desk) -> None:
    first = desk.task.delay(1)
    held = desk.claim(1, task_id=first.id)
    assert desk.task.delay(1).id == first.id
    desk.finish(held)
    late = desk.task.delay(1)
    assert late.id != first.id and desk.messages == 2, "nobody could read it: the worker answers"
    desk.app.backend.mark_as_done(first.id, 1)
    answered = desk.task.delay(1)
    assert (answered.id, answered.get(timeout=DEADLINE_SECONDS)) == (first.id, 1)
    assert desk.messages == 2


def test_work_that_failed_is_published_again(desk: Desk) -> None:
    first = desk.task.delay(1)
    key = desk.task.idempotency_key_of(1).key
    forget_publication(desk.engine, key, "another message")
    assert desk.task.delay(1).id == first.id
    forget_publication(desk.engine, key, first.id)
    assert desk.task.delay(1).id != first.id and desk.messages == 2


@pytest.mark.parametrize("what", ["forgotten", "dead", "other arguments"])
def test_a_note_that_its_record_contradicts_is_not_trusted(desk: Desk, what: str) -> None:
    first = desk.task.delay(1)
    lease = ENDED_US if what == "dead" else 30 * SECOND
    changed = {"fingerprint": "f" * 32} if what == "other arguments" else {}
    desk.claim(1, task_id=first.id, lease_us=lease, **changed)
    if what == "forgotten":
        store = desk.engine.stores.get(desk.task.idempotency_options.store)
        assert store.forget(desk.task.idempotency_key_of(1).key) is not None
    assert desk.task.delay(1).id != first.id and desk.messages == 2


def test_a_waiting_retry_is_answered(desk: Desk) -> None:
    first = desk.task.delay(1)
    held = desk.claim(1, task_id=first.id)
    store = desk.engine.stores.get(desk.task.idempotency_options.store)
    assert store.park(held, fingerprint=held.claim.fingerprint, open_after_us=HOUR_US)
    assert desk.task.delay(1).id == first.id


# -- what dies or fails between two lines ----------------------------------------------------------


def test_a_note_is_undone_when_publishing_fails(desk: Desk, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(desk.app.amqp, "send_task_message", refuse)
        with pytest.raises(OperationalError):
            desk.task.delay(1)
    first = desk.task.delay(1)
    assert desk.messages == 1 and desk.task.delay(1).id == first.id


def test_undoing_leaves_the_note_of_a_successor_alone(desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr("idemwatch.idempotency.publishing.UNCONFIRMED", timedelta(microseconds=1))
    send = desk.app.amqp.send_task_message
    ids: list[str] = []

    def slow(*args: Any, **kwargs: Any) -> Any:
        if not ids:  # its note has run out: another publishes before it fails
            ids.append("slow")
            ids.append(desk.task.delay(1).id)
            raise ConnectionError("the broker is away")
        return send(*args, **kwargs)

    monkeypatch.setattr(desk.app.amqp, "send_task_message", slow)
    with pytest.raises(OperationalError):
        desk.task.delay(1)
    assert desk.task.delay(1).id == ids[1] and desk.messages == 1


def die_while_publishing(broker: str, conf: dict[str, Any], name: str) -> None:
    """A publisher that is killed after its note and before its message."""
    app = Celery("dying", broker=broker, set_as_current=False)
    app.conf.update(conf)
    options: dict[str, Any] = {"name": name, "idempotency_at_publish": True}
    task = app.task(base=IdempotentTask, shared=False, **options)(work)
    app.amqp.send_task_message = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    task.delay(1)


def test_a_publisher_that_died_in_between_loses_nothing(
    desk: Desk, conf: dict[str, Any], redis_url: str
) -> None:
    arguments = (redis_url, conf, desk.task.name)
    dying = multiprocessing.get_context("spawn").Process(
        target=die_while_publishing, args=arguments
    )
    dying.start()
    dying.join(DEADLINE_SECONDS)
    assert dying.exitcode == -signal.SIGKILL and desk.messages == 0
    assert desk.engine.stores.notes().find(f"publish:{desk.task.idempotency_key_of(1).key}")
    second = desk.task.delay(1)
    assert desk.messages == 1, "its note says only that it was about to publish"
    assert second.id and UNCONFIRMED < CONFIRMED


def test_no_store_no_note_but_a_message(
    redis_url: str, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_url)
    conf = {"idempotency_authority": "redis", "idempotency_redis_url": proxy.url(redis_url)}
    desk = Desk(redis_url, conf)
    proxy.refuse()
    ids = {desk.task.delay(1).id for _ in range(3)}
    assert len(ids) == desk.messages == 3
    assert counted("publishes", desk.task, outcome="unavailable") == 3
    desk.close()


def test_a_publisher_without_the_settings_of_a_worker_publishes(redis_url: str) -> None:
    desk = Desk(redis_url, {})
    assert len({desk.task.delay(1).id for _ in range(2)}) == desk.messages == 2
    assert counted("publishes", desk.task, outcome="unavailable") == 2
    desk.close()


def test_a_note_lives_no_longer_than_a_result_would(redis_url: str) -> None:
    conf = {"idempotency_authority": "redis", "idempotency_redis_url": redis_url}
    for ttl, life in ((5, 5), (3600, CONFIRMED.total_seconds())):
        desk = Desk(redis_url, conf, idempotency_ttl=ttl)
        desk.task.delay(1)
        found = desk.engine.stores.notes().find(f"publish:{desk.task.idempotency_key_of(1).key}")
        assert found is not None
        assert found.record.due_us - found.record.created_us == pytest.approx(
            life * SECOND, abs=SECOND
        )
        desk.close()


# -- what is published as always -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"task_id": "of-the-caller"},
        {"countdown": 30},
        {"expires": 60},
        {"retries": 1},
        {"ignore_result": True},
        {"link": Celery("x", set_as_current=False).signature("after")},
        {"link_error": Celery("x", set_as_current=False).signature("mourns")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_message_of_its_own_is_published(plain: Desk, options: dict[str, Any]) -> None:
    first = plain.task.delay(1)
    assert plain.task.apply_async((1,), **options).id != first.id
    assert plain.task.delay(1).id == first.id
    assert plain.messages == 2


def test_a_canvas_has_all_its_messages(plain: Desk) -> None:
    plain.task.delay(1)
    group(plain.task.s(1), plain.task.s(1)).apply_async()
    assert plain.messages == 3
    chord([plain.task.s(1), plain.task.s(1)], plain.task.si(1)).apply_async()
    assert plain.messages == 5
    (plain.task.s(1) | plain.task.si(1)).apply_async()
    assert plain.messages == 6


def test_send_task_is_untouched(plain: Desk) -> None:
    for _ in range(2):
        plain.app.send_task(plain.task.name, (1,))
    assert plain.messages == 2


def test_a_call_without_a_key_is_published_for_the_worker_to_refuse(plain: Desk) -> None:
    task = plain.made(idempotency_scope="user")
    for _ in range(2):
        task.delay(1)
    assert plain.messages == 2
    first = task.apply_async((1,), headers={"idempotency_user_id": "7"})
    assert task.delay(1, user_id="7").id != first.id, "other arguments"
    assert task.apply_async((1,), headers={"idempotency_user_id": "7"}).id == first.id
    with pytest.raises(TypeError):
        task.delay()


def test_a_result_that_one_publisher_alone_can_read_is_not_shared(redis_url: str) -> None:
    conf = {"idempotency_authority": "redis", "idempotency_redis_url": redis_url}
    desk = Desk(redis_url, {**conf, "result_backend": "rpc://"})
    assert len({desk.task.delay(1).id for _ in range(2)}) == desk.messages == 2
    silent = desk.made(ignore_result=True)
    assert len({silent.delay(1).id for _ in range(2)}) == 1 and desk.messages == 3
    desk.close()


def test_a_task_without_the_option_publishes_by_celery_alone(plain: Desk) -> None:
    task = plain.made(idempotency_at_publish=None)
    assert task.apply_async.__func__ is Task.apply_async
    off = plain.made(idempotency_enabled=False)
    assert len({off.delay(1).id for _ in range(2)}) == 2


def test_an_apply_async_of_the_users_own_is_kept(plain: Desk) -> None:
    seen: list[Any] = []

    class Tenant(IdempotentTask):
        abstract = True
        idempotency_at_publish = True

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return super().apply_async(*args, **kwargs)

    task = plain.app.task(name=f"tests.{uuid4().hex}", base=Tenant, shared=False)(work)
    assert task.delay(1).id == task.delay(1).id
    assert len(seen) == 2 and plain.messages == 1


def test_eager_tasks_publish_nothing_and_note_nothing(plain: Desk) -> None:
    plain.app.conf.task_always_eager = True
    first, again = plain.task.delay(1), plain.task.delay(1)
    assert first.get() == again.get() == 1 and first.id != again.id
    assert counted("publishes", plain.task, outcome="published") == 0
