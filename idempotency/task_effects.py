"""What a task does: its effects, its retries, and where it reads a clock or draws at random.

Functions of the same module that it calls are read too; what other modules do is not followed, and
is told only where its name says it.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from .task_effect_rules import MODES, READS, clock_of, effect_of
from .task_model import Effect, Found
from .task_names import Names

DEEPEST: Final = 5
_METHODS: Final = frozenset(
    name for kind in (str, bytes, dict, list, set, tuple, int, float, date, datetime)
    for name in dir(kind)
)  # fmt: skip
_LOG: Final = re.compile(r"(^|\.)_?(log|logger|logging|warnings)(\.|$)", re.IGNORECASE)
_LOOKUP: Final = re.compile(r"__(lte?|gte?|range|date|year|month|week|day|hour)$")
"""Arguments of Django's queries that compare."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Body:
    """What was seen. `cutoffs`: moments that select the work, as `now() - timedelta(days=30)`."""

    effects: list[Effect] = field(default_factory=list)
    days: list[Effect] = field(default_factory=list)
    moments: list[Effect] = field(default_factory=list)
    cutoffs: list[Effect] = field(default_factory=list)
    random: list[Effect] = field(default_factory=list)
    retries: list[Effect] = field(default_factory=list)
    unread: list[Effect] = field(default_factory=list)
    """Calls of code that was not read, and whose names say nothing of effects."""
    functions: list[Function] = field(default_factory=list)
    """The functions that were read: the task's own is the first."""


def body_of(found: Found, names: Names) -> Body:
    """What the task's own function does, and those of its module that it calls."""
    body = Body()
    if found.run is not None:
        _read(body, found.run, found, names, {id(found.run)}, 0)
    groups = (body.effects, body.days, body.moments, body.cutoffs, body.random, body.retries)
    for kept in (*groups, body.unread):
        once = {(one.kind, one.line, one.what): one for one in kept}
        kept[:] = sorted(once.values(), key=_line)
    return body


def _line(effect: Effect) -> int:
    return effect.line


def _read(
    body: Body, function: Function, found: Found, names: Names, seen: set[int], depth: int
) -> None:
    compared = set(_operands(function))
    body.functions.append(function)
    for call in _calls(function):
        _classify(body, call, found, names, compared)
        target = names.functions.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if target is not None and id(target) not in seen and depth < DEEPEST:
            seen.add(id(target))
            _read(body, target, found, names, seen, depth + 1)


def _calls(function: Function) -> Iterator[ast.Call]:
    """Calls in the body: defaults and decorators ran when the module was imported."""
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                yield node


def _classify(body: Body, call: ast.Call, found: Found, names: Names, compared: set[str]) -> None:
    full = _full(call.func, names)
    seen = Effect("", _text(call), call.lineno)
    if full in ("self.retry", f"{found.function}.retry"):
        body.retries.append(seen)
        return
    match clock_of(full):
        case "day":
            body.days.append(seen)
        case "moment":
            (body.cutoffs if ast.dump(call) in compared else body.moments).append(seen)
        case "random":
            body.random.append(seen)
        case _:
            kind = _kind(full, call, names)
            if kind:
                body.effects.append(Effect(kind, seen.what, call.lineno))
            elif _is_unread(full, call, names):
                body.unread.append(seen)


def _is_unread(full: str, call: ast.Call, names: Names) -> bool:
    """Whether the call may do anything: neither Python's own, nor of this module, nor a log."""
    head = full.partition(".")[0]
    if isinstance(call.func, ast.Name) and call.func.id not in names.imported:
        name = call.func.id
        return not (hasattr(builtins, name) or name in names.functions or name in names.classes)
    if isinstance(call.func, ast.Attribute) and head not in names.imported.values():
        own = call.func.attr in _METHODS or head == "self"
        return not own and not _LOG.search(full)
    return head not in sys.stdlib_module_names and head not in ("celery", "kombu")


def _kind(full: str, call: ast.Call, names: Names) -> str:
    if full.rsplit(".", 1)[-1] == "open":
        return "file" if _opens_to_write(call) else ""
    kind = effect_of(full)
    if kind == "database" and full.endswith("execute") and _only_reads(call):
        return ""
    # A function of this module is read itself: its name need not be believed.
    local = isinstance(call.func, ast.Name) and call.func.id in names.functions
    return "" if local and kind == "named" else kind


def _full(func: ast.expr, names: Names) -> str:
    """The dotted name, with a local variable replaced by what made it."""
    full = names.full(func)
    head, dot, rest = full.partition(".")
    made = names.anywhere.get(head, [])
    if dot and head not in names.imported and len(made) == 1 and isinstance(made[0], ast.Call):
        maker = names.full(made[0].func)
        if maker.partition(".")[0] != head:
            return f"{maker}.{rest}"
    return full


def _opens_to_write(call: ast.Call) -> bool:
    mode: ast.expr | None = call.args[1] if len(call.args) > 1 else None
    if mode is None and isinstance(call.func, ast.Attribute) and call.args:
        mode = call.args[0]
    mode = next((one.value for one in call.keywords if one.arg == "mode"), mode)
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
        return False
    return len(mode.value) <= 4 and bool(MODES & set(mode.value))


def _only_reads(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    if isinstance(first, ast.JoinedStr) and first.values:
        first = first.values[0]
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        return False
    return first.value.lstrip().lower().startswith(READS)


def _operands(function: Function) -> Iterator[str]:
    """Calls that something is computed from or compared with, also by way of a variable."""
    used: set[str] = set()
    for node in ast.walk(function):
        sides: list[ast.expr] = []
        if isinstance(node, ast.BinOp):
            sides = [node.left, node.right]
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.keyword) and _LOOKUP.search(node.arg or ""):
            sides = [node.value]
        yield from (ast.dump(side) for side in sides if isinstance(side, ast.Call))
        used |= {side.id for side in sides if isinstance(side, ast.Name)}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name() as target], value=ast.Call() as value):
                if target.id in used:
                    yield ast.dump(value)
            case _:
                pass


def _text(call: ast.Call) -> str:
    text = " ".join(ast.unparse(call.func).split())
    return f"{text}()" if len(text) <= 60 else f"...{text[-57:]}()"
