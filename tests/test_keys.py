"""Keys: equal calls have one key, different calls different ones, in every process (case 13)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.idempotency.encoding import encode_arguments
from idemwatch.idempotency.errors import (
    ConfigurationError,
    InvalidKey,
    MissingScopeId,
    UnencodableArgument,
)
from idemwatch.idempotency.keys import READABLE_LENGTH, Binder, KeyRule, readable
from kombu.serialization import dumps, loads

NO_IDS: dict[str, object] = {}


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 2


@dataclass
class Point:
    x: int
    y: Any


def run(a: Any, b: Any = 2, *, c: Any = None) -> None:
    """A function to call."""


def rule_of(**options: Any) -> KeyRule:
    return KeyRule(task_name="app.task", binder=Binder(run), **options)


def key_of(*args: Any, **kwargs: Any) -> str:
    return rule_of().call_key(None, args, kwargs, task_id="id", ids=NO_IDS).key


def key_by(rule: KeyRule) -> str:
    return rule.call_key(None, (1,), {}, task_id="id", ids=NO_IDS).key


def encoded(value: Any) -> bytes:
    return encode_arguments({"value": value})


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.uuids()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# -- equal calls -----------------------------------------------------------------------------------


@given(values, values)
def test_however_a_call_is_written_it_has_one_key(a: Any, b: Any) -> None:
    assert key_of(a, b) == key_of(a, b=b) == key_of(a=a, b=b) == key_of(b=b, a=a, c=None)


def test_a_default_is_the_same_as_its_value() -> None:
    assert key_of(1) == key_of(1, 2) == key_of(1, b=2, c=None)
    assert key_of(1) != key_of(1, 3)


@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_the_order_of_a_dict_does_not_matter(value: dict[str, Any]) -> None:
    assert encoded(value) == encoded(dict(reversed(value.items())))


@given(st.sets(st.integers() | st.text()))
def test_the_order_of_a_set_does_not_matter(value: set[Any]) -> None:
    assert encoded(value) == encoded(frozenset(sorted(value, key=repr, reverse=True)))


def test_two_zones_name_one_moment() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert encoded(moment) == encoded(moment.astimezone(there))


def test_both_sides_of_the_end_of_summer_time_are_two_moments() -> None:
    from zoneinfo import ZoneInfo

    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=0)
    assert encoded(first) != encoded(first.replace(fold=1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Level.HIGH, 2),
        (Point(1, "a"), {"x": 1, "y": "a"}),
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal("100"), Decimal("1E+2")),
        (Decimal("-0"), Decimal("0")),
        (0.0, -0.0),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
    ],
)
def test_what_a_serialiser_makes_equal_is_equal(one: Any, other: Any) -> None:
    assert encoded(one) == encoded(other)


# -- different calls -------------------------------------------------------------------------------


@given(values, values)
def test_different_values_differ(one: Any, other: Any) -> None:
    def tagged(value: Any) -> Any:
        if isinstance(value, list):
            return ("list", [tagged(item) for item in value])
        if isinstance(value, dict):
            return ("dict", {k: tagged(v) for k, v in value.items()})
        return (type(value).__name__, value)

    assert (encoded(one) == encoded(other)) == (tagged(one) == tagged(other))


def test_types_and_shapes_are_told_apart() -> None:
    alike = [
        *(1, True, "1", 1.0, Decimal(1), b"1", [1], {1}, {"1": 1}, {1: 1}, [[1]], None, "None"),
        *("", b"", [], {}, set(), False, 0, "0", ["", ""], ["a", "b"], ["ab"], ["a,b"]),
        *(date(2026, 1, 1), "2026-01-01", datetime(2026, 1, 1, tzinfo=UTC), timedelta(1)),
        *(UUID(int=1), str(UUID(int=1)), 10**30, float(10**30), -1, "-1"),
    ]
    assert len({encoded(value) for value in alike}) == len(alike)


def test_names_and_values_do_not_run_into_each_other() -> None:
    calls: list[dict[str, Any]] = [
        {"a": "b"},
        {"ab": ""},
        {"a": "", "b": ""},
        {"a": None},
        {"a": ["b"]},
        {},
    ]
    assert len({encode_arguments(call) for call in calls}) == len(calls)


def test_tasks_and_arguments_have_keys_of_their_own() -> None:
    rule = KeyRule(task_name="app.other", binder=Binder(run))
    other = rule.call_key(None, (1,), {}, task_id="", ids=NO_IDS)
    assert other.key != key_of(1) and len(other.fingerprint) == 32
    assert key_of("x" * 1_000_000) != key_of("x" * 999_999 + "y")
    assert len(key_of("x" * 1_000_000)) < READABLE_LENGTH


# -- before and after the message ------------------------------------------------------------------


def sent(value: Any, serializer: str) -> Any:
    content_type, encoding, data = dumps(value, serializer)
    return loads(data, content_type, encoding, accept={content_type})


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@settings(max_examples=40)
@given(value=plain)
def test_a_plain_argument_has_one_key_before_and_after_the_message(
    serializer: str, value: Any
) -> None:
    assert encoded(sent(value, serializer)) == encoded(value)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=2))),
        date(2026, 3, 1),
        UUID(int=5),
        (1, (2, 3)),
        b"bytes",
    ],
    ids=repr,
)
def test_a_json_message_keeps_the_key(value: Any) -> None:
    assert encoded(sent({"v": value}, "json")) == encoded({"v": value})


@settings(max_examples=50)
@given(value=values)
def test_a_message_that_travels_twice_has_the_same_key(value: Any) -> None:
    once = sent([value], "pickle")
    assert encoded(sent(once, "pickle")) == encoded(once)


PRINT_KEY = """
from datetime import *; from decimal import Decimal; from uuid import UUID
from idemwatch.idempotency.keys import *
def run(a, b=2, **more): ...
value = {"b": {"x", "y", 1, (2, "q")}, "a": [1, 1.5, Decimal("2"), None, True], "d": UUID(int=3)}
more = dict(z=frozenset("hello"), y="\\u00e9")
rule = KeyRule(task_name="app.task", binder=Binder(run))
print(rule.call_key(None, (value,), more, task_id="", ids={}).key)
"""


def test_every_process_computes_the_same_key() -> None:
    keys = set()
    for seed in ("0", "1", "4711"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PRINT_KEY], env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        keys.add(done.stdout.strip())
    assert len(keys) == 1 and keys.pop().startswith("app.task:")


def test_the_encoding_of_this_version_does_not_change() -> None:
    assert key_of(1, "x", c=[None, True]) == PINNED


PINNED = "app.task:fb7a3486164b78aca33859416bca7604"


# -- refused ---------------------------------------------------------------------------------------


class Opaque:
    """Has no canonical form."""


def cyclic() -> list[Any]:
    items: list[Any] = []
    items.append({"again": items})
    return items


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        (float("nan"), "a", "NaN"),
        (Decimal("nan"), "a", "NaN"),
        (datetime(2026, 1, 1), "a", "make it aware"),  # noqa: DTZ001
        (Opaque(), "a", "Opaque"),
        (Opaque, "a", "type"),
        (print, "a", "canonical"),
        ([1, {"when": [datetime(2026, 1, 1)]}], "a[1]['when'][0]", "make it aware"),  # noqa: DTZ001
        ({"x": (1, float("nan"))}, "a['x'][1]", "NaN"),
        (Point(1, Opaque()), "a['y']", "Opaque"),
        ({float("nan"): 1}, "key of a", "NaN"),
        ({Opaque()}, "a", "Opaque"),
        (range(3), "a", "range"),
    ],
    ids=str,
)
def test_what_has_no_stable_form_is_refused_by_name(value: Any, where: str, why: str) -> None:
    with pytest.raises(UnencodableArgument, match=why) as caught:
        key_of(value)
    assert caught.value.argument == where
    assert "idempotency_ignore_args" in str(caught.value)


@pytest.mark.parametrize("make", [cyclic, lambda: eval("[" * 150 + "]" * 150)])
def test_a_structure_too_deep_or_within_itself_is_refused_or_encoded(
    make: Callable[[], Any],
) -> None:
    if make is cyclic:
        with pytest.raises(UnencodableArgument, match="contains itself"):
            key_of(make())
    else:
        assert key_of(make()) == key_of(make())


def test_a_refusal_does_not_show_the_value() -> None:
    with pytest.raises(UnencodableArgument) as caught:
        key_of([Point(1, Opaque()), "hunter2"])
    assert "hunter2" not in str(caught.value)


def test_a_call_that_does_not_fit_is_a_type_error() -> None:
    calls: list[tuple[tuple[int, ...], dict[str, int]]] = [
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"a": 1}),
        ((1,), {"nope": 1}),
    ]
    for args, kwargs in calls:
        with pytest.raises(TypeError):
            key_of(*args, **kwargs)


# -- rules -----------------------------------------------------------------------------------------


def test_picked_arguments_make_the_key_and_all_make_the_fingerprint() -> None:
    rule = KeyRule(task_name="t", binder=Binder(run), picked=("a",), ignored=frozenset("c"))

    def call(*args: Any, **kwargs: Any) -> tuple[str, str]:
        found = rule.call_key(None, args, kwargs, task_id="", ids=NO_IDS)
        return found.key, found.fingerprint

    assert call(1, 2) == call(1, 2, c="trace")
    assert call(1, 2)[0] == call(1, 3)[0] and call(1, 2)[1] != call(1, 3)[1]
    assert call(1)[0] != call(2)[0]


@pytest.mark.parametrize("options", [{"picked": ("nope",)}, {"ignored": frozenset({"nope"})}])
def test_a_parameter_that_is_not_there_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"no parameter 'nope' \(it has: a, b, c\)"):
        KeyRule(task_name="t", binder=Binder(run), **options)


def test_two_ways_to_make_a_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="keep one"):
        KeyRule(task_name="t", binder=Binder(run), function=lambda *_: "k", picked=("a",))


@pytest.mark.parametrize("built", [None, "", 7, b"k"])
def test_a_key_that_is_no_text_is_refused(built: Any) -> None:
    with pytest.raises(InvalidKey, match="not a text"):
        key_by(rule_of(function=lambda *_, **__: built))


@pytest.mark.parametrize("scope", ["user", "device"])
def test_a_scope_without_its_id_is_an_error(scope: str) -> None:
    with pytest.raises(MissingScopeId, match=f"{scope}_id"):
        key_by(rule_of(scope=scope))


def test_scopes_part_keys_by_their_id() -> None:
    def of_user(user_id: Any, x: int = 1) -> None:
        """A function with a user."""

    rule = KeyRule(task_name="t", binder=Binder(of_user), scope="user")
    mail = rule.call_key(None, ("Ann@example.com",), {}, task_id="", ids=NO_IDS)
    assert "@" not in mail.key and "example" not in mail.key
    seven = rule.call_key(None, (7,), {}, task_id="", ids=NO_IDS)
    assert seven.key.endswith(":user=7") and seven.user_id == "7"
    by_header = KeyRule(task_name="t", binder=Binder(run), scope="device")
    found = by_header.call_key(None, (1,), {}, task_id="", ids={"device_id": "d9"})
    assert found.device_id == "d9" and found.key.endswith(":device=d9")
    assert key_by(rule_of(scope="task")).endswith(":task=id")


@given(st.text(min_size=1, max_size=400))
def test_a_key_is_short_and_printable_and_one_for_each_text(text: str) -> None:
    key = readable(text)
    assert len(key) <= READABLE_LENGTH and key.isprintable() and " " not in key
    assert readable(key) == key
    assert readable(text + "x") != key


def test_a_readable_key_is_kept_up_to_200_characters() -> None:
    assert readable("k" * 200) == "k" * 200
    assert len(readable("k" * 201)) < 200 and readable("k" * 201) != readable("k" * 202)
