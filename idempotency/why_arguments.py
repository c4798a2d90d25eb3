"""Which argument differs: what can be known of a stored call when only its fingerprint is kept.

A record keeps one digest of all arguments, so they cannot be read back. But a call that is guessed
can be proved: its digest is the stored one or it is not. Invariant: no value of an argument is ever
part of an answer, only names, and in which way a value was another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from .errors import UnencodableArgument
from .keys import KeyRule

MOST_TRIES: Final = 50_000
"""Digests that are computed at most: about a second."""
MOST_CHANGED: Final = 3
"""So many arguments at once are guessed."""
MOST_MIXED: Final = 14
"""Of so many arguments every mixture of two calls is tried."""

Call = Mapping[str, Any]
Change = tuple[str, str, Any]
"""A name, how the stored value was another, and that value; ABSENT: there was none."""


class _Absent:
    """The stored call had no such argument."""


ABSENT: Final = _Absent()
UNLESS: Final = "unless a deploy has changed the task's parameters or options since"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`names`: the arguments that differ, with how (or ""). Proved, when `proved`; else they are
    those among which at least one differs. `same`: the call is the stored one."""

    same: bool = False
    proved: bool = False
    names: Mapping[str, str] | None = None

    def told(self) -> str:
        """What is known, as a sentence."""
        if self.same:
            return "the arguments are those of the record"
        listed = _listed(self.names or {})
        if self.proved:
            return f"proved by the fingerprint: of the arguments, exactly these differ: {listed}"
        if not self.names:
            return (
                "no argument of this task may differ under one key: the record was written by "
                "another version of the task, or with other options (its name, its arguments, "
                "idempotency_ignore_args)"
            )
        if len(self.names) == 1:
            return f"it can only be {listed}: all others are part of the key or ignored ({UNLESS})"
        return (
            f"at least one of these differs: {listed}. ({UNLESS}.) Which one cannot be read back "
            "from the record, which keeps one digest of all; give the other call as you believe "
            "it was (--than-args, --than-kwargs), and each mixture of the two is tried"
        )


def difference(
    rule: KeyRule, stored: str, now: Call, than: Call | None = None, limit: int = MOST_TRIES
) -> Difference:
    """What differs between the call `now` and the one whose fingerprint is `stored`.

    `than`: the stored call as somebody believes it was. Arguments are bound, see `Binder`.
    """
    if rule.fingerprint(now) == stored:
        return Difference(same=True)
    candidates = itertools.chain(_mixed(now, than or {}), _guessed(rule, now))
    for changes in itertools.islice(candidates, limit):
        if _fingerprint(rule, now, changes) == stored:
            return Difference(proved=True, names={name: how for name, how, _ in changes})
    return Difference(names=dict.fromkeys(suspects(rule, now), ""))


def differing(now: Call, than: Call) -> list[str]:
    """The names of the arguments in which two calls differ."""
    names = sorted({*now, *than})
    return [n for n in names if not _equal(now.get(n, ABSENT), than.get(n, ABSENT))]


def suspects(rule: KeyRule, now: Call) -> list[str]:
    """The arguments that may differ although the key is the same."""
    fixed = {*rule.ignored, *(rule.picked or ())}
    if rule.function is None and rule.picked is None:
        return []  # the key is the digest of all arguments
    if rule.scope in ("user", "device"):
        fixed.add(f"{rule.scope}_id")
    return [name for name in rule.binder.names if name in now and name not in fixed]


def _fingerprint(rule: KeyRule, now: Call, changes: Sequence[Change]) -> str:
    call = {**now, **{name: value for name, _, value in changes}}
    with suppress(UnencodableArgument):
        return rule.fingerprint({n: v for n, v in call.items() if v is not ABSENT})
    return ""


def _mixed(now: Call, than: Call) -> Iterator[Sequence[Change]]:
    """Each set of arguments taken from the other call, the largest first."""
    if not than:
        return
    names = differing(now, than)[:MOST_MIXED]
    changes = [(name, "", than.get(name, ABSENT)) for name in names]
    for size in range(len(changes), 0, -1):
        yield from itertools.combinations(changes, size)


def _guessed(rule: KeyRule, now: Call) -> Iterator[Sequence[Change]]:
    """What usually is the cause, of one argument, of two, and of three."""
    single = [one for name in suspects(rule, now) for one in _usual(rule, name, now)]
    for size in range(1, MOST_CHANGED + 1):
        for changes in itertools.combinations(single, size):
            if len({name for name, _, _ in changes}) == size:
                yield changes


def _usual(rule: KeyRule, name: str, now: Call) -> Iterator[Change]:
    value = now[name]
    yield name, "the call of the record did not have it", ABSENT
    default = rule.binder.signature.parameters[name].default
    if default is not rule.binder.signature.empty and not _equal(default, value):
        yield name, "the call of the record left it at its default", default
    if value is not None:
        yield name, "in the call of the record it was None", None
    for how, other in _forms(value):
        if not _equal(other, value):
            yield name, how, other


def _forms(value: Any) -> Iterator[tuple[str, Any]]:
    """The same value as another type or spelling."""
    if isinstance(value, str):
        yield "in the call of the record it was a number, here it is text", _number(value)
        yield "in the call of the record it had no space around it", value.strip()
        yield "in the call of the record it was in small letters", value.lower()
        yield "in the call of the record it was in capitals", value.upper()
        yield "in the call of the record it was empty", ""
    elif isinstance(value, bool):
        yield "in the call of the record it was the other truth value", not value
        yield "in the call of the record it was a number, here it is true or false", int(value)
    elif isinstance(value, int | float):
        yield "in the call of the record it was text, here it is a number", str(value)
        yield "in the call of the record it was a whole number", _whole(value)
        if isinstance(value, int):
            yield "in the call of the record it was a number with a fraction", _fraction(value)
            if value in (0, 1):
                yield "in the call of the record it was true or false", bool(value)
    elif isinstance(value, list | dict):
        yield "in the call of the record it was empty", type(value)()


def _number(text: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _whole(value: float) -> Any:
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _fraction(value: int) -> Any:
    try:
        return float(value)
    except OverflowError:
        return value


def _equal(one: Any, other: Any) -> bool:
    """As keys see it: True is not 1, and 1 is not 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[n], other[n]) for n in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_equal(a, b) for a, b in pairs)
    return bool(one == other)


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({how})" if how else name for name, how in names.items()) or "none"
