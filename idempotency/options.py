"""The idempotency options of a task, checked at start: wrong or contradictory ones are refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from .engine import MAX_HOLD_SECONDS
from .errors import ConfigurationError
from .keys import Binder, KeyRule
from .redelivery import LONGEST_DELAY_SECONDS, longest_delay_seconds
from .settings import (
    AUTHORITIES,
    MAX_LEASE,
    MAX_TTL,
    ON_DUPLICATE,
    ON_RUNNING,
    PREFIX,
    SCOPES,
    WHEN_UNAVAILABLE,
    Settings,
    duration,
    one_of,
    seconds,
)

OPTIONS: Final = frozenset(
    (
        *("key", "key_args", "ignore_args", "scope", "ttl", "lease", "max_hold", "max_crashes"),
        *("authority", "on_duplicate", "on_running", "when_unavailable", "enabled"),
        "at_publish",
    )
)
SHORT: Final = ("on_duplicate", "on_running", "when_unavailable")
"""Options that may also be written without the prefix."""
KEEP_LAST: Final = "keep_last"
"""Of `on_running`: for a task that says so, never for all of them."""
_CHOICES: Final = {
    "scope": SCOPES,
    "authority": AUTHORITIES,
    "on_duplicate": ON_DUPLICATE,
    "on_running": (*ON_RUNNING, KEEP_LAST),
    "when_unavailable": WHEN_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What one task asks for; where it is silent, the settings say."""

    rule: KeyRule
    ttl: timedelta
    lease: timedelta
    max_hold: timedelta | None
    max_crashes: int
    authority: str
    on_duplicate: str
    on_running: str
    when_unavailable: str
    enabled: bool
    at_publish: bool
    store: str
    """The store that decides for this task, by its name in `Stores`."""
    hold_seconds: float = MAX_HOLD_SECONDS
    """How long a claim is renewed where neither task nor message has a limit."""
    longest_delay_seconds: float = LONGEST_DELAY_SECONDS
    """How long a message that is turned away may wait."""


def given_options(task_name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The task's own options by their short names, checked. Raises ConfigurationError."""
    given: dict[str, Any] = {}
    for attribute, value in attributes.items():
        name = attribute.removeprefix(PREFIX)
        if name == attribute and name not in SHORT:
            continue
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            raise ConfigurationError(attribute, f"task {task_name}: no such option{hint}")
        if name in given and given[name] != value:
            raise ConfigurationError(
                attribute, f"task {task_name} gives it twice, as {given[name]!r} and {value!r}"
            )
        given[name] = value
    given = {name: value for name, value in given.items() if value is not None}
    _check(task_name, given)
    return given


def _check(task_name: str, given: dict[str, Any]) -> None:
    try:
        for name, choices in _CHOICES.items():
            if name in given:
                one_of(name, given[name], choices)
        for name in ("ttl", "lease", "max_hold"):
            if name in given:
                given[name] = seconds(name, given[name])
                longest = MAX_LEASE if name == "lease" else MAX_TTL
                duration(name, given[name], timedelta(seconds=1), longest)
        for name in ("key_args", "ignore_args"):
            if name in given:
                given[name] = _names(name, given[name])
    except ConfigurationError as error:
        raise ConfigurationError(error.name, f"task {task_name}: {error.problem}") from None
    _check_values(task_name, given)


def _check_values(task_name: str, given: dict[str, Any]) -> None:
    crashes = given.get("max_crashes", 1)
    key = given.get("key")
    wrong = {
        "enabled": not isinstance(given.get("enabled", True), bool) and "must be True or False",
        "at_publish": not isinstance(given.get("at_publish", False), bool)
        and "must be True or False",
        "max_crashes": type(crashes) is not int and "must be a whole number",
        "key": key is not None
        and (
            (not callable(key) and "must be callable as (task, *args, **kwargs)")
            or ("key_args" in given and f"{PREFIX}key_args is set too; keep one of them")
        ),
    }
    if type(crashes) is int and not 1 <= crashes <= 1000:
        wrong["max_crashes"] = "must be from 1 to 1000"
    both = sorted({*given.get("key_args", ())} & {*given.get("ignore_args", ())}, key=str)
    if both:
        wrong["ignore_args"] = f"{both[0]!r} stands in {PREFIX}key_args too; keep it in one of them"
    for name, problem in wrong.items():
        if problem:
            raise ConfigurationError(PREFIX + name, f"task {task_name}: {problem}")


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
        raise ConfigurationError(PREFIX + name, f"{value!r} is no tuple of parameter names")
    return tuple(value)


def resolve(
    task_name: str, run: Callable[..., Any], given: dict[str, Any], settings: Settings
) -> TaskOptions:
    """The task's options, filled up from the settings. Raises ConfigurationError."""
    rule = KeyRule(
        task_name=task_name,
        binder=Binder(run),
        scope=given.get("scope", settings.scope),
        function=given.get("key"),
        picked=given.get("key_args"),
        ignored=frozenset(given.get("ignore_args", ())),
    )
    authority = given.get("authority", settings.authority)
    on_running = given.get("on_running", settings.on_running)
    options = TaskOptions(
        rule=rule,
        ttl=given.get("ttl", settings.ttl),
        lease=given.get("lease", settings.lease),
        max_hold=given.get("max_hold"),
        max_crashes=given.get("max_crashes", settings.max_crashes),
        authority=authority,
        on_duplicate=given.get("on_duplicate", settings.on_duplicate),
        on_running=on_running,
        when_unavailable=given.get("when_unavailable", settings.when_unavailable),
        enabled=given.get("enabled", settings.enabled),
        at_publish=given.get("at_publish", False),
        store=f"{authority}/{KEEP_LAST}" if on_running == KEEP_LAST else authority,
    )
    _check_together(task_name, options)
    return options


def _check_together(task_name: str, options: TaskOptions) -> None:
    """Refuse what says two things at once."""
    newest, alone = options.on_running == KEEP_LAST, options.rule.scope == "task"
    wrong = {
        "at_publish": options.at_publish
        and (
            (alone and "spares no message of scope 'task', which is each one alone")
            or (newest and f"spares the messages that on_running={KEEP_LAST!r} is for; keep one")
        ),
        "on_running": newest
        and alone
        and f"{KEEP_LAST!r} keeps none of scope 'task', which is each message alone",
    }
    for name, problem in wrong.items():
        if problem:
            raise ConfigurationError(PREFIX + name, f"task {task_name}: {problem}")


def with_limits(options: TaskOptions, conf: Any) -> TaskOptions:
    """The options with the limits that Celery's `conf` sets: read once, since each costs as much
    as a key."""
    return replace(
        options,
        hold_seconds=float(conf.task_time_limit or MAX_HOLD_SECONDS),
        longest_delay_seconds=longest_delay_seconds(conf),
    )
