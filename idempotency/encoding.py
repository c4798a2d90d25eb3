"""The canonical encoding of arguments: equal values give equal bytes, in every process.

Each value is tagged with its type, so that 1, True, "1" and 1.0 differ, and framed with its length,
so that no two structures share an encoding. What has no stable form is refused, never `repr`-ed.
A list and a tuple are one type, an Enum is its value and a dataclass the dict of its fields, since
that is what is left of them after a message serialiser.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from .errors import UnencodableArgument


class _RefusedError(Exception):
    """A value that has no canonical form; `encode_arguments` finds out where it stands."""


def encode_arguments(arguments: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a call's bound arguments.

    Raises UnencodableArgument with the path of the first value that has no canonical form.
    """
    out: list[bytes] = []
    try:
        for name in sorted(arguments):
            out.append(b"%d=" % len(name) + name.encode())
            _encode(arguments[name], out.append)
    except (_RefusedError, RecursionError) as error:
        for name in sorted(arguments):
            _locate(arguments[name], name)
        raise UnencodableArgument("?", str(error)) from error
    return b"".join(out)


def _encode(value: Any, emit: Callable[[bytes], None]) -> None:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _by_base(value)
    encoder(value, emit)


def _by_base(value: Any) -> Callable[[Any, Callable[[bytes], None]], None]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass
    for kind, encoder in _BASES:
        if isinstance(value, kind):
            return encoder
    raise _RefusedError(f"values of type {type(value).__name__} have no canonical form")


def _framed(tag: bytes, text: str, emit: Callable[[bytes], None]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    emit(b"%s%d:" % (tag, len(data)))
    emit(data)


def _none(_: None, emit: Callable[[bytes], None]) -> None:
    emit(b"n")


def _bool(value: bool, emit: Callable[[bytes], None]) -> None:
    emit(b"t" if value else b"f")


def _int(value: int, emit: Callable[[bytes], None]) -> None:
    emit(b"i%x;" % value if -_BIG < value < _BIG else b"i" + hex(value).encode() + b";")


def _str(value: str, emit: Callable[[bytes], None]) -> None:
    data = value.encode("utf-8", "surrogatepass")
    emit(b"s%d:%s" % (len(data), data))


def _float(value: float, emit: Callable[[bytes], None]) -> None:
    if math.isnan(value):
        raise _RefusedError("NaN does not equal itself")
    emit(b"d%s;" % float.__repr__(value + 0.0).encode())  # + 0.0 makes -0.0 equal to 0.0


def _decimal(value: Decimal, emit: Callable[[bytes], None]) -> None:
    if value.is_nan():
        raise _RefusedError("NaN does not equal itself")
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return _framed(b"D", "-inf" if sign else "inf", emit)
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    if not kept:
        return _framed(b"D", "0", emit)
    shift = exponent + len(text) - len(kept)
    return _framed(b"D", f"{'-' * sign}{kept}e{shift}", emit)


def _bytes(value: bytes | bytearray | memoryview, emit: Callable[[bytes], None]) -> None:
    data = bytes(value)
    emit(b"b%d:" % len(data))
    emit(data)


def _datetime(value: datetime, emit: Callable[[bytes], None]) -> None:
    if value.utcoffset() is None:
        raise _RefusedError("a datetime without a time zone is ambiguous; make it aware")
    _framed(b"T", value.astimezone(UTC).isoformat(), emit)


def _date(value: date, emit: Callable[[bytes], None]) -> None:
    _framed(b"y", value.isoformat(), emit)


def _time(value: time, emit: Callable[[bytes], None]) -> None:
    _framed(b"h", value.isoformat(), emit)


def _timedelta(value: timedelta, emit: Callable[[bytes], None]) -> None:
    emit(b"p%d;" % (value // timedelta(microseconds=1)))


def _uuid(value: UUID, emit: Callable[[bytes], None]) -> None:
    emit(b"u" + value.bytes)


def _enum(value: Enum, emit: Callable[[bytes], None]) -> None:
    _encode(value.value, emit)


def _dataclass(value: Any, emit: Callable[[bytes], None]) -> None:
    _mapping({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, emit)


def _sequence(value: list[Any] | tuple[Any, ...], emit: Callable[[bytes], None]) -> None:
    emit(b"l%d:" % len(value))
    for item in value:
        _encode(item, emit)


def _mapping(value: Mapping[Any, Any], emit: Callable[[bytes], None]) -> None:
    emit(b"m%d:" % len(value))
    for key, item in sorted([(_alone(key), item) for key, item in value.items()], key=_first):
        emit(key)
        _encode(item, emit)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _set(value: AbstractSet[Any], emit: Callable[[bytes], None]) -> None:
    emit(b"S%d:" % len(value))
    for item in sorted(map(_alone, value)):
        emit(item)


def _alone(value: Any) -> bytes:
    out: list[bytes] = []
    _encode(value, out.append)
    return b"".join(out)


_BIG: Final = 1 << 60
_ENCODERS: Final[dict[type, Callable[[Any, Callable[[bytes], None]], None]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    str: _str,
    float: _float,
    Decimal: _decimal,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    UUID: _uuid,
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
    set: _set,
    frozenset: _set,
}
# Subclasses, the narrower first: a str Enum is an Enum, a datetime is a date.
_BASES: Final[tuple[tuple[type, Callable[[Any, Callable[[bytes], None]], None]], ...]] = (
    (Enum, _enum),
    (str, _str),
    (int, _int),
    (float, _float),
    (datetime, _datetime),
    (date, _date),
    (time, _time),
    (timedelta, _timedelta),
    (Decimal, _decimal),
    (UUID, _uuid),
    (bytes, _bytes),
    (Mapping, _mapping),
    (tuple, _sequence),
    (list, _sequence),
    (AbstractSet, _set),
)


def _locate(value: Any, path: str, depth: int = 0) -> None:
    """Raise UnencodableArgument with the path of the first refused value within `value`."""
    if depth > 100:
        raise UnencodableArgument(path, "it is nested too deeply, or contains itself")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, item in value.items():
            _locate(key, f"key of {path}", depth + 1)
            _locate(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _locate(item, f"{path}[{index}]", depth + 1)
    else:
        _locate_leaf(value, path)


def _locate_leaf(value: Any, path: str) -> None:
    try:
        _encode(value, lambda _: None)
    except _RefusedError as error:
        raise UnencodableArgument(path, str(error)) from None
