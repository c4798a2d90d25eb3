"""`@idempotent`: once per key, for plain functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeVar, cast

from .errors import ConfigurationError
from .keys import Binder, KeyRule
from .service import IdempotencyService
from .settings import MAX_TTL, duration, one_of, seconds

SCOPES: Final = ("global", "user", "device")
_PREPARING: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
P = ParamSpec("P")
R = TypeVar("R")


def idempotent(
    *,
    key: Callable[..., str] | None = None,
    key_args: tuple[str, ...] | None = None,
    ignore_args: tuple[str, ...] = (),
    scope: str = "global",
    ttl: timedelta | float | None = None,
    service: IdempotencyService | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run the function once for each key; a repeated call returns the stored result.

    `key` is called with the call's arguments; `scope` is global, user or device. The result comes
    back as JSON keeps it. Raises AlreadyRunning while another call has the key. ConfigurationError
    is raised at once for a wrong option, and for a function whose call does no work yet (async, or
    a generator).
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"
        _check(name, function, scope, ttl)
        rule = KeyRule(
            task_name=name,
            binder=Binder(function),
            scope=scope,
            function=None if key is None else lambda _task, *a, **k: key(*a, **k),
            picked=key_args,
            ignored=frozenset(ignore_args),
        )

        @functools.wraps(function)
        def once(*args: P.args, **kwargs: P.kwargs) -> R:
            call = rule.call_key(None, args, kwargs, task_id="", ids={})
            used = service or IdempotencyService()
            with used.once_for(call, scope, ttl) as work:
                if not work.duplicate:
                    work.result = function(*args, **kwargs)
            return cast(R, work.result)

        return once

    return decorate


def _check(
    name: str, function: Callable[..., Any], scope: str, ttl: timedelta | float | None
) -> None:
    if any(prepares(function) for prepares in _PREPARING):
        raise ConfigurationError(
            "idempotent", f"{name} is async or a generator: decorate the function that awaits it"
        )
    try:
        one_of("scope", scope, SCOPES)
        if ttl is not None:
            duration("ttl", seconds("ttl", ttl), timedelta(seconds=1), MAX_TTL)
    except ConfigurationError as error:
        raise ConfigurationError(error.name, f"{name}: {error.problem}") from None
