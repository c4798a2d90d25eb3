"""`@idempotent`: once per key, for plain functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar, cast

from .keys import Binder, KeyRule
from .service import IdempotencyService

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
    back as JSON keeps it. Raises AlreadyRunning while another call has the key.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        rule = KeyRule(
            task_name=f"{function.__module__}.{function.__qualname__}",
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
            with used.once(call.key, ttl, fingerprint=call.fingerprint) as work:
                if not work.duplicate:
                    work.result = function(*args, **kwargs)
            return cast(R, work.result)

        return once

    return decorate
