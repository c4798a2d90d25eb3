"""Retries: the next attempt of the same message runs, whatever else comes meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from idemwatch.idempotency.record import State
from support.fleet import Fleet

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param)


@pytest.mark.parametrize("countdown", [0, 0.2])
def test_each_attempt_runs_once(fleet: Fleet, countdown: float) -> None:
    label = fleet.label()
    fleet.send("retrying", label, 3, countdown)
    # Not its result: Celery may note the RETRY of one attempt after the SUCCESS of the next.
    fleet.wait_for_event(label, "attempt 2")
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 1", "attempt 2"]
    assert fleet.state("retrying", label, 3, countdown) is State.DONE


def test_autoretry_runs_the_next_attempt(fleet: Fleet) -> None:
    label = fleet.label()
    fleet.send("autoretrying", label, 3)
    fleet.wait_for_event(label, "attempt 2")
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 1", "attempt 2"]
    # The key is made from the parameters of the task itself, not from those of Celery's wrapper.
    same = fleet.send("autoretrying", label, kwargs={"attempts": 3})
    assert fleet.result(same) == 2
    assert len(fleet.events(label)) == 3


def test_retries_that_run_out_give_the_key_back(fleet: Fleet) -> None:
    label = fleet.label()
    fleet.send("autoretrying", label, 9)
    fleet.wait_for_event(label, "attempt 3")
    fleet.wait_for_idle()
    assert len(fleet.events(label)) == 4
    assert fleet.state("autoretrying", label, 9) is None


def test_another_id_waits_for_the_next_attempt(fleet: Fleet) -> None:
    label = fleet.label()
    first = fleet.send("retrying", label, 2, 1.5)
    fleet.wait(
        lambda: fleet.state("retrying", label, 2, 1.5) is State.WAITING, "the retry was parked"
    )
    other = fleet.send("retrying", label, 2, 1.5)
    fleet.wait(lambda: fleet.logged(f"sheet.retrying[{other}] ignored") >= 1, "it was turned away")
    assert fleet.result(first) == fleet.result(other) == 1
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 1"]


def test_a_retry_that_waited_before_is_counted_as_it_comes(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("retrying", label, 2, 0.5)
    fleet.wait(
        lambda: fleet.state("retrying", label, 2, 0.5) is State.WAITING, "the retry was parked"
    )
    fleet.wait_for_event(label, "attempt 1")
    fleet.result(holder)
    before = fleet.claims("retrying", "duplicate")
    fleet.result(fleet.send("retrying", label, 2, 0.5))
    assert fleet.claims("retrying", "duplicate") == before + 1


def test_a_retry_that_cannot_be_published_comes_again(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("retries_nowhere", label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 0"]
    assert fleet.state("retries_nowhere", label) is State.DONE


@pytest.mark.parametrize("authority", ["redis", "postgres"])
def test_a_worker_that_dies_after_publishing_its_retry_repeats_nothing(
    authority: str, new_fleet: Callable[..., Fleet]
) -> None:
    fleet = new_fleet(authority, workers=0)
    # One child and one message at a time: an idle worker would take the next attempt from the
    # queue, and Redis' transport loses a message whose consumer dies before it noted it.
    fleet.start(concurrency=1)
    label = fleet.label()
    task_id = fleet.send("dies_after_publishing", label)
    fleet.worker.wait_for_end()
    assert fleet.events(label) == ["attempt 0"]
    assert fleet.messages(task_id) == 2
    assert fleet.state("dies_after_publishing", label) is State.WAITING
    fleet.start()
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 1"]
    assert fleet.complaints("Task handler raised error") == []
