"""A message delivered again while its task runs: the task runs once, its duplicates are answered.

The broker gives up on a message after two seconds and delivers it again, to either worker.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from idemwatch.idempotency.record import State
from support.fleet import Fleet

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param, workers=2)


def test_a_task_longer_than_the_visibility_timeout_runs_once(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    fleet.wait(lambda: fleet.claims("work", "running") >= 1, "the message was delivered again")
    fleet.wait(lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 5, "five turned away")
    fleet.open(label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    assert fleet.claims("work", "granted") == 1


def test_messages_of_one_id_stay_at_one(fleet: Fleet) -> None:
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    seen: list[int] = []

    def turned_away_often() -> bool:
        seen.append(fleet.messages(task_id))
        return fleet.logged(f"sheet.work[{task_id}] ignored") >= 8

    fleet.wait(turned_away_often, "many redeliveries were turned away")
    fleet.open(label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    # Two only for the moment between the publishing of the next and the acknowledgement of this.
    assert max(seen) <= 2
    assert seen.count(1) > len(seen) * 0.8


def test_other_messages_of_a_key_wait_and_get_its_result(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    others = [fleet.send("work", label, label) for _ in range(3)]
    fleet.wait(
        lambda: all(fleet.logged(f"sheet.work[{other}] ignored") for other in others),
        "all were turned away",
    )
    assert fleet.state("work", label, label) is State.RUNNING
    fleet.open(label)
    assert [fleet.result(one) for one in [holder, *others]] == [label] * 4
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]


def test_a_duplicate_does_not_touch_the_record_of_the_holder(fleet: Fleet) -> None:
    label = fleet.label()
    fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    key = fleet.key("work", label, label)
    before = fleet.store.find(key)
    other = fleet.send("work", label, label)
    fleet.wait(lambda: bool(fleet.logged(f"sheet.work[{other}] ignored")), "it was turned away")
    after = fleet.store.find(key)
    assert before is not None and after is not None
    for field in ("state", "owner", "fence", "task_id", "attempt", "crashes", "fingerprint"):
        assert getattr(before.record, field) == getattr(after.record, field), field
    fleet.open(label)
    assert fleet.result(other) == label
    assert fleet.events(label) == ["start", "end"]


def test_a_message_that_waits_keeps_all_it_carried(fleet: Fleet) -> None:
    label, told = fleet.label(), fleet.label()
    fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    message = fleet.signature("work", label, label, link=[fleet.signature("linked", told)])
    message.stamp(team="blue")
    other = message.apply_async(
        headers={"tenant": "north"}, priority=3, expires=600, argsrepr="(secret)", time_limit=50
    ).id
    fleet.wait(
        lambda: fleet.logged(f"sheet.work[{other}] ignored") >= 2, "it was turned away twice"
    )
    fleet.wait(lambda: fleet.messages(other) == 1, "it waits")
    headers, priority = fleet.message(other)
    assert headers["idemwatch_wait"]
    wanted = {"tenant": "north", "argsrepr": "(secret)", "retries": 0, "timelimit": [50, None]}
    assert {name: headers[name] for name in wanted} == wanted
    assert headers["expires"] is not None and headers["stamps"] == {"team": "blue"}
    assert priority == 3
    fleet.open(label)
    assert fleet.result(other) == label
    fleet.wait_for_event(told, f"linked {label}")
    fleet.wait_for_idle()
    assert fleet.events(told) == [f"linked {label}"]


def test_the_logs_of_all_that_show_no_complaint(fleet: Fleet) -> None:
    assert fleet.complaints() == []
