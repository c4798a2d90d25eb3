"""Cases 18 and 19: copies of one message while its holder works, or is frozen past its lease."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.fleet import Fleet

pytestmark = pytest.mark.worker

HOLD_SECONDS = 30
"""Half of the case's minute: 15 visibility timeouts, 10 leases, about 40 turns of a copy."""


def test_messages_and_executions_of_one_id_stay_at_one_for_as_long_as_it_takes(
    new_fleet: Callable[..., Fleet],
) -> None:
    fleet = new_fleet("postgres", workers=2)
    label = fleet.label()
    holder = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    other = fleet.send("work", label, label)
    until = time.monotonic() + HOLD_SECONDS
    seen: dict[str, list[int]] = {holder: [], other: []}

    def looked_long_enough() -> bool:
        for task_id, counts in seen.items():
            counts.append(fleet.messages(task_id))
        return time.monotonic() > until

    fleet.wait(looked_long_enough, "the holder's time is over")
    assert fleet.events(label) == ["start"]
    assert fleet.logged(f"sheet.work[{other}] ignored") >= 10, "it came again and again"
    for counts in seen.values():
        # Two only for the moment between publishing the next one and acknowledging this.
        assert max(counts) <= 2 and counts.count(1) > len(counts) * 0.8
    fleet.open(label)
    assert [fleet.result(holder), fleet.result(other)] == [label, label]
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    assert fleet.claims("work", "granted") == 1 and fleet.claims("work", "taken_over") == 0


def test_a_holder_that_was_frozen_makes_no_second_set_of_callbacks(
    new_fleet: Callable[..., Fleet],
) -> None:
    """A part of a chord is done twice, with two results; its body runs once, with one of them."""
    fleet = new_fleet("redis", workers=0, app="support.cases_app")
    fleet.start(concurrency=1)
    frozen, label, told = fleet.worker, fleet.label(), fleet.label()
    body = fleet.result(fleet.send("starts_a_chord_of_parts", label, told, label))
    fleet.wait_for_event(label, "start 1")
    frozen.freeze()
    fleet.start()
    fleet.wait_for_event(label, "start 1", times=2)
    fleet.open(label)
    total = fleet.result(body)
    frozen.thaw()
    fleet.wait_for_event(label, "end 1", times=2)
    stale = ("idemwatch_completions_total", "sheet.part", "stale")
    fleet.wait(lambda: fleet.metric(*stale) == 1, "the completion of the late one was refused")
    fleet.wait_for_idle()
    assert [event for event in fleet.events(label) if "body" in event] == [f"body {total}"]
    assert len(fleet.events(told)) == 1
    assert fleet.result(body) == total
