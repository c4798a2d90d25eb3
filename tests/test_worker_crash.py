"""Processes that die while they run a task: it is repeated, counted, and given up in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from idemwatch.idempotency.errors import PoisonedKey
from idemwatch.idempotency.record import State
from support.fleet import Fleet

pytestmark = pytest.mark.worker

MAX_CRASHES = 3
ALWAYS = 99
# What is written of a process that died, and of the key that it took with it.
DEATHS = (
    *("WorkerLostError", "exited with 'signal 9 (SIGKILL)'", "Hard time limit"),
    *("TimeLimitExceeded", "for too long: renewed no more", "takes over", "PoisonedKey"),
)


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param)


def test_a_task_whose_child_dies_is_repeated_and_its_sibling_is_not(fleet: Fleet) -> None:
    label, sibling = fleet.label(), fleet.label()
    held = fleet.send("work", sibling, sibling)
    fleet.wait_for_event(sibling, "start")
    before = fleet.store.find(fleet.key("work", sibling, sibling))
    task_id = fleet.send("kills", label, "child", 1)
    fleet.wait_for_event(label, "start")
    # A further message of the key waits for the one that takes over.
    other = fleet.send("kills", label, "child", 1)
    assert fleet.result(task_id) == fleet.result(other) == label
    assert fleet.events(label) == ["start", "start", "end"]
    assert fleet.state("kills", label, "child", 1) is State.DONE
    assert fleet.claims("kills", "granted") == 1
    assert fleet.claims("kills", "taken_over") == 1

    after = fleet.store.find(fleet.key("work", sibling, sibling))
    assert before is not None and after is not None
    assert before.record.owner == after.record.owner
    assert before.record.due_us < after.record.due_us  # renewed all the while
    fleet.open(sibling)
    assert fleet.result(held) == sibling
    fleet.wait_for_idle()
    assert fleet.events(sibling) == ["start", "end"]


def test_a_task_that_always_kills_its_child_stops_and_is_reported(fleet: Fleet) -> None:
    label = fleet.label()
    call = ("kills", label, "child", 1 + MAX_CRASHES)
    starts = ["start"] * (1 + MAX_CRASHES)
    taken_over, poisoned = fleet.claims("kills", "taken_over"), fleet.claims("kills", "poisoned")
    status, error = fleet.outcome(fleet.send(*call))
    assert status == "FAILURE" and isinstance(error, PoisonedKey)
    assert error.key == fleet.key(*call) and error.key in str(error)
    fleet.wait_for_idle()
    assert fleet.events(label) == starts
    assert fleet.claims("kills", "taken_over") == taken_over + MAX_CRASHES
    assert fleet.state(*call) is State.POISONED
    assert list(fleet.store.poisoned()) == [fleet.key(*call)]

    # Nothing is run for any other message of the key ...
    status, error = fleet.outcome(fleet.send(*call))
    assert status == "FAILURE" and isinstance(error, PoisonedKey)
    assert fleet.events(label) == starts

    # ... until an operator forgets it.
    fleet.store.forget(fleet.key(*call))
    assert fleet.result(fleet.send(*call)) == label
    assert fleet.events(label) == [*starts, "start", "end"]
    assert list(fleet.store.poisoned()) == []
    # Both the message that died too often and the one that came later.
    assert fleet.claims("kills", "poisoned") == poisoned + 2


def test_a_hard_time_limit_lets_the_message_come_again(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("limited", label)
    # Not its result: Celery notes a FAILURE before it delivers the message again.
    fleet.wait(lambda: fleet.state("limited", label) is State.DONE, "the repetition was done")
    fleet.wait_for_idle()
    assert fleet.result(task_id) == label
    assert fleet.logged(f"Hard time limit (2s) exceeded for sheet.limited[{task_id}]") == 1
    assert fleet.events(label) == ["start", "start"]


def test_a_hard_time_limit_that_ends_the_message_gives_the_key_back(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("work", label, label, time_limit=2)
    fleet.wait_for_event(label, "start")
    children = set(fleet.worker.children())
    status, error = fleet.outcome(task_id)
    assert status == "FAILURE" and "TimeLimitExceeded" in repr(error)
    # Celery tells of the failure before it kills the child, which must not pass the gate.
    fleet.wait(lambda: not children <= set(fleet.worker.children()), "a child was killed")
    fleet.open(label)
    assert fleet.result(fleet.send("work", label, label)) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start", "end"]


def test_a_task_that_only_sigkill_ends_leaves_its_lease_to_run_out(fleet: Fleet) -> None:
    label = fleet.label()
    status, error = fleet.outcome(fleet.send("stubborn", label))
    assert status == "FAILURE" and "TimeLimitExceeded" in repr(error)
    assert fleet.state("stubborn", label) is State.RUNNING
    assert fleet.result(fleet.send("stubborn", label)) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.claims("stubborn", "taken_over") == 1


def test_the_logs_of_all_that_show_only_the_deaths(fleet: Fleet) -> None:
    assert fleet.complaints(*DEATHS, "Traceback (most recent call last)") == []


def test_a_task_whose_worker_dies_is_repeated(new_fleet: Callable[..., Fleet]) -> None:
    # One child and one message at a time, here and below: Redis' transport loses a message whose
    # consumer dies before it noted it.
    fleet = new_fleet("redis", workers=0)
    label = fleet.label()
    fleet.start(concurrency=1)
    task_id = fleet.send("kills", label, "worker", 1)
    fleet.worker.wait_for_end()
    assert fleet.events(label) == ["start"]
    assert fleet.messages(task_id) == 1
    assert fleet.state("kills", label, "worker", 1) is State.RUNNING
    fleet.start(concurrency=1)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start", "end"]
    assert fleet.claims("kills", "taken_over") == 1


def test_a_task_that_always_kills_its_worker_stops(new_fleet: Callable[..., Fleet]) -> None:
    fleet = new_fleet("postgres", workers=0, idempotency_max_crashes=1)
    label = fleet.label()
    fleet.start(concurrency=1)
    task_id = fleet.send("kills", label, "worker", ALWAYS)
    fleet.worker.wait_for_end()
    fleet.start(concurrency=1)
    fleet.worker.wait_for_end()
    fleet.start(concurrency=1)
    status, error = fleet.outcome(task_id)
    assert status == "FAILURE" and isinstance(error, PoisonedKey)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.state("kills", label, "worker", ALWAYS) is State.POISONED
    assert fleet.claims("kills", "poisoned") == 1
