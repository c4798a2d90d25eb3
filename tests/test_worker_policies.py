"""keep_last and at_publish on real workers, some of which die between two lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest
from celery import Celery
from celery.exceptions import ChordError, TaskRevokedError
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.keep_last_store import KeepLastStore
from idemwatch.idempotency.record import Claim
from idemwatch.idempotency.store import Held, SwapStore
from support.fleet import Fleet
from support.stores import HOUR_US, wait_until

pytestmark = [
    pytest.mark.worker,
    # Celery's own call of redis-py, where the result backend is Redis.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param, workers=2)


@pytest.fixture
def caller(fleet: Fleet) -> Iterator[Celery]:
    """An app that publishes by the tasks themselves, with the settings of the workers."""
    app = Celery("caller", broker=fleet.broker, backend="cache+memory://", set_as_current=False)
    told = {name: value for name, value in fleet.conf.items() if name.startswith("idempotency_")}
    app.conf.update(told)
    yield app
    close_engines()
    app.close()


def revoked(fleet: Fleet, task_id: str) -> bool:
    """Whether whoever waits for the message is told that it never runs."""
    meta = fleet.publisher.backend.get_task_meta(task_id)
    return meta["status"] == "REVOKED" and isinstance(meta["result"], TaskRevokedError)


# -- keep_last -------------------------------------------------------------------------------------


def test_the_newest_runs_next_and_those_between_are_revoked(fleet: Fleet) -> None:
    label = fleet.label()
    first = fleet.send("keeps_last", label, 1, label)
    fleet.wait_for_event(label, "start 1")
    between = [fleet.send("keeps_last", label, number) for number in (2, 3)]
    met = [f"sheet.keeps_last[{one}] ignored" for one in between]
    fleet.wait(lambda: all(map(fleet.logged, met)), "both were met, in whatever order")
    last = fleet.send("keeps_last", label, 4)
    fleet.wait(lambda: all(revoked(fleet, one) for one in between), "two were superseded")
    fleet.open(label)
    assert (fleet.result(first), fleet.result(last)) == (1, 4)
    later = fleet.send("keeps_last", label, 5)
    assert fleet.result(later) == 5, "what comes when nothing runs is work of its own"
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start 1", "end 1", "start 4", "end 4", "start 5", "end 5"]


def test_a_finished_message_that_comes_again_does_nothing(fleet: Fleet) -> None:
    label = fleet.label()
    first = fleet.send("keeps_last", label, 1)
    assert fleet.result(first) == 1
    assert fleet.result(fleet.send("keeps_last", label, 2)) == 2
    for task_id, number in ((first, 1), (fleet.send("keeps_last", label, 3), 3)):
        fleet.send("keeps_last", label, number, task_id=task_id)
    fleet.wait_for_event(label, "end 3")
    fleet.wait_for_idle()
    assert fleet.events(label) == [f"{what} {n}" for n in (1, 2, 3) for what in ("start", "end")]


def test_a_canvas_whose_message_is_superseded_fails_and_does_not_hang(fleet: Fleet) -> None:
    label = fleet.label()
    fleet.send("keeps_last", label, 1, label)
    fleet.wait_for_event(label, "start 1")
    member, body = fleet.result(fleet.send("starts_a_chord", label))
    fleet.wait(lambda: bool(fleet.logged(f"sheet.keeps_last[{member}] ignored")), "it waits")
    last = fleet.send("keeps_last", label, 3)
    status, error = fleet.outcome(body)
    assert status == "FAILURE" and isinstance(error, ChordError)
    fleet.open(label)
    assert fleet.result(last) == 3


def test_who_was_superseded_is_counted(fleet: Fleet) -> None:
    assert fleet.metric("idemwatch_superseded_total", "sheet.keeps_last") == 3


@pytest.mark.parametrize("when", ["noted", "published"])
def test_a_worker_that_dies_while_the_newest_waits_loses_nothing(fleet: Fleet, when: str) -> None:
    label = fleet.label()
    claim = Claim(
        key=fleet.key("dies_waiting", label, 1),
        owner=label,
        authority=fleet.conf["idempotency_authority"],
        task_id="held by the test",
        lease_us=HOUR_US,
    )
    held = Held(claim=claim, fence=fleet.store.claim(claim).fence, created_us=0)
    older = fleet.send("dies_waiting", label, 2)
    wait_until(lambda: bool(fleet.logged(f"sheet.dies_waiting[{older}] ignored")))
    last = fleet.send("dies_waiting", label, 3, when)
    wait_until(lambda: fleet.events(f"{label} 3") == ["dies"])
    fleet.start()
    fleet.wait(lambda: revoked(fleet, older), "the older one was superseded")
    assert KeepLastStore(cast(SwapStore, fleet.store)).release(held)
    assert fleet.result(last) == 3
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start 3"]


# -- at_publish ------------------------------------------------------------------------------------


def test_a_call_is_answered_until_its_work_failed(fleet: Fleet, caller: Celery) -> None:
    task = caller.tasks["sheet.published_once"]
    label = fleet.label()
    first = task.delay(label, label, "fail").id
    assert task.delay(label, gate=label, how="fail").id == first
    fleet.wait_for_event(label, "start")
    assert task.delay(label, label, "fail").id == first
    fleet.open(label)
    assert fleet.outcome(first)[0] == "FAILURE"
    again = task.delay(label, label, "fail").id
    assert again != first and fleet.outcome(again)[0] == "FAILURE"
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
