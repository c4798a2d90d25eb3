"""IdempotentTask in eager mode, with all records in memory: what a user's own unit tests see."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from idemwatch.idempotency import (
    AlreadyRunning,
    ArgumentMismatch,
    DuplicateTask,
    IdempotencyError,
    IdempotentTask,
    InvalidKey,
    MissingScopeId,
    PoisonedKey,
)
from idemwatch.idempotency.app_settings import settings_of
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.metrics import REGISTRY
from idemwatch.idempotency.record import State
from support.eager import Bench, claims
from support.stores import ENDED_US


@pytest.fixture
def bench(idempotency_memory: MemoryStore) -> Bench:
    return Bench(idempotency_memory)


# -- duplicates ------------------------------------------------------------------------------------


def test_a_duplicate_returns_the_first_result_and_runs_nothing(bench: Bench) -> None:
    task = bench.task()
    first = task.delay("a").get()
    assert task.delay("a").get() == task.apply(args=("a",)).get() == first == ["a", 1]
    assert task.delay("b").get() == ["b", 2]
    assert (claims(task, "granted"), claims(task, "duplicate")) == (2, 2)


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"b": 1, "a": [None]}])
def test_a_falsy_result_is_replayed_as_it_was(bench: Bench, value: Any) -> None:
    ran: list[int] = []

    def work() -> Any:
        ran.append(1)
        return value

    task = bench.task(work)
    found = [task.delay().get() for _ in range(3)]
    assert found == [value] * 3 and {type(one) for one in found} == {type(value)}
    assert ran == [1]


def test_tasks_with_equal_arguments_have_keys_of_their_own(bench: Bench) -> None:
    bench.task().delay("a")
    bench.task().delay("a")
    assert bench.runs == {"a": 2}


def test_a_user_may_raise_on_a_duplicate(bench: Bench) -> None:
    task = bench.task(idempotency_on_duplicate="raise")
    task.delay("a")
    with pytest.raises(DuplicateTask, match="finished already"):
        task.delay("a")
    assert bench.runs == {"a": 1}


def test_a_skipped_duplicate_has_no_result(bench: Bench) -> None:
    task = bench.task(idempotency_on_duplicate="skip")
    assert task.delay("a").state == "SUCCESS"
    assert task.delay("a").state == "IGNORED"
    assert bench.runs == {"a": 1}


def test_a_duplicate_within_a_canvas_is_replayed_and_not_skipped(bench: Bench) -> None:
    task, after = bench.task(idempotency_on_duplicate="skip"), bench.task(same)
    task.delay("a")
    assert task.apply(args=("a",), link=after.s()).get() == ["a", 1]
    assert bench.runs == {"a": 1}
    assert claims(after, "granted") == 1


def no_key(_task: Any, _x: Any) -> None:
    """A key function that forgets to return."""


def same(value: Any) -> Any:
    return value


# -- those who are turned away ---------------------------------------------------------------------


@pytest.mark.parametrize("on_running", ["wait", "skip", "raise"])
def test_a_key_that_another_holds_is_an_error_where_nothing_can_wait(
    bench: Bench, on_running: str
) -> None:
    task = bench.task(idempotency_on_running=on_running)
    bench.hold(task, "a")
    before = bench.record(task, "a")
    with pytest.raises(AlreadyRunning):
        task.delay("a")
    assert bench.runs == {} and claims(task, "running") == 1
    assert bench.record(task, "a") == before


def test_the_same_key_with_other_arguments_runs_nothing(bench: Bench) -> None:
    task = bench.task(idempotency_key_args=("x",))
    task.delay("a", y=1)
    before = bench.record(task, "a")
    with pytest.raises(ArgumentMismatch, match="other arguments"):
        task.delay("a", y=2)
    assert bench.runs == {"a": 1} and claims(task, "mismatch") == 1
    assert bench.record(task, "a") == before


def test_a_dead_holder_is_succeeded_until_its_key_is_poisoned(bench: Bench) -> None:
    task = bench.task(idempotency_max_crashes=1)
    bench.hold(task, "a", lease_us=ENDED_US)
    assert task.delay("a").get() == ["a", 1]
    assert claims(task, "taken_over") == 1
    bench.hold(task, "b", lease_us=ENDED_US)
    bench.hold(task, "b", lease_us=ENDED_US)
    with pytest.raises(PoisonedKey, match="keys forget"):
        task.delay("b")
    assert bench.runs == {"a": 1} and claims(task, "poisoned") == 1
    found = bench.record(task, "b")
    assert found is not None and found.state is State.POISONED


# -- direct calls ----------------------------------------------------------------------------------


def test_a_direct_call_passes_straight_through(bench: Bench) -> None:
    task = bench.task()
    task("a")
    task("a")
    assert bench.runs == {"a": 2}
    assert bench.store._records == {} and claims(task, "granted") == 0
    with pytest.raises(IdempotencyError, match="called directly"):
        _ = task.claim


def test_a_task_that_calls_itself_is_one_piece_of_work(bench: Bench) -> None:
    def work(self: Any, left: int) -> int:
        return 0 if left == 0 else 1 + int(self(left - 1))

    task = bench.task(work, bind=True)
    assert task.delay(4).get() == 4
    assert len(bench.store._records) == 1 and claims(task, "granted") == 1


def test_an_execution_knows_its_claim(bench: Bench) -> None:
    seen: list[tuple[str, int]] = []

    def work(self: Any) -> None:
        self.claim.check()
        seen.append((self.claim.key, self.claim.fence))

    task = bench.task(work, bind=True)
    task.delay()
    key = task.idempotency_key_of().key
    (record,) = bench.store._records.values()
    assert seen == [(key, record.fence)]


@pytest.mark.parametrize("where", ["task", "setting"])
def test_a_task_that_is_turned_off_is_a_plain_one(bench: Bench, where: str) -> None:
    bench.app.conf.idempotency_enabled = where == "task"
    task = bench.task(idempotency_enabled=False if where == "task" else None)
    task.announce_metrics()
    task.delay("a")
    task.delay("a")
    assert bench.runs == {"a": 2}
    assert bench.store._records == {} and claims(task, "granted") == 0
    assert REGISTRY.get_sample_value("idemwatch_enabled", {"task": task.name}) == 0


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_of_the_users_own_gets_task_and_arguments(bench: Bench) -> None:
    seen: list[Any] = []

    def key(task: Any, x: str, **rest: Any) -> str:
        seen.append((task.name, x, rest))
        return f"mine/{x}"

    task = bench.task(idempotency_key=key, idempotency_ignore_args=("y",))
    task.delay("a", y=1)
    task.delay("a", y=2)
    assert bench.runs == {"a": 1}
    assert seen == [(task.name, "a", {"y": y}) for y in (1, 2)]
    assert task.idempotency_key_of("a").key == "mine/a"


def test_a_key_that_is_no_text_runs_nothing(bench: Bench) -> None:
    with pytest.raises(InvalidKey, match="returned NoneType"):
        bench.task(idempotency_key=no_key).delay("a")
    assert bench.runs == {}


def test_picked_arguments_make_the_key(bench: Bench) -> None:
    task = bench.task(idempotency_key_args=("x",), idempotency_ignore_args=("y",))
    assert task.delay("a", y=1).get() == task.delay("a", y=2).get()
    task.delay("b", 1)
    assert bench.runs == {"a": 1, "b": 1}


@pytest.mark.parametrize("scope", ["user", "device"])
def test_each_id_of_a_scope_has_work_of_its_own(bench: Bench, scope: str) -> None:
    name = f"{scope}_id"
    task = bench.task(idempotency_scope=scope, idempotency_ignore_args=(name,))
    for who in ("ann", "bob", "ann"):
        task.delay("a", **{name: who})
    task.apply(args=("a",), headers={f"idempotency_{name}": "ann"})
    assert bench.runs == {"a": 2} and claims(task, "duplicate", scope) == 2
    assert {getattr(r, name) for r in bench.store._records.values()} == {"ann", "bob"}
    with pytest.raises(MissingScopeId, match=name):
        task.delay("a")
    assert bench.runs == {"a": 2}


def test_a_message_is_a_scope_too(bench: Bench) -> None:
    task = bench.task(idempotency_scope="task")
    for task_id in ("one", "other", "one"):
        task.apply_async(("a",), task_id=task_id)
    assert bench.runs == {"a": 2} and claims(task, "duplicate", "task") == 1


# -- the fixture -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, 2])
def test_the_fixture_starts_each_test_empty(
    bench: Bench, idempotency_memory: MemoryStore, turn: int
) -> None:
    assert idempotency_memory._records == {}
    task = bench.app.task(name="tests.fixed", base=IdempotentTask, shared=False)(same)
    assert task.delay(turn).get() == turn
    assert [r.endpoint for r in idempotency_memory._records.values()] == ["tests.fixed"]


def test_the_fixture_reaches_an_app_that_was_used_before(request: pytest.FixtureRequest) -> None:
    app = Celery("before", set_as_current=False)
    app.conf.idempotency_namespace = "mine"
    assert settings_of(app).store == "servers"
    request.getfixturevalue("idempotency_memory")
    assert (settings_of(app).store, settings_of(app).namespace) == ("memory", "mine")
