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

from .task_arguments import Parameter, Signature, asked_for
from .task_model import Found

Names = tuple[str, ...]
DAY: Final = ("day", "execution_date", "date", "run_date", "run_day", "on_date", "for_date")
UNSURE_DAYS: Final = frozenset(DAY) - {"day", "run_day"}
"""Names that need an annotation to be believed: a `date` may well be a datetime."""
UNSURE: Final = frozenset(("recipient", "filters", "report", "next_level"))
"""A recipient may be a list or a user, and filters a list."""
LEVELS: Final = ("level", "next_level", "escalation_level")
PARAMS: Final = ("params", "parameters", "filters")
RECIPIENTS: Final = ("recipient_email", "recipient", "email", "to_email", "email_address")
CONTEXTS: Final = ("context", "ctx", "template_context")
ID: Final = frozenset(("int", "str"))
DICTS: Final = frozenset(("dict", "Dict", "Mapping", "MutableMapping"))
MAPPING: Final = DICTS | {"str", "int", "float", "bool", "Any"}
"""`dict[str, Any]`: names in brackets are types of its items."""


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
        (("ticket_id",), LEVELS, DAY),
    ),
    Builder("ppm_job_key", ("ppm", "maintenance"), (("schedule_id",), DAY)),
    Builder(
        "report_generation_key", ("report", "reports"),
        (("report_name", "name", "report"), PARAMS, ("user_id",),
         ("format", "fmt", "output_format")), optional=1,
    ),
    Builder(
        "email_notification_key", ("mail", "email", "notification", "reminder", "notify"),
        (RECIPIENTS,
         ("template_name", "template", "template_id"), CONTEXTS),
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
        problem = _more(taken, signature) or _unsure(found, taken) or _elsewhere(found, signature)
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


def _more(taken: list[Parameter], signature: Signature) -> str:
    """Arguments that the builder has no place for: two that differ there would be one work."""
    known = {*(one.name for one in taken), *signature.traces}
    more = [name for name in signature.names if name not in known]
    return f"it leaves out {', '.join(more)}" if more else ""


def _unsure(found: Found, taken: list[Parameter]) -> str:
    """Why one of the arguments may be something that the builder refuses."""
    for one in taken:
        context = one.name in CONTEXTS
        if not context and (one.may_be_none or asked_for(found, one.name)):
            return f"argument {one.name} may be None"
        wanted, words = _wanted(one.name)
        unsure = one.name in (UNSURE_DAYS if one.name in DAY else UNSURE)
        fits = one.types - ({"None", "Optional"} if context else set()) <= wanted
        fits = fits and (wanted is not MAPPING or not one.types.isdisjoint(DICTS))
        if (one.types and not fits) or (not one.types and unsure):
            return f"argument {one.name} is not sure to be {words}: annotate it as one"
    return ""


def _wanted(name: str) -> tuple[frozenset[str], str]:
    """The types that a builder takes for an argument, and how they are called."""
    if name in DAY:
        return frozenset(("date", "str")), "a date"
    if name in (*CONTEXTS, *PARAMS):
        return MAPPING, "a dict"
    if name in LEVELS:
        return frozenset(("int",)), "a number"
    if name in RECIPIENTS:
        return frozenset(("str",)), "an address"
    return ID, "an id or a name"


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
    positional = arguments.posonlyargs or arguments.args
    if found.bound and positional:
        del positional[0]
    taken = {one.arg for one in (*arguments.args, *arguments.kwonlyargs)}
    if not decorator or found.bound:
        first = "task" if "task" not in taken else "_task"
        positional.insert(0, ast.arg(first))
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
