"""Results as bytes, case 15: what can be kept, what is refused, and that no byte runs code."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.errors import UnreadableRecord
from idemwatch.idempotency.results import SAFE, ResultNotEncodable, decode_result, encode_result
from idemwatch.idempotency.settings import Settings
from support.services import counted

SERIALISERS = ("json", "msgpack", "yaml")
each_serialiser = pytest.mark.parametrize("serialiser", SERIALISERS)
DAY = timedelta(days=1)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def replayed(value: Any, serialiser: str = "json") -> Any:
    """What a duplicate gets."""
    data, content_type = encode_result(value, serialiser)
    assert content_type in SAFE
    return decode_result(data, content_type, "key")


@each_serialiser
@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, 1.5, "é\0\n", {"b": 1, "a": [None]}])
def test_a_plain_result_comes_back_with_its_type(serialiser: str, value: Any) -> None:
    found = replayed(value, serialiser)
    assert found == value and type(found) is type(value)


@given(plain)
def test_any_plain_result_comes_back(value: Any) -> None:
    assert replayed(value) == value


def test_the_keys_of_a_result_keep_their_order() -> None:
    data, _ = encode_result({"b": 1, "a": 2, "c": 3})
    assert data == b'{"b": 1, "a": 2, "c": 3}'


def test_what_celery_keeps_in_json_is_kept() -> None:
    value = {
        "at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "day": date(2026, 3, 1),
        "price": Decimal("1.10"),
        "id": UUID(int=7),
    }
    found = replayed(value)
    assert (found["at"], found["id"]) == (value["at"], value["id"])
    assert Decimal(found["price"]) == value["price"]


@pytest.mark.parametrize("serialiser", ["pickle", "no such serialiser", ""])
def test_a_serialiser_that_could_run_code_is_replaced_by_json(serialiser: str) -> None:
    assert encode_result([1, "a"], serialiser) == (b'[1, "a"]', "application/json")


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


MAKERS = (object, cyclic, lambda: {1: {object()}})
REFUSED = [(s, make) for s in SERIALISERS for make in MAKERS]
REFUSED.remove(("yaml", cyclic))  # it has references


@pytest.mark.parametrize(("serialiser", "make"), REFUSED)
def test_a_result_that_cannot_be_kept_is_refused_by_its_type(serialiser: str, make: Any) -> None:
    value = make()
    with pytest.raises(ResultNotEncodable, match=f"^{type(value).__name__}: "):
        encode_result(value, serialiser)


def test_a_refusal_does_not_show_the_value() -> None:
    with pytest.raises(ResultNotEncodable) as caught:
        encode_result({"password": "hunter2", "of": object()})
    assert "hunter2" not in str(caught.value)


class Fired:
    """What unpickles itself into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-python-serialize", "application/data", "text/plain", "", "nonsense"],
)
def test_a_result_of_another_type_is_never_opened(content_type: str, tmp_path: Path) -> None:
    data = pickle.dumps(Fired(tmp_path / "fired"))
    with pytest.raises(UnreadableRecord, match="the key"):
        decode_result(data, content_type, "the key")
    assert not (tmp_path / "fired").exists()


BROKEN = {
    "application/json": (b"", b"{", b"\xff", b"nul", b"[1,]", b"[" * 100_000),
    "application/x-msgpack": (b"", b"\xc1", b"\x92\x01", b"\xa5ab"),
    "application/x-yaml": (b"[", b"\xff", b"!!python/object/apply:os.getcwd []", b"a: b: c"),
}


@pytest.mark.parametrize(("content_type", "data"), [(t, d) for t in BROKEN for d in BROKEN[t]])
def test_a_damaged_result_is_refused(content_type: str, data: bytes) -> None:
    with pytest.raises(UnreadableRecord, match="cannot be read") as caught:
        decode_result(data, content_type, "the key")
    assert "the key" in str(caught.value)


# -- how the engine keeps them ---------------------------------------------------------------------


def encoded(value: Any, limit: int = 1000, task: str = "tests.results") -> bytes | None:
    engine = Engine(Settings(store="memory", max_result_bytes=limit))
    found = engine.encode(value, "json", DAY, task)
    assert found.ttl_us == 86_400_000_000
    assert bool(found.content_type) == (found.data is not None)
    return found.data


def test_a_result_at_the_limit_is_kept_and_above_it_is_counted() -> None:
    labels = {"task": "tests.results", "result": "too_large"}
    before = counted("completions_total", **labels)
    assert encoded("x" * 8, limit=10) == b'"xxxxxxxx"'
    assert counted("completions_total", **labels) == before
    assert encoded("x" * 9, limit=10) is None
    assert encoded("é" * 8, limit=10) is None  # bytes are counted, not characters
    assert counted("completions_total", **labels) == before + 2


def test_a_result_that_cannot_be_kept_is_counted_and_told_without_its_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = {"task": "tests.results", "result": "unencodable"}
    before = counted("completions_total", **labels)
    assert encoded({"password": "hunter2", "of": object()}) is None
    assert counted("completions_total", **labels) == before + 1
    assert "tests.results" in caplog.text and "hunter2" not in caplog.text
