"""Which key a task gets: one of the ready builders where its arguments fit one, else all arguments.

A builder is used only where each call is sure to give it what it takes: a key that is refused would
fail every call. No argument is left out of a key but those of tracing.
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from typing import Final

from .task_arguments import Parameter, Signature
from .task_model import Found

Names = tuple[str, ...]
DAY: Final = ("day", "execution_date", "date", "run_date", "run_day", "on_date", "for_date")
SURE_DAYS: Final = frozenset(("day", "run_day"))
"""Names that are a day without an annotation too; a `date` may well be a datetime."""
ID: Final = frozenset(("int", "str"))


@dataclass(frozen=True, slots=True)
class Builder:
    """A key builder, the argument names that it takes, by place, and words of its tasks."""

    name: str
    words: Names
    takes: tuple[Names, ...]
    optional: int = 0
    """How many of the last arguments a task may lack."""


BUILDERS: Final = (
    Builder("autoclose_key", ("close", "autoclose", "closing"), (("job_id",), DAY)),
    Builder(
        "ticket_escalation_key", ("escalate", "escalation"),
        (("ticket_id",), ("level", "next_level", "escalation_level"), DAY),
    ),
    Builder("ppm_job_key", ("ppm", "maintenance"), (("schedule_id",), DAY)),
    Builder(
        "report_generation_key", ("report", "reports"),
        (("report_name", "name", "report"), ("params", "parameters", "filters"), ("user_id",),
         ("format", "fmt", "output_format")), optional=1,
    ),
    Builder(
        "email_notification_key", ("mail", "email", "notification", "reminder", "notify"),
        (("recipient_email", "recipient", "email", "to_email", "email_address"),
         ("template_name", "template", "template_id"), ("context", "ctx", "template_context")),
        optional=1,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key as an operator reads it; `code` is the lambda that makes it, or nothing."""

    shown: str
    builder: str = ""
    code: str = ""
    ignored: Names = ()
    daily: bool = False
    reasons: Names = ()


def key_for(found: Found, signature: Signature, words: frozenset[str], *, decorator: bool) -> Key:
    """The key that is recommended. `decorator`: for `@idempotent`, whose lambda gets no task."""
    for builder in BUILDERS:
        if words.isdisjoint(builder.words):
            continue
        taken = _taken(builder, signature)
        if taken is None:
            continue
        problem = _unsure(taken) or _elsewhere(found, signature)
        if not problem:
            return _built(found, builder, taken, signature, decorator=decorator)
        plain = _plain(found, signature)
        hint = f"{builder.name} would fit, but {problem}"
        return Key(plain.shown, ignored=plain.ignored, daily=plain.daily,
                   reasons=(*plain.reasons, hint))  # fmt: skip
    return _plain(found, signature)


def _taken(builder: Builder, signature: Signature) -> list[Parameter] | None:
    """The task's arguments in the order of the builder's, or None if one is missing."""
    taken: list[Parameter] = []
    for place, names in enumerate(builder.takes):
        one = next(filter(None, (signature.get(name) for name in names)), None)
        if one is None:
            return taken if place >= len(builder.takes) - builder.optional else None
        taken.append(one)
    return taken


def _unsure(taken: list[Parameter]) -> str:
    """Why one of the arguments may be something that the builder refuses."""
    for one in taken:
        if one.name in ("context", "ctx", "template_context"):
            continue
        if one.may_be_none:
            return f"argument {one.name} may be None"
        if one.name not in DAY:
            continue
        sure = one.types <= {"date", "str"} if one.types else one.name in SURE_DAYS
        if not sure:
            return f"argument {one.name} is not sure to be a date: annotate it as one"
    return ""


def _elsewhere(found: Found, signature: Signature) -> str:
    if signature.variable:
        return "the task takes *args or **kwargs"
    if found.wrapped:
        return "another decorator may change the arguments"
    return ""


def _built(
    found: Found,
    builder: Builder,
    taken: list[Parameter],
    signature: Signature,
    *,
    decorator: bool,
) -> Key:
    names = [one.name for one in taken]
    call = f"{builder.name}({', '.join(names)})"
    code = f"lambda {_parameters(found, decorator=decorator)}: {call}"
    daily = any(name in DAY for name in names)
    return Key(call, builder.name, code, signature.traces, daily,
               reasons=(f"its arguments are those of {builder.name}",))  # fmt: skip


def _parameters(found: Found, *, decorator: bool) -> str:
    """The arguments as the task has them, without annotations; the task in the place of self."""
    assert found.run is not None  # noqa: S101  a task without a function has no arguments
    arguments = copy.deepcopy(found.run.args)
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        one.annotation = None
    if found.bound and arguments.args:
        del arguments.args[0]
    taken = {one.arg for one in (*arguments.args, *arguments.kwonlyargs)}
    if not decorator or found.bound:
        first = "task" if "task" not in taken else "_task"
        (arguments.posonlyargs or arguments.args).insert(0, ast.arg(first))
    return re.sub(r"'([^'\"\\]*)'", r'"\1"', ast.unparse(arguments))


def _plain(found: Found, signature: Signature) -> Key:
    ignored = signature.traces if not found.wrapped else ()
    names = [name for name in signature.names if name not in ignored]
    daily = any(name in DAY for name in names)
    if not names and not signature.variable:
        return Key("the task's name alone", ignored=ignored)
    shown = "all arguments" + (f" ({', '.join(names)})" if names else "")
    reasons = (f"{', '.join(ignored)}: only traces a call",) if ignored else ()
    return Key(shown, ignored=ignored, daily=daily, reasons=reasons)
