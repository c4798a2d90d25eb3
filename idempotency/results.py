"""Results as bytes: encoded by the task's own serialiser, never by one that could run code.

The bytes are kept as they are: a result that was re-encoded with its keys in another order would
count twice in a chord.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.exceptions import KombuError
from kombu.serialization import dumps, loads
from kombu.utils.json import JSONEncoder

from .errors import UnreadableRecord

SAFE: Final = frozenset(("application/json", "application/x-msgpack", "application/x-yaml"))
_TEXT: Final = frozenset(("application/json", "application/x-yaml"))
_SERIALISERS: Final = frozenset(("json", "msgpack", "yaml"))
_encode_json: Final = JSONEncoder().encode


class ResultNotEncodable(ValueError):
    """A result that its serialiser refuses."""


def encode_result(value: Any, serializer: str = "json") -> tuple[bytes, str]:
    """The result's bytes and content type. Raises ResultNotEncodable.

    A serialiser that could run code when it reads, such as pickle, is replaced by JSON.
    """
    safe = serializer if serializer in _SERIALISERS else "json"
    if value is None and safe == "json":
        return b"null", "application/json"
    try:
        if safe == "json":  # what `dumps` does in the end, at half the cost
            return _encode_json(value).encode(), "application/json"
        content_type, _, payload = dumps(value, safe)
    except (KombuError, TypeError, ValueError, RecursionError) as error:
        raise ResultNotEncodable(f"{type(value).__name__}: {type(error).__name__}") from error
    return payload.encode() if isinstance(payload, str) else payload, content_type


def decode_result(data: bytes, content_type: str, key: str) -> Any:
    """The inverse. Raises UnreadableRecord for anything that is not safe and well-formed."""
    if content_type not in SAFE:
        raise UnreadableRecord("store", f"the result of {key} is of type {content_type!r}")
    if not data:  # which kombu would return as it is
        raise UnreadableRecord("store", f"the result of {key} cannot be read: it is empty")
    encoding = "utf-8" if content_type in _TEXT else "binary"
    try:
        return loads(data, content_type, encoding, accept=SAFE)
    except (KombuError, ValueError, TypeError, KeyError) as error:
        raise UnreadableRecord("store", f"the result of {key} cannot be read") from error
