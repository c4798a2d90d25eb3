"""What whoever migrates a task should know of it, beyond its key."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .task_arguments import Signature
from .task_effect_rules import EFFECTS
from .task_effects import Body
from .task_model import Effect, Finding, Found
from .task_rules import RULES

RETRIES = ("autoretry_for", "max_retries", "retry_backoff", "retry_backoff_max", "retry_jitter",
           "retry_kwargs", "default_retry_delay", "dont_autoretry_for")  # fmt: skip
"""Options by which a task has a retry policy of its own."""


def body_findings(found: Found, body: Body, signature: Signature) -> Iterator[Finding]:
    """Of clocks, chance, retries and acknowledgement."""
    day = None if signature.has_period else _first(body.days, body.cutoffs)
    if day is not None:
        advice = "pass the day as an argument, so that it is part of the key"
        yield _finding("day-inside", f"{day.what} decides what is done: {advice}", day.line)
    if body.moments:
        one = body.moments[0]
        yield _finding("moment-inside", f"{one.what} differs when an attempt is repeated", one.line)
    if body.random:
        one = body.random[0]
        yield _finding("random-inside", f"{one.what} differs when an attempt is repeated", one.line)
    yield from _acknowledging(found)
    yield from _retrying(found, body)
    told = [one for one in body.effects if one.kind != "named"]
    if len(told) > 1:
        first, second = told[:2]
        message = (
            f"an attempt that fails after {first.what} (line {first.line}), which "
            f"{EFFECTS[first.kind]}, and before {second.what} (line {second.line}) does it again"
        )
        yield _finding("several-effects", message, first.line)


def _first(*groups: Sequence[Effect]) -> Effect | None:
    found = [one for group in groups for one in group]
    return min(found, key=lambda one: one.line) if found else None


def _finding(rule: str, message: str, line: int) -> Finding:
    return Finding(rule, RULES[rule].level, message, line)


def _acknowledging(found: Found) -> Iterator[Finding]:
    for option, rule in (("acks_late", "early-acks"), ("reject_on_worker_lost", "no-redelivery")):
        given = found.options.get(option)
        if isinstance(given, ast.Constant) and given.value is False:
            text = f"{option}=False is kept: the message of a killed worker is lost"
            yield _finding(rule, text, given.lineno)
    ignored = found.options.get("ignore_result")
    if isinstance(ignored, ast.Constant) and ignored.value is True:
        yield _finding("ignored-result", "ignore_result=True: nobody waits for it", ignored.lineno)


def own_retries(found: Found, body: Body) -> list[str]:
    """By what the task has a retry policy of its own: options, or `self.retry`."""
    given = [name for name in RETRIES if name in found.options]
    told = [f"{name} (line {found.options[name].lineno})" for name in given]
    return told + [f"{one.what} (line {one.line})" for one in body.retries[:1]]


def _retrying(found: Found, body: Body) -> Iterator[Finding]:
    told = own_retries(found, body)
    if told:
        named = [found.options[name].lineno for name in RETRIES if name in found.options]
        line = min(named, default=found.line) if named else body.retries[0].line
        yield _finding("own-retries", f"its retries are kept: {', '.join(told)}", line)
