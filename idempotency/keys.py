"""Idempotency keys: which calls are the same piece of work.

A key depends on the call's meaning alone: `f(1)`, `f(x=1)` and `f(x=1, y=<default>)` are one key,
in every process, before and after the message serialiser. It carries no personal data.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from .encoding import encode_arguments
from .errors import ConfigurationError, InvalidKey, MissingScopeId

VERSION: Final = b"1"
READABLE_LENGTH: Final = 200
DIGEST_BYTES: Final = 16
SCHEDULE_HEADER: Final = "idempotency_schedule"
DUE_HEADER: Final = "idempotency_due_at"
FIRING_HEADERS: Final = (SCHEDULE_HEADER, DUE_HEADER)
"""What a scheduled message carries: its schedule, and the time that it is due."""

_EMAIL: Final = re.compile(r"[^\s:@/]+@[^\s:@/]+\.[^\W\d_]{2,}")

KeyFunction = Callable[..., str]


def digest(*parts: bytes) -> str:
    """BLAKE2b-128 of length-framed parts, as 32 hex digits (RFC 7693)."""
    framed = b"".join([b"%d:%s" % (len(part), part) for part in parts])
    return blake2b(framed, digest_size=DIGEST_BYTES).hexdigest()


def readable(key: str) -> str:
    """`key` itself when it is short and printable, else its head and its digest.

    An e-mail address in it is hashed: keys are shown in logs and lists.
    """
    if "@" in key:
        key = _EMAIL.sub(lambda found: digest(VERSION, _utf8(found[0])), key)
    if len(key) <= READABLE_LENGTH and key.isprintable() and " " not in key:
        return key
    head = "".join(c if c.isprintable() and c != " " else "_" for c in key[:64])
    return f"{head}:{digest(VERSION, _utf8(key))}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def hashed_if_personal(text: str) -> str:
    """`text`, or its digest when it may be an e-mail address: keys are shown in logs and lists."""
    return digest(VERSION, _utf8(text.casefold())) if "@" in text else text


def firing_of(schedule: str, due_at: str) -> str:
    """What tells one firing of a schedule from the next; "" unless both are given."""
    return f"{schedule}@{due_at}" if schedule and due_at else ""


class Binder:
    """Binds a call's arguments to a function's parameters, defaults applied, without `self`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        self.names = tuple(self.signature.parameters)
        self._names = self.signature.parameters.keys()
        kinds = {p.kind for p in self.signature.parameters.values()}
        self._plain = kinds <= {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }
        self._positional = tuple(
            name
            for name, p in self.signature.parameters.items()
            if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self._defaults = {
            name: p.default
            for name, p in self.signature.parameters.items()
            if p.default is not inspect.Parameter.empty
        }

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name. Raises TypeError as the call itself would."""
        if self._plain and len(args) <= len(self._positional):
            given = dict(zip(self._positional, args, strict=False))
            bound = {**self._defaults, **given, **kwargs}
            known = bound.keys() == self._names and given.keys().isdisjoint(kwargs)
            if known:
                return bound
        return self._bind_slowly(args, kwargs)

    def _bind_slowly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


@dataclass(frozen=True, slots=True)
class CallKey:
    """The key of one call, the fingerprint of its arguments, and the scope's id."""

    key: str
    fingerprint: str
    user_id: str | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """How the calls of one task get their keys.

    `function` is called with the task and the call's arguments; `picked` names the arguments that
    matter; `ignored` are seen neither by the key nor by the fingerprint.
    """

    task_name: str
    binder: Binder
    scope: str = "global"
    function: KeyFunction | None = None
    picked: tuple[str, ...] | None = None
    ignored: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.function is not None and self.picked is not None:
            raise ConfigurationError(
                "idempotency_key", f"task {self.task_name} sets idempotency_key_args too; keep one"
            )
        self._check_names("idempotency_key_args", self.picked or ())
        self._check_names("idempotency_ignore_args", self.ignored)

    def _check_names(self, option: str, names: Sequence[str] | frozenset[str]) -> None:
        for name in names:
            if name not in self.binder.names:
                known = ", ".join(self.binder.names) or "none"
                raise ConfigurationError(
                    option, f"task {self.task_name} has no parameter {name!r} (it has: {known})"
                )

    def call_key(
        self,
        task: object,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        task_id: str,
        ids: Mapping[str, object],
        firing: str = "",
    ) -> CallKey:
        """Key and fingerprint of a call; `ids` may carry `user_id` and `device_id`.

        `firing`: of a scheduled message (see `firing_of`); the default key covers it.

        Raises UnencodableArgument, MissingScopeId, or TypeError for a call that does not fit.
        """
        bound = self.binder.bind(args, kwargs)
        fingerprint = self.fingerprint(bound)
        scope_id = self._scope_id(bound, ids, task_id)
        user = scope_id if self.scope == "user" else None
        device = scope_id if self.scope == "device" else None
        text = self._text(task, args, kwargs, bound, fingerprint, scope_id, firing)
        return CallKey(text, fingerprint, user, device)

    def fingerprint(self, bound: Mapping[str, Any]) -> str:
        """The digest of all arguments but the ignored. Raises UnencodableArgument."""
        seen = {n: v for n, v in bound.items() if n not in self.ignored} if self.ignored else bound
        return digest(VERSION, self.task_name.encode(), encode_arguments(seen))

    def _text(
        self,
        task: object,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        bound: Mapping[str, Any],
        fingerprint: str,
        scope_id: str,
        firing: str,
    ) -> str:
        suffix = f":{self.scope}={hashed_if_personal(scope_id)}" if self.scope != "global" else ""
        if self.function is not None:
            built = self.function(task, *args, **kwargs)
            if not isinstance(built, str) or not built:
                raise InvalidKey(
                    f"idempotency_key of task {self.task_name} returned {type(built).__name__}, "
                    "not a text of one character or more"
                )
            return readable(built + suffix)
        if self.picked is not None:
            chosen = encode_arguments({name: bound[name] for name in self.picked})
            fingerprint = digest(VERSION, self.task_name.encode(), chosen)
        elif firing:
            suffix += f":firing={firing}"
        return readable(f"{self.task_name}:{fingerprint}{suffix}")

    def _scope_id(self, bound: Mapping[str, Any], ids: Mapping[str, object], task_id: str) -> str:
        if self.scope == "global":
            return ""
        if self.scope == "task":
            return task_id
        argument = f"{self.scope}_id"
        found = bound.get(argument)
        if found is None or found == "":
            found = ids.get(argument)
        if found is None or found == "":
            raise MissingScopeId(self.scope, argument)
        text = str(found)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidKey(f"the {argument} of task {self.task_name} is no text: {text!r}")
        return text
