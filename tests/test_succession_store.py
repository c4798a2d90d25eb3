"""on_running="keep_last" in its stores: what happens between two of their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from idemwatch.idempotency.keep_last_store import KeepLastStore
from idemwatch.idempotency.record import Claim, Completion, State, Wait, Waiter, judge, running
from idemwatch.idempotency.settings import Settings
from idemwatch.idempotency.store import Held
from idemwatch.idempotency.stores import Stores
from idemwatch.idempotency.succession import judge_last
from support.stores import HOUR_US, KEY, Subject, delete_in_postgres, result

NOW = 1_700_000_000_000_000


def asked(subject: Subject, task_id: str, header: str = "") -> Claim:
    wait = Wait(f"t{task_id}", header)
    return subject.claim(task_id=task_id, fingerprint=f"f-{task_id}", wait=wait)


def hold(subject: Subject, store: KeepLastStore, task_id: str) -> Held:
    claim = asked(subject, task_id)
    answer = store.claim(claim)
    assert answer.granted
    return Held(claim=claim, fence=answer.fence, created_us=answer.fence)


def test_a_copy_that_finds_no_record_stays_before_those_that_came_earlier(subject: Subject) -> None:
    store = KeepLastStore(subject.store)
    hold(subject, store, "a")
    tokens = {}
    for task_id in ("b", "c"):
        answer = store.claim(asked(subject, task_id))
        assert answer.record is not None
        tokens[task_id] = answer.record.waiters[task_id].token
    subject.lose(KEY)
    assert store.claim(asked(subject, "c", tokens["c"])).granted
    assert store.claim(asked(subject, "b", tokens["b"])).superseded, "it would run after a newer"


@pytest.mark.parametrize("how", ["release", "abandon"])
def test_who_is_noted_while_a_key_is_given_back_stays_known(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store = KeepLastStore(subject.store)
    held = hold(subject, store, "a")
    find = subject.store.find
    late: list[Callable[[], Any]] = [lambda: store.claim(asked(subject, "b"))]

    def find_and_be_late(key: str) -> Any:
        found = find(key)
        if late:
            late.pop()()
        return found

    monkeypatch.setattr(subject.store, "find", find_and_be_late)
    if how == "release":
        assert store.release(held)
    else:
        assert store.abandon(KEY, held.claim.owner)
    record = subject.record()
    assert record.state is State.WAITING and "b" in record.waiters


def test_a_cache_has_no_older_result_than_the_last(redis_url: str, database_url: str) -> None:
    settings = Settings(redis_url=redis_url, database_url=database_url)
    stores = Stores(settings)
    store = cast(KeepLastStore, stores.get("postgres/keep_last"))
    subject = Subject(store.inner, "postgres", str)
    first = hold(subject, store, "a")
    delete_in_postgres(database_url, f"{settings.namespace}:{KEY}")
    assert store.complete(first, result(b"1")) is Completion.STORED
    assert store.complete(hold(subject, store, "b"), result(b"2")) is Completion.STORED
    told = stores.get("postgres").finished(KEY)
    assert told is not None and told.result == b"2"
    stores.close()


@pytest.mark.parametrize("then", [judge, judge_last], ids=["wait", "keep_last"])
def test_a_note_outlives_a_change_of_the_option(then: Any) -> None:
    """Its worker died before it sent the copy, and the next one has the other option."""
    claim = Claim(key=KEY, owner="o", authority="redis", task_id="b", lease_us=HOUR_US)
    held = running(claim._replace(task_id="a"), fence=1, now_us=NOW, created_us=NOW)
    token = "t" if then is judge_last else f"t@{NOW}"
    noted = held._replace(waiters={"b": Waiter(token, NOW + 10_000_000)})
    again = claim._replace(owner="p", wait=Wait("t", redelivered=True))
    assert then(noted, again, NOW).answer.delay_us is not None, "acknowledged without a copy: lost"
