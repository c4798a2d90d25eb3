"""@idempotent: a plain function runs once for each key; its results, errors and keys."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from idemwatch.idempotency import (
    AlreadyRunning,
    ArgumentMismatch,
    ConfigurationError,
    IdempotencyService,
    InvalidKey,
    MissingScopeId,
    Settings,
    UnencodableArgument,
    idempotent,
)
from idemwatch.idempotency.memory_store import MemoryStore
from support.stores import DEADLINE_SECONDS

ran: Counter[Any] = Counter()
"""How often each piece of work was done."""


@pytest.fixture(autouse=True)
def store(idempotency_memory: MemoryStore) -> MemoryStore:
    ran.clear()
    return idempotency_memory


@idempotent()
def invoice(order: int, copies: int = 1, *, note: str = "") -> dict[str, Any]:
    """Send an invoice."""
    ran[order] += 1
    return {"order": order, "copies": copies, "note": note}


def once(**options: Any) -> Callable[..., Any]:
    """Counted work under the options given."""

    @idempotent(**options)
    def work(x: Any, y: Any = 0, user_id: Any = None, device_id: Any = None) -> list[Any]:
        ran[x] += 1
        return [x, ran.total()]

    return work


# -- replay ----------------------------------------------------------------------------------------


def test_a_repeated_call_returns_the_stored_result() -> None:
    first = invoice(7)
    assert first == {"order": 7, "copies": 1, "note": ""}
    assert invoice(order=7) == invoice(7, 1) == invoice(7, copies=1, note="") == first
    assert ran == {7: 1}
    assert invoice(8)["order"] == 8 and ran == {7: 1, 8: 1}


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"b": 1, "a": [None]}])
def test_a_falsy_result_is_a_result(value: Any) -> None:
    @idempotent()
    def work() -> Any:
        ran["work"] += 1
        return value

    found = [work() for _ in range(3)]
    assert found == [value] * 3 and {type(one) for one in found} == {type(value)}
    assert ran == {"work": 1}


def test_a_result_comes_back_as_json_keeps_it() -> None:
    @idempotent()
    def work() -> Any:
        return (1, {2: 3})

    assert work() == (1, {2: 3})
    assert work() == [1, {"2": 3}]


def test_the_wrapper_looks_like_its_function() -> None:
    assert invoice.__name__ == "invoice" and invoice.__doc__ == "Send an invoice."
    assert list(inspect.signature(invoice).parameters) == ["order", "copies", "note"]


def test_functions_with_equal_arguments_have_keys_of_their_own(store: MemoryStore) -> None:
    @idempotent()
    def other(order: int) -> str:
        return f"other {order}"

    invoice(7)
    assert other(7) == "other 7"
    names = sorted(key.rpartition(":")[0] for key in store._records)
    here = other.__module__
    where = "test_functions_with_equal_arguments_have_keys_of_their_own.<locals>"
    assert names == sorted([f"{here}.invoice", f"{here}.{where}.other"])


def test_a_method_is_told_apart_by_what_its_object_is() -> None:
    @dataclass
    class Account:
        name: str
        paid: list[int] = field(default_factory=list, compare=False)

        @idempotent(key=lambda self, amount: f"pay/{self.name}/{amount}", ignore_args=("self",))
        def pay(self, amount: int) -> int:
            self.paid.append(amount)
            return amount

    ann, bob = Account("ann"), Account("bob")
    assert [ann.pay(5), Account("ann").pay(5), bob.pay(5)] == [5, 5, 5]
    assert (ann.paid, bob.paid) == ([5], [5])


def test_the_result_lives_for_its_ttl(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr(store, "_clock", lambda: now[0])
    work = once(ttl=timedelta(seconds=5))
    work("a")
    now[0] += 4_999_999
    assert work("a") == ["a", 1]
    now[0] += 1
    assert work("a") == ["a", 2]


# -- what does not finish --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_is_the_callers_and_gives_the_key_back(
    store: MemoryStore, error: BaseException
) -> None:
    @idempotent()
    def work() -> int:
        ran["work"] += 1
        if ran["work"] == 1:
            raise error
        return 7

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error and store._records == {}
    assert [work(), work()] == [7, 7] and ran == {"work": 2}


def test_a_call_while_another_has_the_key_is_refused() -> None:
    entered, leave = threading.Event(), threading.Event()

    @idempotent()
    def work() -> int:
        ran["work"] += 1
        entered.set()
        assert leave.wait(DEADLINE_SECONDS)
        return 7

    with ThreadPoolExecutor() as pool:
        first = pool.submit(work)
        assert entered.wait(DEADLINE_SECONDS)
        with pytest.raises(AlreadyRunning):
            work()
        leave.set()
        assert first.result(DEADLINE_SECONDS) == work() == 7
    assert ran == {"work": 1}


def test_a_function_that_calls_itself_on_the_same_key_is_refused() -> None:
    @idempotent(key_args=())
    def work(left: int) -> int:
        return 0 if left == 0 else 1 + work(left - 1)

    with pytest.raises((AlreadyRunning, ArgumentMismatch)):
        work(3)


async def later() -> int:
    """Work that a call only prepares."""
    return 7


def parts() -> Iterator[int]:
    """Work that a call only prepares."""
    yield 7


async def later_parts() -> AsyncIterator[int]:
    """Work that a call only prepares."""
    yield 7


@pytest.mark.parametrize("function", [later, parts, later_parts])
def test_a_function_whose_call_does_no_work_yet_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=function.__name__):
        idempotent()(function)


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_function_gets_the_calls_arguments(store: MemoryStore) -> None:
    work = once(key=lambda x, **rest: f"mine/{x}/{rest.get('y')}")
    assert work("a", y=1) == work("a", y=1)
    work("a", y=2)
    assert ran == {"a": 2}
    assert sorted(store._records) == ["mine/a/1", "mine/a/2"]


def test_picked_arguments_make_the_key_and_all_must_agree() -> None:
    work = once(key_args=("x",))
    work("a", y=1)
    with pytest.raises(ArgumentMismatch, match="other arguments"):
        work("a", y=2)
    assert ran == {"a": 1}
    lenient = once(key_args=("x",), ignore_args=("y",))
    assert lenient("b", y=1) == lenient("b", y=2)
    assert ran == {"a": 1, "b": 1}


def test_an_ignored_argument_may_differ() -> None:
    work = once(ignore_args=("y",))
    assert work("a", y=1) == work("a", y=object()) and ran == {"a": 1}


@pytest.mark.parametrize("scope", ["user", "device"])
def test_each_id_of_a_scope_has_work_of_its_own(scope: str, store: MemoryStore) -> None:
    name = f"{scope}_id"
    work = once(scope=scope, key=lambda x, **_: f"mine/{x}")
    for who in ("ann", "bob", "ann"):
        work("a", **{name: who})
    assert ran == {"a": 2}
    assert sorted(store._records) == [f"mine/a:{name[:-3]}={who}" for who in ("ann", "bob")]
    with pytest.raises(MissingScopeId, match=name):
        work("a")
    assert ran == {"a": 2}


@pytest.mark.parametrize("scope", ["user", "device"])
def test_the_record_names_the_scope_and_its_id(scope: str, store: MemoryStore) -> None:
    once(scope=scope)("a", **{f"{scope}_id": "ann"})
    (record,) = store._records.values()
    assert (record.scope, getattr(record, f"{scope}_id")) == (scope, "ann")


def test_nothing_runs_where_no_key_can_be_made() -> None:
    with pytest.raises(UnencodableArgument, match="'x'"):
        once()(object())
    with pytest.raises(InvalidKey, match="returned NoneType"):
        once(key=lambda **_: None)(x=1)
    with pytest.raises(TypeError):
        once()(1, 2, 3, 4, 5)
    assert ran == {}


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("idempotency_key_args", {"key_args": ("nope",)}),
        ("idempotency_ignore_args", {"ignore_args": ("nope",)}),
        ("idempotency_key", {"key": lambda x: x, "key_args": ("x",)}),
        ("idempotency_scope", {"scope": "nonsense"}),
        ("idempotency_scope", {"scope": "task"}),  # no task, no id
        ("idempotency_ttl", {"ttl": "soon"}),
    ],
)
def test_a_wrong_option_is_refused_where_the_function_is_defined(
    option: str, given: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="work") as caught:
        once(**given)
    assert caught.value.name == option


# -- the service -----------------------------------------------------------------------------------


def test_a_service_of_the_users_own_is_used(store: MemoryStore) -> None:
    service = IdempotencyService(Settings(store="memory", ttl=timedelta(hours=2)))
    once(service=service)("a")
    (record,) = store._records.values()
    assert record.due_us - record.created_us > 7_199_000_000
    assert record.due_us - record.created_us < 7_260_000_000


def test_without_a_service_the_environment_is_read_at_the_call(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = once()
    monkeypatch.setenv("IDEMWATCH_TTL", "100")
    work("a")
    (record,) = store._records.values()
    assert 99_000_000 < record.due_us - record.created_us < 160_000_000
