"""celery-batches: each message of a batch is claimed, answered and acknowledged by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import Ignore
from celery_batches import SimpleRequest
from idemwatch.idempotency import (
    AlreadyRunning,
    ArgumentMismatch,
    ConfigurationError,
    IdempotencyError,
    InvalidKey,
    LeaseLost,
    execution,
)
from idemwatch.idempotency.batches import IdempotentBatches
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import State
from support.eager import Bench, claims, counted
from support.fleet import Fleet


def visit(page: str, visitor: str = "", trace: Any = None) -> None:
    """What a message says."""


class BatchBench(Bench):
    def batches(self, run: Callable[..., Any] | None = None, **options: Any) -> Any:
        """A task of batches; without a function, one that counts what it does."""
        given = {"name": f"tests.{uuid4().hex}", "call": visit, **options}
        task = self.app.task(base=IdempotentBatches, shared=False, **given)
        return task(self.count() if run is None else run)

    def count(self) -> Callable[..., Any]:
        def run(requests: Any) -> list[Any]:
            self.runs.update(request.args[0] for request in requests)
            return [[*request.args, self.runs.total()] for request in requests]

        return run


@pytest.fixture
def bench(idempotency_memory: MemoryStore) -> BatchBench:
    return BatchBench(idempotency_memory)


# -- eager: what a user's own unit tests see -------------------------------------------------------


def test_a_duplicate_is_answered_with_the_result_of_its_own_message(bench: BatchBench) -> None:
    task = bench.batches()
    assert task.delay("a").get() == task.delay(page="a", visitor="").get() == ["a", 1]
    assert task.delay("b").get() == ["b", 2]
    assert bench.runs == {"a": 1, "b": 1}
    assert (claims(task, "granted"), claims(task, "duplicate")) == (2, 1)


def test_the_key_rule_is_that_of_a_task(bench: BatchBench) -> None:
    task = bench.batches(idempotency_key_args=("page",), idempotency_ignore_args=("trace",))
    task.delay("a", trace=1)
    assert task.delay("a", trace=2).get() == ["a", 1]
    with pytest.raises(ArgumentMismatch):
        task.delay("a", visitor="another")
    batch = bench.batches()
    assert batch.idempotency_key_of("a") == batch.idempotency_key_of(page="a", visitor="")


def test_without_a_described_call_arguments_count_as_they_were_given(bench: BatchBench) -> None:
    task = bench.batches(call=None)
    task.delay("a", visitor="v")
    assert task.delay("a", visitor="v").get() == ["a", 1]
    assert bench.runs == {"a": 1}


@pytest.mark.parametrize("result", [None, {}, 5, [1, 2], "a", {"another": 1}])
def test_a_batch_returns_a_result_for_each(bench: BatchBench, result: Any) -> None:
    def run(_requests: Any) -> Any:
        return result

    task = bench.batches(run)
    if result is None:
        assert task.delay("a").get() is None
        return
    with pytest.raises(IdempotencyError, match="not a result for each of its 1 requests"):
        task.delay("a")
    assert bench.record(task, "a") is None


def test_results_may_be_told_by_id(bench: BatchBench) -> None:
    def run(requests: Any) -> dict[str, Any]:
        return {one.id: one.args[0] for one in requests}

    task = bench.batches(run)
    assert [task.delay("a").get() for _ in range(2)] == ["a", "a"]


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_a_failure_gives_the_key_back(bench: BatchBench, how: str) -> None:
    def run(requests: Any) -> list[Any]:
        bench.runs.update(["a"])
        error = ValueError("as the test says")
        if how == "raised":
            raise error
        return [error]

    task = bench.batches(run)
    for _ in range(2):
        with pytest.raises(ValueError, match="as the test says"):
            task.delay("a")
    assert bench.runs == {"a": 2} and bench.record(task, "a") is None


class Unwilling:
    """A result that no serialiser gets anything out of."""

    def __json__(self) -> Any:
        raise LookupError("as the test says")


def test_a_result_that_cannot_be_encoded_leaves_no_key_held(bench: BatchBench) -> None:
    def run(_requests: Any) -> list[Any]:
        return [Unwilling()]

    task = bench.batches(run)
    with pytest.raises(LookupError):
        task.delay("a")
    assert bench.record(task, "a") is None
    assert task([_message(task, "a")]) == []
    assert bench.record(task, "a") is None


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_who_lost_a_lease_is_left_to_its_successor_and_all_come_again(
    bench: BatchBench, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[str] = []

    def come_again(task: Any, *_: Any) -> Ignore:
        again.append(task.request.id)
        return Ignore()

    def run(self: Any, requests: Any) -> list[Any]:
        error = LeaseLost(self.claim_of(requests[0]).key)
        if how == "raised":
            raise error
        return [error, "b"]

    monkeypatch.setattr(execution, "publish_again", come_again)
    task = bench.batches(run, bind=True)
    assert task([_message(task, page) for page in "ab"]) == []
    assert again == (["a", "b"] if how == "raised" else ["a"])
    lost, other = bench.record(task, "a"), bench.record(task, "b")
    assert lost is not None and lost.state is State.RUNNING
    assert (other is None) if how == "raised" else (other is not None)
    assert counted("lease_lost", task) == 1


def test_a_held_key_is_an_error_where_nothing_can_wait(bench: BatchBench) -> None:
    task = bench.batches()
    bench.hold(task, "a")
    with pytest.raises(AlreadyRunning):
        task.delay("a")
    assert bench.runs == {}


def test_a_request_knows_its_claim(bench: BatchBench) -> None:
    seen: list[Any] = []

    def run(self: Any, requests: Any) -> None:
        lease = self.claim_of(requests[0])
        lease.check()
        seen.append((lease.key, lease.fence > 0))

    task = bench.batches(run, bind=True)
    task.delay("a")
    assert seen == [(task.idempotency_key_of("a").key, True)]


def test_a_task_that_is_turned_off_does_all(bench: BatchBench) -> None:
    task = bench.batches(idempotency_enabled=False)
    assert [task.delay("a").get() for _ in range(2)] == [["a", 1], ["a", 2]]
    assert bench.store._records == {}


def test_a_message_without_a_key_is_refused(bench: BatchBench) -> None:
    with pytest.raises(InvalidKey):
        bench.batches(idempotency_scope="user").delay("a")
    with pytest.raises(TypeError):
        bench.batches().delay("a", nonsense=1)


def test_a_batch_keeps_no_last(bench: BatchBench) -> None:
    with pytest.raises(ConfigurationError, match="is not for batches"):
        bench.batches(on_running="keep_last").name  # noqa: B018


def test_a_worker_that_has_no_batches_does_not_import_them() -> None:
    look = (
        "import sys, idemwatch.idempotency.task, idemwatch.exporter.worker; "
        "assert 'celery_batches' not in sys.modules; sys.modules['celery_batches'] = None\n"
        "try:\n    import idemwatch.idempotency.batches\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert "pip install celery-batches" in ran.stdout


def _message(task: Any, page: str) -> SimpleRequest:
    return SimpleRequest(page, task.name, (page,), {}, {}, "", False, None, None, {})


def test_one_whose_holder_died_is_done_alone_and_before_others_are_claimed(
    bench: BatchBench,
) -> None:
    """A message that kills its process would poison all that come with it."""
    seen: list[tuple[list[str], bool]] = []

    def run(requests: Any) -> None:
        pages = [request.args[0] for request in requests]
        seen.append((pages, bench.record(task, "c") is None))

    task = bench.batches(run)
    bench.hold(task, "b", lease_us=-1)
    requests = [_message(task, page) for page in "abc"]
    assert task(requests) == []
    assert seen == [(["b"], True), (["a", "c"], False)]


def test_one_that_ends_its_process_gives_the_keys_of_its_neighbours_back(bench: BatchBench) -> None:
    def run(requests: Any) -> None:
        assert requests[0].args == ("b",) and bench.record(task, "a") is not None
        raise SystemExit(1)

    task = bench.batches(run)
    bench.hold(task, "b", lease_us=-1)
    requests = [_message(task, page) for page in "abc"]
    with pytest.raises(SystemExit):
        task(requests)
    assert [bench.record(task, page) for page in "abc"] == [None] * 3


# -- real workers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param, app="support.batch_app")


@pytest.mark.worker
def test_of_many_messages_each_piece_of_work_is_done_once(fleet: Fleet) -> None:
    label = fleet.label()
    ids = {fleet.send("batched", label, x): x for x in [*range(10)] * 3}
    assert {task_id: fleet.result(task_id) for task_id in ids} == ids
    fleet.wait_for_idle()
    assert sorted(fleet.events(label)) == sorted(f"did {x}" for x in range(10))


@pytest.mark.worker
def test_messages_of_a_killed_child_come_again_and_nothing_is_lost(fleet: Fleet) -> None:
    label = fleet.label()
    ids = {
        fleet.send("batched", label, x, kwargs={"how": "kill" if x == 3 else ""}): x
        for x in range(6)
    }
    assert {task_id: fleet.result(task_id) for task_id in ids} == ids
    fleet.wait_for_idle()
    assert fleet.events(label).count("did 3") == 2
    assert fleet.claims("batched", "taken_over") >= 1


@pytest.mark.worker
def test_a_message_whose_key_is_held_waits_alone(fleet: Fleet) -> None:
    label = fleet.label()
    held = fleet.send("batched", label, 1, kwargs={"how": "gate"})
    fleet.wait_for_event(label, "did 1")
    again, other = fleet.send("batched", label, 1), fleet.send("batched", label, 2)
    assert fleet.result(other) == 2
    fleet.wait(lambda: fleet.messages(again) == 1, "it waits")
    fleet.open(label)
    assert fleet.result(held) == fleet.result(again) == 1
    fleet.wait_for_idle()
    assert sorted(fleet.events(label)) == ["did 1", "did 2"]


@pytest.mark.worker
def test_one_that_fails_fails_alone_and_a_batch_fails_as_a_whole(fleet: Fleet) -> None:
    label = fleet.label()
    good, bad = (
        fleet.send("batched", label, 1),
        fleet.send("batched", label, 2, kwargs={"how": "fail"}),
    )
    assert fleet.result(good) == 1
    status, error = fleet.outcome(bad)
    assert status == "FAILURE" and "this one alone" in str(error)
    assert fleet.result(fleet.send("batched", label, 2)) == 2, "its key was given back"
    status, error = fleet.outcome(fleet.send("batched", label, 3, kwargs={"how": "raise"}))
    assert status == "FAILURE" and "as the test says" in str(error)
    fleet.wait_for_idle()
    assert fleet.events(label).count("did 3") == 1


@pytest.mark.worker
def test_other_arguments_of_a_key_are_refused_alone(fleet: Fleet) -> None:
    label = fleet.label()
    first = fleet.send("keyed_batch", label, 1)
    assert fleet.result(first) == 1
    wrong, other = fleet.send("keyed_batch", label, 2), fleet.send("keyed_batch", fleet.label(), 5)
    status, error = fleet.outcome(wrong)
    assert status == "FAILURE" and "other arguments" in str(error)
    assert fleet.result(other) == 5
