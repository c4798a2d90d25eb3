"""Retries in eager mode: the key is kept for the next attempt, and for no other call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import celery
import pytest
from celery.exceptions import MaxRetriesExceededError
from idemwatch.idempotency import (
    AlreadyRunning,
    IdempotencyError,
    StoreUnavailable,
    task_retry_policy,
)
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import State
from support.eager import Bench, claims, counted


@pytest.fixture
def bench(idempotency_memory: MemoryStore) -> Bench:
    """Celery retries in eager mode only where errors are kept in the result."""
    bench = Bench(idempotency_memory)
    bench.app.conf.task_eager_propagates = False
    return bench


def flaky(bench: Bench, failures: int) -> Callable[..., int]:
    """Work that retries itself so often."""

    def work(self: Any, x: int = 1, y: int = 2) -> int:
        bench.runs[self.request.retries] += 1
        if self.request.retries < failures:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    return work


def test_each_attempt_of_a_retry_runs_once_and_the_last_one_finishes(bench: Bench) -> None:
    task = bench.task(flaky(bench, 2), bind=True)
    assert task.apply().get() == task.apply().get() == 2
    assert bench.runs == {0: 1, 1: 1, 2: 1}
    assert counted("releases", task, reason="retry") == 2
    assert (claims(task, "granted"), claims(task, "duplicate")) == (3, 1)


def test_autoretry_keeps_the_key_as_retry_does(bench: Bench) -> None:
    def work(self: Any) -> int:
        bench.runs[self.request.retries] += 1
        if self.request.retries < 2:
            raise ConnectionError("the other side is away")
        return 7

    task = bench.task(work, bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0)
    assert task.apply().get() == task.apply().get() == 7
    assert bench.runs == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("error", [AlreadyRunning("part"), StoreUnavailable("redis", "is away")])
def test_a_category_uses_up_no_try_on_what_comes_again_by_itself(
    bench: Bench, error: IdempotencyError
) -> None:
    def work(self: Any) -> None:
        bench.runs[self.request.retries] += 1
        raise error

    policy = task_retry_policy("critical", idempotency_authority="postgres")
    task = bench.task(work, bind=True, **policy)
    with pytest.raises(type(error)):
        task.apply().get()
    assert bench.runs == {0: 1}
    assert counted("releases", task, reason="retry") == 0
    assert counted("releases", task, reason="ignored") == 1


def test_retries_that_run_out_give_the_key_back(bench: Bench) -> None:
    task = bench.task(flaky(bench, 9), bind=True, max_retries=1)
    for _ in range(2):
        with pytest.raises(MaxRetriesExceededError):
            task.apply().get()
    assert bench.runs == {0: 2, 1: 2}
    assert bench.store._records == {}


def in_a_minute(zone: tzinfo | None) -> dict[str, Any]:
    eta = datetime.now(zone or UTC) + timedelta(minutes=1)
    return {"eta": eta if zone else eta.replace(tzinfo=None)}  # Celery takes a naive one as UTC


WHEN: dict[str, Callable[[], dict[str, Any]]] = {
    "countdown": lambda: {"countdown": 60},
    "the task's own delay": dict,
    "eta": lambda: in_a_minute(timezone(timedelta(hours=9))),
    "naive eta": lambda: in_a_minute(None),
}


@pytest.mark.parametrize("when", WHEN)
def test_between_two_attempts_the_key_is_kept_for_the_next(bench: Bench, when: str) -> None:
    met: list[Any] = []

    def work(self: Any) -> int:
        if self.request.retries == 0:
            self.retry(throw=False, **WHEN[when]())
            met.append(bench.record(task))
            with pytest.raises(AlreadyRunning):
                task.apply().get()
        return 7

    task = bench.task(work, bind=True, default_retry_delay=60)
    assert task.apply().get() == 7
    assert met[0].state is State.WAITING and met[0].attempt == 1
    left_us = met[0].due_us - bench.store._clock()
    assert 955_000_000 < left_us <= 960_000_000  # fifteen minutes from when it may begin


def again_with(args: Any, kwargs: Any) -> Callable[..., int]:
    """Work on one call that goes on with another."""

    def work(self: Any, x: int, y: int = 2) -> int:
        if self.request.retries == 0:
            raise self.retry(args, kwargs, countdown=0)
        return x + y

    return work


CHANGED: dict[str, tuple[tuple[Any, ...], dict[str, int], Any, Any]] = {
    "positional": ((1,), {}, (5,), None),
    "named": ((), {"x": 1}, None, {"x": 5}),
}
if celery.VERSION >= (5, 7):  # which takes away what the new arguments stand for
    CHANGED["positional for named"] = ((), {"x": 1}, (5,), None)
    CHANGED["named for positional"] = ((1,), {}, None, {"x": 5})


@pytest.mark.parametrize("how", CHANGED)
def test_a_retry_with_other_arguments_is_other_work(bench: Bench, how: str) -> None:
    args, kwargs, new_args, new_kwargs = CHANGED[how]
    task = bench.task(again_with(new_args, new_kwargs), bind=True)
    assert task.apply(args, kwargs).get() == 7
    assert bench.record(task, 1) is None
    assert task.apply((5,)).get() == 7 and claims(task, "duplicate") == 1


def test_a_retry_may_change_what_is_not_in_the_key(bench: Bench) -> None:
    task = bench.task(again_with((1, 9), None), bind=True, idempotency_key_args=("x",))
    assert task.apply((1, 2)).get() == 10
    assert task.apply((1, 9)).get() == 10 and claims(task, "duplicate") == 1
