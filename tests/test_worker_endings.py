"""Tasks that end without a result, or never begin: nothing is left of them, and the next call runs.

That is: no record, no message at the broker, and no message that waits for ever.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from idemwatch.idempotency.record import State
from support.fleet import Fleet

pytestmark = pytest.mark.worker

REVOKED = "Discarding revoked task: sheet.work"


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param)


def revoke(fleet: Fleet, task_id: str) -> None:
    fleet.publisher.control.revoke(task_id)
    fleet.wait(lambda: fleet.logged(f"flagged as revoked: {task_id}") == 1, "it was revoked")


def is_revoked(fleet: Fleet, task_id: str) -> bool:
    status: str = fleet.publisher.backend.get_task_meta(task_id)["status"]
    return status == "REVOKED"


def releases(fleet: Fleet, task: str, reason: str) -> float:
    return fleet.metric("idemwatch_releases_total", f"sheet.{task}", reason)


def test_a_task_revoked_before_it_starts(fleet: Fleet) -> None:
    label, task_id = fleet.label(), str(uuid.uuid4())
    revoke(fleet, task_id)
    fleet.send("work", label, task_id=task_id)
    fleet.wait(lambda: is_revoked(fleet, task_id), "it was discarded")
    fleet.wait_for_idle()
    assert fleet.events(label) == []
    assert fleet.state("work", label) is None
    assert fleet.result(fleet.send("work", label)) == label


def test_a_task_that_has_expired(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("work", label, expires=-5)
    fleet.wait(lambda: is_revoked(fleet, task_id), "it was discarded")
    fleet.wait_for_idle()
    assert fleet.events(label) == []
    assert fleet.state("work", label) is None
    assert fleet.result(fleet.send("work", label)) == label


def test_a_waiting_message_that_is_revoked_leaves_the_holder_alone(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    other = fleet.send("work", label, label)
    fleet.wait(lambda: fleet.logged(f"sheet.work[{other}] ignored") >= 1, "it waits")
    revoke(fleet, other)
    fleet.wait(lambda: is_revoked(fleet, other), "it was discarded")
    fleet.wait(lambda: fleet.messages(other) == 0, "nothing is left of it")
    assert fleet.state("work", label, label) is State.RUNNING
    fleet.open(label)
    assert fleet.result(holder) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


def test_a_waiting_message_expires_as_it_would_have(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    other = fleet.send("work", label, label, expires=1)
    fleet.wait(lambda: fleet.logged(f"sheet.work[{other}] ignored") >= 1, "it waits")
    fleet.wait(lambda: is_revoked(fleet, other), "it has expired")
    fleet.wait(lambda: fleet.messages(other) == 0, "nothing is left of it")
    fleet.open(label)
    assert fleet.result(holder) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


@pytest.mark.parametrize(
    ("how", "reason"), [("ignore", "ignored"), ("reject", "ignored"), ("fail", "failure")]
)
def test_an_ending_without_a_result_gives_the_key_back(fleet: Fleet, how: str, reason: str) -> None:
    label, before = fleet.label(), releases(fleet, "ends", reason)
    for times in (1, 2):
        fleet.send("ends", label, how)
        fleet.wait_for_event(label, "start", times)
        fleet.wait_for_idle()
        assert fleet.events(label) == ["start"] * times
        assert fleet.state("ends", label, how) is None
        assert releases(fleet, "ends", reason) == before + times


def test_a_failure_is_reported_and_never_replayed(fleet: Fleet) -> None:
    label = fleet.label()
    ids = [fleet.send("fails", label) for _ in range(2)]
    for task_id in ids:
        status, error = fleet.outcome(task_id)
        assert status == "FAILURE" and isinstance(error, ValueError)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["fails", "fails"]
    assert fleet.state("fails", label) is None


def test_a_message_that_waits_for_a_holder_that_fails_does_the_work(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("fails_once", label, label)
    fleet.wait_for_event(label, "start")
    other = fleet.send("fails_once", label, label)
    fleet.wait(lambda: fleet.logged(f"sheet.fails_once[{other}] ignored") >= 1, "it waits")
    fleet.open(label)
    status, error = fleet.outcome(holder)
    assert status == "FAILURE" and isinstance(error, ValueError)
    assert fleet.result(other) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.state("fails_once", label, label) is State.DONE


def test_a_rejected_message_that_is_requeued_runs_again(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("rejects_once", label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.state("rejects_once", label) is State.DONE
    assert fleet.claims("rejects_once", "granted") == 2


def test_a_child_that_exits_gives_the_key_back_at_once(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("ends", label, "exit")
    fleet.wait_for_event(label, "start", 2)
    assert fleet.result(task_id) is None
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.state("ends", label, "exit") is State.DONE
    # An exit is no crash: nobody waits for a lease to run out.
    assert fleet.claims("ends", "taken_over") == fleet.claims("ends", "running") == 0


def test_the_logs_of_all_that_show_only_what_the_tasks_did(fleet: Fleet) -> None:
    expected = ("ValueError('as the test says')", "reject requeue=", "WorkerLostError")
    lines = ("exited with 'exitcode", "Traceback (most recent call last)")
    assert fleet.complaints(*expected, *lines) == []
