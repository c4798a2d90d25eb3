"""Which calls are one piece of work, and what a duplicate is told: the result, or a loud error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from idemwatch.idempotency.errors import (
    AlreadyRunning,
    ArgumentMismatch,
    DuplicateTask,
    MissingScopeId,
    UnencodableArgument,
)
from idemwatch.idempotency.record import State
from support.app import Place, Size
from support.fleet import Fleet

pytestmark = pytest.mark.worker

LARGE = 10_000_000
SEEDS = ("1", "2")  # of hashes: a set of texts has another order under each
FORMATS = ("json", "pickle", "msgpack", "yaml")
Call = tuple[tuple[Any, ...], dict[str, Any]]  # arguments, and options of its message
AS_ROOT = {"C_FORCE_ROOT": "1"}  # Celery refuses to read pickle as root, unless told


@pytest.fixture(scope="module", params=["redis", "postgres"])
def fleet(request: pytest.FixtureRequest, new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet(request.param, env=AS_ROOT, accept_content=["json", "pickle"])


def error_of(fleet: Fleet, task_id: str) -> Any:
    status, error = fleet.outcome(task_id)
    assert status == "FAILURE", error
    return error


def completions(fleet: Fleet, result: str) -> float:
    return fleet.metric("idemwatch_completions_total", "sheet.returns", result)


# -- keys ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(new_fleet: Callable[..., Fleet]) -> Fleet:
    """Two workers, each with a hash seed of its own, and a queue named after it."""
    fleet = new_fleet("redis", workers=0, env=dict(AS_ROOT), accept_content=[*FORMATS])
    for seed in SEEDS:
        fleet.env["PYTHONHASHSEED"] = seed
        fleet.start(concurrency=1, args=("-Q", seed))
    return fleet


def assert_one_piece_of_work(fleet: Fleet, label: str, calls: list[Call]) -> None:
    """The first worker does it at the first call, and both find it done at all others."""
    before = fleet.claims("ordered", "duplicate")
    for (arguments, options), seed in product(calls, SEEDS):
        told = fleet.result(fleet.send("ordered", *arguments, **options, queue=seed))
        assert told == SEEDS[0], (arguments, options, seed)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    assert fleet.claims("ordered", "duplicate") == before + len(calls) * len(SEEDS) - 1


def test_a_call_is_one_piece_of_work_however_it_is_written_and_sent(pair: Fleet) -> None:
    label = pair.label()
    what = {"b": [1, 2.5, None, True, {"y": 1, "x": 2}], "a": "\u00e9"}
    same = {"a": "\u00e9", "b": [1, 2.5, None, True, {"x": 2, "y": 1}]}
    written: list[Call] = [
        ((label, what), {}),
        ((label, same, 1), {}),
        ((label,), {"kwargs": {"count": 1, "what": same}}),
        ((), {"kwargs": {"what": what, "label": label}}),
    ]
    assert_one_piece_of_work(
        pair,
        label,
        [
            (arguments, {**options, "serializer": format_})
            for format_, (arguments, options) in product(FORMATS, written)
        ],
    )
    # This process computes the same key, of what never was in a message.
    assert pair.state("ordered", label, same) is State.DONE


def test_values_with_a_type_of_their_own_keep_their_key_in_a_message(pair: Fleet) -> None:
    label, day, number = pair.label(), date(2026, 3, 1), UUID(int=5)
    there = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    what = {"when": there, "price": Decimal("1.50"), "day": day, "id": number}
    same = {"id": number, "day": day, "price": Decimal("1.5"), "when": there.astimezone(UTC)}
    calls: list[Call] = [
        ((label, value), {"serializer": format_})
        for format_, value in product(("json", "pickle"), (what, same))
    ]
    assert_one_piece_of_work(pair, label, calls)
    assert pair.state("ordered", label, same) is State.DONE


def test_the_order_of_a_set_and_the_class_of_a_value_are_not_in_the_key(pair: Fleet) -> None:
    label, letters = pair.label(), set("abcdefgh")
    what = {"letters": letters, "size": Size.LARGE, "place": Place("hall", 2)}
    same = {"place": {"floor": 2, "room": "hall"}, "size": "large", "letters": letters}
    calls: list[Call] = [((label, value), {"serializer": "pickle"}) for value in (what, same)]
    assert_one_piece_of_work(pair, label, calls)


def test_equal_values_of_other_types_are_other_work(pair: Fleet) -> None:
    label = pair.label()
    values: list[Any] = [1, True, "1", 1.0, [1], {"1": 1}, None, "None"]
    for value, seed in product(values, SEEDS):
        assert pair.result(pair.send("ordered", label, value, queue=seed)) == SEEDS[0]
    assert pair.events(label) == ["start"] * len(values)


def test_an_argument_of_a_megabyte_makes_a_short_key(pair: Fleet) -> None:
    label, large = pair.label(), "x" * 1_000_000
    assert_one_piece_of_work(pair, label, [((label, large), {})] * 2)
    assert len(pair.key("ordered", label, large)) < 100
    assert pair.result(pair.send("ordered", label, large[:-1] + "y", queue=SEEDS[1])) == SEEDS[1]
    assert pair.events(label) == ["start"] * 2


# -- arguments -------------------------------------------------------------------------------


def test_the_same_key_with_other_arguments_is_a_loud_error(fleet: Fleet) -> None:
    label, before = fleet.label(), fleet.claims("keyed", "mismatch")
    assert fleet.result(fleet.send("keyed", label, 1)) == 1
    for number, other in enumerate((2, True, "1", 1.0, [1]), 1):
        error = error_of(fleet, fleet.send("keyed", label, other))
        assert isinstance(error, ArgumentMismatch)
        assert error.key == f"keyed/{label}" and "other arguments" in str(error)
        assert fleet.claims("keyed", "mismatch") == before + number
        assert fleet.logged(f"raised unexpected: ArgumentMismatch('keyed/{label}')") == number
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    # The record of the first stays as it was.
    assert fleet.result(fleet.send("keyed", label, kwargs={"value": 1})) == 1
    assert fleet.events(label) == ["start"]


def test_other_arguments_while_the_first_run_are_an_error_at_once(fleet: Fleet) -> None:
    label, before = fleet.label(), fleet.claims("keyed", "mismatch")
    holder = fleet.send("keyed", label, 1, label)
    fleet.wait_for_event(label, "start")
    found = fleet.store.find(f"keyed/{label}")
    assert isinstance(error_of(fleet, fleet.send("keyed", label, 2, label)), ArgumentMismatch)
    assert fleet.claims("keyed", "mismatch") == before + 1
    still = fleet.store.find(f"keyed/{label}")
    assert found is not None and still is not None and still.record.state is State.RUNNING
    assert (still.record.owner, still.record.fence) == (found.record.owner, found.record.fence)
    fleet.open(label)
    assert fleet.result(holder) == 1
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]


def test_an_argument_without_a_stable_form_is_named(fleet: Fleet) -> None:
    label = fleet.label()
    odd = {"price": object(), "price['net'][1]": {"net": [Decimal(1), object()]}}
    for name, value in odd.items():
        error = error_of(fleet, fleet.send("pickled", label, value, serializer="pickle"))
        assert isinstance(error, UnencodableArgument)
        assert error.argument == name and name in str(error)
        assert "values of type object" in str(error)
    error = error_of(fleet, fleet.send("pickled", label, float("nan"), serializer="json"))
    assert isinstance(error, UnencodableArgument) and error.argument == "price"
    assert "NaN does not equal itself" in str(error)
    fleet.wait_for_idle()
    assert fleet.events(label) == []
    # 1.50 and 1.5 are one value, also after pickle.
    for price in ("1.50", "1.5"):
        task_id = fleet.send("pickled", label, Decimal(price), serializer="pickle")
        assert fleet.result(task_id) == f"{label} 1.50"
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]


@pytest.mark.parametrize("scope", ["user", "device"])
def test_a_scope_without_its_id_is_an_error_that_names_it(fleet: Fleet, scope: str) -> None:
    label, task, argument = fleet.label(), f"for_{scope}", f"{scope}_id"
    for missing in ({}, {argument: None}, {argument: ""}):
        error = error_of(fleet, fleet.send(task, label, kwargs=missing))
        assert isinstance(error, MissingScopeId)
        assert (error.scope, error.argument) == (scope, argument) and argument in str(error)
    assert fleet.events(label) == []
    for _ in range(2):
        assert fleet.result(fleet.send(task, label, kwargs={argument: "one"})) == label
        assert fleet.result(fleet.send(task, label, kwargs={argument: "two"})) == label
        header = {f"idempotency_{argument}": "three"}
        assert fleet.result(fleet.send(task, label, headers=header)) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"] * 3
    assert fleet.claims(task, "granted", scope) == fleet.claims(task, "duplicate", scope) == 3


# -- results ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "value"), [("none", None), ("zero", 0), ("false", False), ("empty", []), ("text", "")]
)
def test_a_falsy_result_is_replayed_as_it_was(fleet: Fleet, what: str, value: Any) -> None:
    label = fleet.label()
    results = [fleet.result(fleet.send("returns", label, what)) for _ in range(2)]
    fleet.wait_for_idle()
    assert [repr(result) for result in results] == [repr(value)] * 2
    assert fleet.events(label) == ["start"]
    # It is in the record: the result backend need not keep it.
    found = fleet.store.find(fleet.key("returns", label, what))
    assert found is not None and found.record.result is not None


def test_a_large_result_is_replayed_from_the_result_backend(fleet: Fleet) -> None:
    label, before = fleet.label(), completions(fleet, "too_large")
    for _ in range(3):
        assert fleet.result(fleet.send("returns", label, "large")) == "x" * LARGE
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    assert completions(fleet, "too_large") == before + 1
    found = fleet.store.find(fleet.key("returns", label, "large"))
    assert found is not None and found.record.result is None


@pytest.mark.parametrize("what", ["set", "object"])
def test_a_result_that_no_serialiser_takes_is_counted_and_not_done_again(
    fleet: Fleet, what: str
) -> None:
    label, before = fleet.label(), completions(fleet, "unencodable")
    # It is Celery that fails, when the work is done: its own result cannot be stored either.
    assert "is not JSON serializable" in str(error_of(fleet, fleet.send("returns", label, what)))
    # A duplicate finds the work done, and no result anywhere.
    assert fleet.outcome(fleet.send("returns", label, what)) == ("SUCCESS", None)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    assert fleet.state("returns", label, what) is State.DONE
    assert completions(fleet, "unencodable") == before + 1
    assert fleet.logged(f"it cannot be encoded: {what}: ") == 1


def test_a_result_that_only_the_result_backend_takes_is_replayed_from_there(
    new_fleet: Callable[..., Fleet],
) -> None:
    pickled: dict[str, Any] = {"accept_content": ["json", "pickle"], "result_serializer": "pickle"}
    fleet = new_fleet("redis", env=AS_ROOT, **pickled)
    fleet.publisher.conf.result_serializer = "pickle"
    label = fleet.label()
    for _ in range(2):
        assert fleet.result(fleet.send("returns", label, "set")) == {1}
    assert fleet.events(label) == ["start"]


# -- policies --------------------------------------------------------------------------------


def test_a_duplicate_may_be_skipped(fleet: Fleet) -> None:
    label = fleet.label()
    assert fleet.result(fleet.send("skips", label)) == label
    other = fleet.send("skips", label)
    fleet.wait(lambda: fleet.logged(f"sheet.skips[{other}] ignored") == 1, "it was skipped")
    fleet.wait_for_idle()
    assert fleet.publisher.backend.get_task_meta(other)["status"] == "PENDING"
    assert fleet.events(label) == ["start"]
    assert fleet.claims("skips", "duplicate") == 1


def test_a_duplicate_may_be_an_error(fleet: Fleet) -> None:
    label = fleet.label()
    assert fleet.result(fleet.send("raises", label)) == label
    error = error_of(fleet, fleet.send("raises", label))
    assert isinstance(error, DuplicateTask) and error.key == fleet.key("raises", label)
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    assert fleet.state("raises", label) is State.DONE


def test_another_message_of_a_running_key_may_be_an_error(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("raises_running", label, label)
    fleet.wait_for_event(label, "start")
    error = error_of(fleet, fleet.send("raises_running", label, label))
    assert isinstance(error, AlreadyRunning)
    assert error.key == fleet.key("raises_running", label, label)
    assert fleet.state("raises_running", label, label) is State.RUNNING
    fleet.open(label)
    assert fleet.result(holder) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]


def test_another_message_of_a_running_key_may_be_skipped(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("skips_running", label, label)
    fleet.wait_for_event(label, "start")
    other = fleet.send("skips_running", label, label)
    fleet.wait(lambda: fleet.logged(f"sheet.skips_running[{other}] ignored") == 1, "skipped")
    fleet.wait(lambda: fleet.messages(other) == 0, "it is gone for good")
    assert fleet.state("skips_running", label, label) is State.RUNNING
    fleet.open(label)
    assert fleet.result(holder) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start"]
    assert fleet.logged(f"sheet.skips_running[{other}]") == 2  # received, ignored


def test_the_holders_own_message_is_not_skipped_when_it_comes_again(fleet: Fleet) -> None:
    label = fleet.label()
    holder = fleet.send("skips_running", label, label)
    fleet.wait_for_event(label, "start")
    # The broker has given the message to somebody else: when the holder dies, nothing brings it
    # back but the copy that was turned away.
    fleet.wait(lambda: fleet.logged(f"sheet.skips_running[{holder}] ignored") >= 2, "came again")
    (active,) = fleet.publisher.control.inspect().active().values()
    (pid,) = [task["worker_pid"] for task in active if task["id"] == holder]
    os.kill(pid, signal.SIGKILL)
    fleet.open(label)
    assert fleet.result(holder) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "start"]
    assert fleet.claims("skips_running", "taken_over") == 1


def test_the_logs_of_all_that_show_only_what_was_refused(fleet: Fleet) -> None:
    names = ("ArgumentMismatch", "UnencodableArgument", "MissingScopeId", "DuplicateTask")
    refused = (*names, "AlreadyRunning", "EncodeError", "is not kept")
    deaths = ("WorkerLostError", "exited with 'signal 9 (SIGKILL)'", "takes over")
    assert fleet.complaints(*refused, *deaths, "Traceback (most recent call last)") == []
