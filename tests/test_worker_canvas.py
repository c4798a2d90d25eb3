"""Chords, chains, groups, links: with duplicates among them they finish once, with their result."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from idemwatch.idempotency.record import State
from support.fleet import Fleet

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    fleet = new_fleet(request.param, workers=2)
    # No result subscribes to its end: it would unsubscribe when it is collected, long after Redis.
    fleet.publisher.backend.result_consumer.consume_from = lambda _: None
    return fleet


def ids(result: Any) -> list[str]:
    """The ids of a group's members."""
    return [str(member.id) for member in result.results]


def test_a_group_of_equal_tasks_does_the_work_once(fleet: Fleet) -> None:
    label = fleet.label()
    result = group(fleet.signature("add", label, 2, 3) for _ in range(5)).apply_async()
    assert [fleet.result(member) for member in ids(result)] == [5] * 5
    fleet.wait_for_idle()
    assert fleet.events(label) == ["add 2 3"]


def test_a_chord_with_equal_tasks_in_its_header_counts_each(fleet: Fleet) -> None:
    label = fleet.label()
    header = [fleet.signature("add", label, x, y) for x, y in ((1, 1), (1, 1), (2, 2), (1, 1))]
    result = chord(header)(fleet.signature("total", label))
    assert fleet.result(result.id) == 2 + 2 + 4 + 2
    fleet.wait_for_idle()
    assert sorted(fleet.events(label)) == ["add 1 1", "add 2 2", "total"]


def test_a_chord_with_a_part_that_is_delivered_twice_ends_once(fleet: Fleet) -> None:
    labels, told = [fleet.label(), fleet.label()], fleet.label()
    header = [fleet.signature("work", label, label) for label in labels]
    result = chord(header)(fleet.signature("linked", told))
    twice = ids(result.parent)[1]
    for label in labels:
        fleet.wait_for_event(label, "start")
    fleet.wait(lambda: fleet.logged(f"sheet.work[{twice}] ignored") >= 1, "it came again")
    fleet.open(labels[1])
    # The copy ends too, and must not count as the part that is still running.
    fleet.wait(lambda: fleet.logged(f"sheet.work[{twice}] succeeded") == 2, "both have ended")
    assert fleet.events(told) == []
    fleet.open(labels[0])
    assert fleet.result(result.id) is None
    fleet.wait_for_idle()
    assert fleet.events(told) == [f"linked {labels}"]
    assert [fleet.events(label) for label in labels] == [["start", "end"]] * 2


def test_a_duplicate_part_has_the_bytes_of_the_first(fleet: Fleet) -> None:
    label, told = fleet.label(), fleet.label()
    value = {"b": 1, "a": {"d": [1.0, None, "é"], "c": "\x00"}}
    header = [fleet.signature("keyed", label, value) for _ in range(3)]
    result = chord(header)(fleet.signature("linked", told))
    assert fleet.result(result.id) is None
    fleet.wait_for_idle()
    # As text: the order of the dict's keys is part of it.
    assert fleet.events(told) == [f"linked {[value] * 3}"]
    assert fleet.events(label) == ["start"]


def test_a_chain_with_a_message_that_is_delivered_twice_goes_on_once(fleet: Fleet) -> None:
    label, first = fleet.label(), str(uuid.uuid4())
    rest = [fleet.signature("add_to", label, more) for more in (100, 10)]
    ending, _ = (str(one.freeze().id) for one in rest)
    for _ in range(2):
        fleet.send("add", label, 1, 2, task_id=first, chain=rest)
    assert fleet.result(ending) == 113
    fleet.wait(lambda: fleet.logged(f"sheet.add_to[{ending}] succeeded") == 2, "both went on")
    fleet.wait_for_idle()
    assert fleet.result(ending) == 113
    assert fleet.events(label) == ["add 1 2", "add_to 3 10", "add_to 13 100"]


def test_a_chain_with_a_message_that_is_delivered_again_while_it_runs(fleet: Fleet) -> None:
    label, told = fleet.label(), fleet.label()
    result = chain(fleet.signature("work", label, label), fleet.signature("linked", told))()
    task_id = str(result.parent.id)
    fleet.wait(lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 2, "it came again")
    fleet.open(label)
    assert fleet.result(result.id) is None
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    assert fleet.events(told) == [f"linked {label}"]


def test_equal_chains_both_have_their_result(fleet: Fleet) -> None:
    label = fleet.label()
    steps = [fleet.signature("add", label, 1, 2), fleet.signature("add_to", label, 10)]
    results = [chain(*steps)() for _ in range(3)]
    assert [fleet.result(result.id) for result in results] == [13] * 3
    fleet.wait_for_idle()
    assert fleet.events(label) == ["add 1 2", "add_to 3 10"]


def test_a_replaced_task_gives_its_key_back_and_its_chain_goes_on(fleet: Fleet) -> None:
    label = fleet.label()
    for times in (1, 2):
        step = fleet.signature("replaced", label, 4)
        result = chain(step, fleet.signature("add_to", label, 10))()
        assert fleet.result(result.id) == 15
        fleet.wait_for_idle()
        assert fleet.state("replaced", label, 4) is None
        assert fleet.state("add", label, 4, 1) is State.DONE
        # The replacement is idempotent itself, and its result is replayed.
        assert sorted(fleet.events(label)) == ["add 4 1", "add_to 5 10", *["replaced"] * times]
        assert fleet.metric("idemwatch_releases_total", "sheet.replaced", "replaced") == times


def test_each_duplicate_calls_its_own_link_with_the_result(fleet: Fleet) -> None:
    label, told = fleet.label(), [fleet.label(), fleet.label()]
    links = [fleet.signature("linked", one) for one in told]
    for link in (*links, links[0]):
        assert fleet.result(fleet.send("add", label, 2, 3, link=link)) == 5
    fleet.wait_for_idle()
    assert fleet.events(label) == ["add 2 3"]
    assert [fleet.events(one) for one in told] == [["linked 5"], ["linked 5"]]


def test_a_failure_calls_its_link_error_once(fleet: Fleet) -> None:
    label, told = fleet.label(), fleet.label()
    mourns = fleet.signature("mourns", told, immutable=True)
    for times in (1, 2):
        status, _ = fleet.outcome(fleet.send("fails", label, link_error=mourns))
        assert status == "FAILURE"
        fleet.wait_for_event(told, "mourns")
        fleet.wait_for_idle()
        assert fleet.events(label) == ["fails"] * times
    assert fleet.events(told) == ["mourns"]


def test_a_part_that_fails_fails_its_chord_and_runs_no_body(fleet: Fleet) -> None:
    label, told, failing = fleet.label(), fleet.label(), fleet.label()
    header = [fleet.signature("add", label, 1, 1), fleet.signature("fails", failing)]
    result = chord(header)(fleet.signature("linked", told))
    status, error = fleet.outcome(result.id)
    assert status == "FAILURE" and "as the test says" in str(error)
    fleet.wait_for_idle()
    assert fleet.events(told) == []
    # The part that was done is not done again with the next chord.
    header = [fleet.signature("add", label, 1, 1)] * 2
    assert fleet.result(chord(header)(fleet.signature("linked", told)).id) is None
    assert fleet.events(told) == ["linked [2, 2]"]
    assert fleet.events(label) == ["add 1 1"]


def test_within_a_canvas_skip_replays(fleet: Fleet) -> None:
    label = fleet.label()
    assert fleet.result(fleet.send("skips", label)) == label
    step = fleet.signature("skips", label)
    told = [fleet.label() for _ in range(3)]
    links = [fleet.signature("linked", one) for one in told]
    assert fleet.result(chain(step, links[0])().id) is None
    assert fleet.result(chord([step, step])(links[1]).id) is None
    assert fleet.result(fleet.send("skips", label, link=links[2])) == label
    assert [fleet.result(one) for one in ids(group([step, step]).apply_async())] == [label] * 2
    fleet.wait_for_idle()
    assert [fleet.events(one) for one in told] == [
        [f"linked {label}"],
        [f"linked {[label, label]}"],
        [f"linked {label}"],
    ]
    assert fleet.events(label) == ["start"]


def test_the_logs_of_all_that_show_only_the_failures(fleet: Fleet) -> None:
    expected = ("as the test says", "Traceback (most recent call last)")
    assert fleet.complaints(*expected) == []
