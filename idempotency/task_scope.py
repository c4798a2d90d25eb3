"""For whom a key holds: whether two messages with the same arguments are one piece of work.

They are only where the arguments say all that decides what is done. Wherever something else may
decide, the scope is the one message: a key that swallows work is the worst that can happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .task_arguments import Parameter, Signature, asked_for
from .task_category import (
    COUNTING,
    COUNTING_ANYWHERE,
    MAINTENANCE,
    PERIODIC,
    REFRESHING,
    REFRESHING_ANYWHERE,
)
from .task_effects import Body
from .task_keys import Key
from .task_model import Found
from .task_names import Names
from .task_state import of_message, of_rows

REPEATED: Final = REFRESHING | MAINTENANCE


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a beat sends the task, or a task that sends it; empty where none does."""

    beat: str
    fan: str


def scope_of(
    found: Found, names: Names, body: Body, signature: Signature, key: Key, sent: Sent,
    words: list[str],
) -> tuple[str, str]:  # fmt: skip
    """The scope, and why."""
    other = next(_other_work(found, names, body, signature, key, sent, words), "")
    if other:
        return "task", f"scope task: {other}"
    for scope in ("user", "device"):
        one = signature.get(f"{scope}_id")
        if one is not None and _is_sure(found, one):
            return scope, f"scope {scope}: each call names its {scope}_id"
    return "global", "scope global: the same arguments are the same work, whoever sends them"


def _is_sure(found: Found, one: Parameter) -> bool:
    """Whether each call names the id: a call without it would fail."""
    return one.required and not one.may_be_none and not asked_for(found, one.name)


def _other_work(
    found: Found, names: Names, body: Body, signature: Signature, key: Key, sent: Sent,
    words: list[str],
) -> Iterator[str]:  # fmt: skip
    """Why the same arguments may be other work later."""
    if not signature.names and not signature.variable:
        yield (
            "it has no arguments, so a key of them would turn away every later run; pass the day "
            "to make it global"
        )
    if sent.beat:
        yield f"a beat sends it with the same arguments each time ({sent.beat})"
    if not (key.daily or signature.has_period):
        yield from _periodic(sent, words)
    if not key.builder and not signature.has_period:
        yield from _of_time(body, words)
        yield from of_rows(names, body)
    if not any(one.required for one in signature.parameters):
        yield (
            "all its arguments may be left out, as a beat does, and then each run has the same "
            "key; make one that tells the work a required one"
        )
    yield from of_message(found, names, body)
    counting = [one for one in words[:1] if one in COUNTING]
    for word in counting + [one for one in words if one in COUNTING_ANYWHERE]:
        yield f"its name says {word}, and to do that twice with the same arguments may be meant"


def _periodic(sent: Sent, words: list[str]) -> Iterator[str]:
    """Work of each period, whose arguments do not tell which."""
    if word := next((one for one in words if one in PERIODIC), ""):
        yield (
            f"its name says {word}, and the same arguments are the next period's work too; pass "
            "the day to make it global"
        )
    if sent.fan:
        yield (
            f"a task that a beat sends ({sent.fan}) sends it with the same arguments each time; "
            "pass the day to make it global"
        )


def _of_time(body: Body, words: list[str]) -> Iterator[str]:
    """What the time or a verb says, where no argument names a period."""
    clock = [*body.days, *body.cutoffs]
    if clock:
        where = f"{clock[0].what}, line {clock[0].line}"
        yield (
            f"it asks for the time itself ({where}), so the same arguments are other work later; "
            "pass the day to make it global"
        )
    verb = next((one for one in words if one in REFRESHING_ANYWHERE), "")
    verb = next((one for one in words[:1] + words[-1:] if one in REPEATED), verb)
    if verb:
        yield (
            f"to {verb} again with the same arguments may be meant; say "
            "idempotency_scope='global' if it is not"
        )
