"""How an execution may end in eager mode, and what its key is then: given back, kept or finished.

Cases 8 (nothing leaks), 14, 15 and 19 (a holder whose successor finished).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject
from idemwatch.idempotency import (
    AlreadyRunning,
    AuthorityMismatch,
    DuplicateTask,
    LeaseLost,
    StoreUnavailable,
    task_retry_policy,
)
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import Claim, State
from idemwatch.idempotency.redelivery import UNAVAILABLE_HEADER, WAIT_HEADER
from idemwatch.idempotency.store import Held
from support.eager import Bench, claims, counted
from support.stores import result


@pytest.fixture
def bench(idempotency_memory: MemoryStore) -> Bench:
    return Bench(idempotency_memory)


# -- without a result ------------------------------------------------------------------------------

ENDINGS: dict[str, tuple[BaseException, str]] = {
    "failure": (ValueError("as the test says"), "failure"),
    "exit": (SystemExit(3), "failure"),
    "interrupt": (KeyboardInterrupt(), "failure"),
    "ignore": (Ignore(), "ignored"),
    "reject": (Reject("no", requeue=False), "ignored"),
    "requeue": (Reject("again", requeue=True), "ignored"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_without_a_result_gives_its_key_back(bench: Bench, ending: str) -> None:
    error, reason = ENDINGS[ending]

    def work() -> int:
        bench.runs["work"] += 1
        if bench.runs["work"] == 1:
            raise error
        return 7

    task = bench.task(work)
    if isinstance(error, Ignore | Reject):
        assert task.delay().state in ("IGNORED", "REJECTED")
    else:
        with pytest.raises(type(error)):
            task.delay()
    assert bench.store._records == {}
    assert counted("releases", task, reason=reason) == 1
    assert task.delay().get() == task.delay().get() == 7
    assert bench.runs["work"] == 2
    assert claims(task, "taken_over") == 0


def test_a_task_that_is_replaced_gives_its_key_to_the_replacement(bench: Bench) -> None:
    def work(self: Any, x: int) -> int:
        bench.runs["work"] += 1
        return x if bench.runs["work"] == 2 else int(self.replace(task.s(x)))

    task = bench.task(work, bind=True)
    assert task.apply(args=(5,)).get() == 5
    assert counted("releases", task, reason="replaced") == 1
    assert claims(task, "granted") == 2 and claims(task, "running") == 0


# -- a result that is not kept ---------------------------------------------------------------------


@pytest.fixture
def wasteful(bench: Bench) -> Any:
    """A task whose results are not kept, and a backend that may have them."""

    def work(kind: str) -> Any:
        bench.runs[kind] += 1
        return object() if kind == "unencodable" else "x" * 200

    bench.app.conf.update(idempotency_max_result_bytes=100, task_store_eager_result=True)
    return bench.task(work)


@pytest.mark.parametrize("kind", ["unencodable", "too_large"])
def test_without_a_backend_a_result_that_is_not_kept_is_none(
    bench: Bench, wasteful: Any, kind: str
) -> None:
    assert wasteful.apply((kind,)).get() is not None
    assert wasteful.apply((kind,)).get() is None
    assert bench.runs == {kind: 1} and counted("completions", wasteful, result=kind) == 1


def test_a_large_result_comes_from_the_backend_of_celery(bench: Bench, wasteful: Any) -> None:
    bench.app.conf.result_backend = "cache+memory://"
    first, again = (wasteful.apply(("too_large",)) for _ in range(2))
    assert first.get() == again.get() == "x" * 200 and first.id != again.id
    assert bench.runs == {"too_large": 1}


def test_a_canvas_does_not_go_on_without_the_result(bench: Bench, wasteful: Any) -> None:
    bench.app.conf.update(result_backend="cache+memory://", task_store_eager_result=False)
    wasteful.apply(("too_large",))
    after = bench.task()
    with pytest.warns(RuntimeWarning, match="not stored"), pytest.raises(DuplicateTask):
        wasteful.apply(("too_large",), link=after.s())
    assert bench.runs == {"too_large": 1}


# -- a holder that lost its lease (case 19) --------------------------------------------------------


def succeeded(bench: Bench, meanwhile: Callable[[Held], object]) -> Any:
    """A task that is frozen past its lease, until it has a successor that did something."""

    def work(self: Any) -> str:
        bench.runs["work"] += 1
        key = self.claim.key
        bench.store._records[key] = bench.store._records[key]._replace(due_us=1)
        bench.hold(self, owner="successor")
        record = bench.store._records[key]
        claim = Claim(key=key, owner="successor", authority="postgres")
        claim = claim._replace(fingerprint=record.fingerprint)
        meanwhile(Held(claim=claim, fence=record.fence, created_us=record.created_us))
        return "late"

    return bench.task(work, bind=True)


def test_a_late_holder_returns_the_result_of_its_successor(bench: Bench) -> None:
    data = json.dumps("successor").encode()
    task = succeeded(bench, lambda held: bench.store.complete(held, result(data)))
    assert task.apply().get() == task.apply().get() == "successor"
    assert bench.runs == {"work": 1}
    assert counted("lease_lost", task) == counted("completions", task, result="stale") == 1
    assert counted("completions", task, result="stored") == 0


def test_a_late_holder_does_not_answer_for_a_successor_that_runs(bench: Bench) -> None:
    task = succeeded(bench, lambda _: None)
    with pytest.raises(AlreadyRunning):
        task.apply()
    record = bench.record(task)
    assert record is not None and (record.owner, record.state) == ("successor", State.RUNNING)
    assert counted("lease_lost", task) == 1


def test_a_late_holder_finishes_where_its_successor_gave_up(bench: Bench) -> None:
    task = succeeded(bench, lambda held: bench.store.release(held))
    assert task.apply().get() == task.apply().get() == "late"
    assert bench.runs == {"work": 1}
    assert counted("completions", task, result="stored") == 1


def test_a_late_holder_does_not_bring_back_what_was_forgotten(bench: Bench) -> None:
    task = succeeded(bench, lambda held: bench.store.forget(held.key))
    assert task.apply().get() == "late"
    assert task.apply().get() == "late" and bench.runs == {"work": 2}


@pytest.mark.parametrize("error", [LeaseLost, OSError])
def test_a_late_failure_leaves_the_record_of_the_successor(
    bench: Bench, error: type[Exception]
) -> None:
    def fail(held: Held) -> None:
        raise error(held.key)

    late = succeeded(bench, fail)
    with pytest.raises(error):
        late.apply()
    record = bench.record(late)
    assert record is not None and record.owner == "successor"
    assert counted("lease_lost", late) == 1


# -- no store, or another's record -----------------------------------------------------------------


@pytest.fixture
def away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> OSError:
    """The store does not answer a claim."""
    reason = OSError("connection refused")

    def claim(_claim: Claim) -> None:
        raise StoreUnavailable("memory", "connection refused") from reason

    monkeypatch.setattr(bench.store, "claim", claim)
    return reason


def test_without_a_store_nothing_runs(bench: Bench, away: OSError) -> None:
    task = bench.task()
    with pytest.raises(StoreUnavailable, match="connection refused") as caught:
        task.delay("a")
    assert bench.runs == {} and claims(task, "unavailable") == 1
    assert caught.value.__cause__ is away


def test_without_a_store_it_may_run_unprotected(bench: Bench, away: OSError) -> None:
    task = bench.task(idempotency_when_unavailable="run")
    assert [task.delay("a").get() for _ in range(2)] == [["a", 1], ["a", 2]]
    assert claims(task, "bypassed") == 2 and claims(task, "unavailable") == 0
    assert counted("unprotected_runs", task) == 2


def test_a_record_of_another_authority_runs_nothing(bench: Bench) -> None:
    task = bench.task()
    bench.hold(task, "a", authority="redis")
    with pytest.raises(AuthorityMismatch, match="drain the queue"):
        task.delay("a")
    assert bench.runs == {} and claims(task, "mismatch") == 1


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_who_lost_a_lease_comes_again_and_gives_back_what_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Of its own claim, or of a lock or a piece of work within it; a retry policy leaves both."""
    sent: list[str] = []

    def publish_again(_task: Any, _delay: float, name: str, _value: str) -> Ignore:
        sent.append(name)
        return Ignore("it comes again")

    def work(self: Any) -> None:
        raise LeaseLost(self.claim.key if own else "lock:stock")

    monkeypatch.setattr("idemwatch.idempotency.execution.publish_again", publish_again)
    task = bench.task(work, bind=True, **task_retry_policy("critical"))
    task.push_request(id="id", called_directly=False, headers=None, delivery_info={})
    with pytest.raises(Ignore, match="it comes again"):
        task()
    task.pop_request()
    assert sent == [UNAVAILABLE_HEADER]
    record = bench.record(task)
    assert (record is not None and record.state is State.RUNNING) if own else record is None
    assert counted("lease_lost", task) == own


def test_a_lease_lost_once_too_often_for_a_retry_is_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(self: Any) -> None:
        raise self.retry(exc=LeaseLost(self.claim.key), max_retries=0)

    task = bench.task(work, bind=True)
    task.push_request(id="id", called_directly=False, headers=None, delivery_info={})
    with pytest.raises(LeaseLost):
        task()
    task.pop_request()
    assert bench.record(task) is None


def test_who_was_noted_by_a_store_that_did_not_answer_is_no_copy_too_many(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def publish_again(_task: Any, _delay: float, name: str, _value: str) -> Ignore:
        sent.append(name)
        return Ignore("it waits")

    monkeypatch.setattr("idemwatch.idempotency.execution.publish_again", publish_again)
    task = bench.task()
    bench.hold(task, "a")
    for headers, messages in ((None, 1), (None, 1), ({UNAVAILABLE_HEADER: "1"}, 2)):
        task.push_request(id="id", called_directly=False, headers=headers, delivery_info={})
        with pytest.raises(Ignore):
            task("a")
        task.pop_request()
        assert sent == [WAIT_HEADER] * messages
