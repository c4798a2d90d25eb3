"""idempotency_at_publish: nobody is answered with a message that has no result to give."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery.exceptions import Ignore
from idemwatch.idempotency import AlreadyRunning, IdempotencyError, IdempotentTask
from idemwatch.idempotency.publishing import forget_publication
from support.eager import counted
from support.publishers import Desk, work


@pytest.fixture
def conf(redis_url: str) -> dict[str, Any]:
    """Records and notes in Redis."""
    return {"idempotency_authority": "redis", "idempotency_redis_url": redis_url}


@pytest.fixture
def plain(redis_url: str, conf: dict[str, Any]) -> Iterator[Desk]:
    made = Desk(redis_url, conf)
    yield made
    made.close()


def test_a_worker_that_fails_before_the_note_is_confirmed_is_not_answered_with(
    plain: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, key = plain.app.amqp.send_task_message, plain.task.idempotency_key_of(1).key

    def send_to_a_quick_worker(producer: Any, name: str, message: Any, **options: Any) -> Any:
        sent = send(producer, name, message, **options)
        forget_publication(plain.engine, key, message.headers["id"])
        return sent

    with monkeypatch.context() as patch:
        patch.setattr(plain.app.amqp, "send_task_message", send_to_a_quick_worker)
        first = plain.task.delay(1)
    assert plain.task.delay(1).id != first.id and plain.messages == 2


@pytest.mark.parametrize(
    ("on_running", "told"), [("skip", Ignore), ("raise", AlreadyRunning)], ids=["skip", "raise"]
)
def test_a_message_that_ends_without_a_result_is_not_answered_with(
    redis_url: str, conf: dict[str, Any], on_running: str, told: type[Exception]
) -> None:
    desk = Desk(redis_url, conf, idempotency_on_running=on_running)
    desk.claim(1, task_id="of another, whose note is over")
    first = desk.task.delay(1)
    assert desk.task.delay(1).id == first.id
    with pytest.raises(told):
        desk.deliver(first.id, 1)
    assert desk.task.delay(1).id != first.id
    desk.close()


@pytest.mark.parametrize("what", ["other arguments", "poisoned"])
def test_a_message_that_is_refused_is_not_answered_with(plain: Desk, what: str) -> None:
    first = plain.task.delay(1)
    changed = {"lease_us": -1} if what == "poisoned" else {"fingerprint": "f" * 32}
    plain.claim(1, **changed)
    if what == "poisoned":
        plain.task.idempotency_options  # noqa: B018
        store = plain.engine.stores.get("redis")
        call = plain.task.idempotency_key_of(1)
        claim = plain.claim(2).claim._replace(key=call.key, fingerprint=call.fingerprint)
        store.claim(claim._replace(owner="another", max_crashes=0))
    with pytest.raises(IdempotencyError):
        plain.deliver(first.id, 1)
    found = plain.engine.stores.notes().find(f"publish:{plain.task.idempotency_key_of(1).key}")
    assert found is not None and found.record.state == "forgotten"


def test_a_message_that_was_revoked_is_not_answered_with(plain: Desk) -> None:
    first = plain.task.delay(1)
    plain.app.backend.mark_as_revoked(first.id, "by an operator")
    assert plain.task.delay(1).id != first.id


def test_a_message_that_only_fetches_a_result_leaves_no_note(plain: Desk) -> None:
    plain.finish(plain.claim(1, task_id="its result is nowhere"))
    plain.task.delay(1)
    key = plain.task.idempotency_key_of(1).key
    assert plain.messages == 1
    assert plain.engine.stores.notes().find(f"publish:{key}") is None, "it would outlive the record"


def test_a_message_that_expires_at_once_is_of_its_own(plain: Desk) -> None:
    first = plain.task.apply_async((1,), expires=0)
    assert plain.task.delay(1).id != first.id


def test_a_call_is_known_by_what_the_users_own_apply_async_says(plain: Desk) -> None:
    class Tenant(IdempotentTask):
        abstract = True
        idempotency_at_publish = True
        tenant = 1

        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            return super().apply_async(args, {**(kwargs or {}), "y": self.tenant}, **options)

    task = plain.app.task(name=f"tests.{uuid4().hex}", base=Tenant, shared=False)(work)
    first = task.delay(1)
    assert task.delay(1).id == first.id
    Tenant.tenant = 2
    assert task.delay(1).id != first.id and plain.messages == 2
    other = plain.app.task(name=f"tests.{uuid4().hex}", base=IdempotentTask, shared=False)(work)
    assert len({other.delay(1).id for _ in range(2)}) == 2, "nothing leaks to other tasks"


def test_a_database_that_hangs_holds_a_publisher_up_for_seconds_and_only_once(
    redis_url: str, database_url: str
) -> None:
    desk = Desk(redis_url, {"idempotency_database_url": database_url})
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE idempotency_record IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        desk.task.delay(1)
        hung = time.monotonic() - began
        began = time.monotonic()
        desk.task.delay(1)
        again = time.monotonic() - began
    assert 1 < hung < 4 and again < 1
    assert counted("publishes", desk.task, outcome="unavailable") == desk.messages == 2
    desk.close()
