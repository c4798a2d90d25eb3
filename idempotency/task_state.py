"""What decides the work of a task beside its arguments: its message, rows in a certain state, time.

Each is a reason why the same arguments may be other work later. It is better to see one that is
none: then redeliveries are turned away all the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from .task_classes import SENDING
from .task_effects import Body, Function
from .task_model import Found
from .task_names import Names

HARMLESS: Final = frozenset(
    ("retries", "called_directly", "is_eager", "timelimit", "expires", "eta", "update")
)
"""What a task may ask of its request without doing other work for it."""
LOGGING: Final = ("logger", "log", "logging", "print", "_logger", "LOG", "LOGGER")
_COUNTS: Final = re.compile(
    r"^[hz]?(incr|decr)(by|byfloat)?$|^[lr]push$|^(increment|decrement)\w*$"
)
_TAKES: Final = re.compile(r"^b?[lrs]pop\w*$|^zpop(min|max)$|^(get_nowait|receive_messages?)$")
_CONTEXT: Final = re.compile(
    r"^flask\.(g|request|session)\.|(^|\.)(get_)?current_(user|tenant|request|schema|account|org)$"
    r"|(^|\.)connection\.(tenant|schema_name)$"
)
_READS: Final = re.compile(
    r"^(requests|httpx)\.(get|head)$|urlopen$|\.objects(\.\w+)*$|(^|\.)cache\.(get|get_many)$"
    r"|\.(execute|query|scalars|fetchall|fetchone|hgetall|read_text|read_bytes)$|^open$"
)
_STATE_SQL: Final = re.compile(
    r"\bselect\b.+\bwhere\b.*(\bis\s+null\b|=\s*'|=\s*(true|false)\b|\bnot\s+\w+)",
    re.IGNORECASE | re.DOTALL,
)


def of_message(found: Found, names: Names, body: Body) -> Iterator[str]:
    """What the message carries beside its arguments, and what is meant each time it comes."""
    nodes = _all_nodes(body)
    yield from _sent_again(found, names, nodes)
    yield from _asks_request(found, names, nodes)
    yield from _context(names, nodes)
    yield from _counts(nodes)


def of_rows(names: Names, body: Body) -> Iterator[str]:
    """What lies ready when the task runs. Where an argument names the day, the day's is meant."""
    nodes = _all_nodes(body)
    yield from _selects(nodes)
    if not body.effects:
        yield from _only_reads(names, body, nodes)


def _all_nodes(body: Body) -> list[ast.AST]:
    return [node for one in body.functions for node in _nodes(one)]


def _nodes(function: Function) -> Iterator[ast.AST]:
    """The body's: decorators and defaults are not run by a call."""
    for statement in function.body:
        yield from ast.walk(statement)


def _sent_again(found: Found, names: Names, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """A task that sends itself, as one that polls: the next round has the same arguments."""
    itself = {found.function, "self"} if found.bound else {found.function}
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                if name in itself and attr in SENDING:
                    yield f"it sends itself again ({name}.{attr}, line {node.lineno})"
            case ast.Call(args=[ast.Constant(value=str() as sent), *_]):
                called = names.full(node.func).rsplit(".", 1)[-1]
                own = found.function in (sent.rsplit(".", 1)[-1], sent) or sent == found.name
                if own and called in ("send_task", "signature"):
                    yield f"it sends itself again ({called}, line {node.lineno})"
            case _:
                pass


def _asks_request(found: Found, names: Names, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """What a task reads of its message beside the arguments."""
    logged = {id(one) for node in nodes if _logs(node) for one in ast.walk(node)}
    asked = ["celery.current_task.request", f"{found.function}.request"]
    asked += ["self.request"] * found.bound
    used = {id(node.value): node for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if not isinstance(node, ast.Attribute) or names.full(node) not in asked:
            continue
        outer = used.get(id(node))
        if id(node) in logged or (outer is not None and outer.attr in HARMLESS):
            continue
        what = f"request.{outer.attr}" if outer is not None else "its request"
        yield f"it uses {what} (line {node.lineno}), which is not among its arguments"


def _logs(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    func = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    return isinstance(func, ast.Name) and func.id in LOGGING


def _context(names: Names, nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Name):
            full = names.full(node)
            if _CONTEXT.search(full):
                yield f"it uses {full} (line {node.lineno}), which is not among its arguments"


def _counts(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Attributes that are added to, `F()` expressions, and what counts in Redis."""
    for node in nodes:
        match node:
            case ast.AugAssign(target=ast.Attribute() as target):
                yield _counting(f"{ast.unparse(target)} is changed by a value", node.lineno)
            case ast.Assign(targets=[ast.Attribute() as target], value=ast.BinOp() as value):
                if ast.unparse(target) == ast.unparse(value.left):
                    yield _counting(ast.unparse(value), node.lineno)
            case ast.BinOp(left=ast.Call(func=ast.Name(id="F") | ast.Attribute(attr="F"))):
                yield _counting(ast.unparse(node), node.lineno)
            case ast.Call(func=ast.Attribute(attr=attr)) if _COUNTS.match(attr):
                yield _counting(f"{attr}()", node.lineno)
            case _:
                pass


def _counting(what: str, line: int) -> str:
    return f"it counts ({what}, line {line}), and to count twice may be meant"


def _selects(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Work that is chosen by its state: there is other work in that state later."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="filter" | "exclude" | "filter_by")):
                if state := _state(node):
                    yield f"it takes what has {state} at the time (line {node.lineno})"
            case ast.Call(func=ast.Attribute(attr=attr)) if _TAKES.match(attr):
                yield f"it takes what waits ({attr}(), line {node.lineno})"
            case ast.Constant(value=str() as text) if _STATE_SQL.search(text):
                yield f"it takes rows in a certain state (line {node.lineno})"
            case _:
                pass


def _state(call: ast.Call) -> str:
    """A condition that is written out, where no row is named by its id."""
    if any(one.arg in ("pk", "id") for one in call.keywords):
        return ""
    told = (f"{one.arg}={ast.unparse(one.value)}" for one in call.keywords
            if one.arg and isinstance(one.value, ast.Constant | ast.List | ast.Tuple))  # fmt: skip
    return next(told, "")


def _only_reads(names: Names, body: Body, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """A task whose answer is all that it makes: a stored one would be an old one."""
    if not any(isinstance(node, ast.Return) and node.value is not None for node in nodes):
        return
    if body.random:
        yield f"it answers something else each time ({body.random[0].what})"
    for node in nodes:
        if isinstance(node, ast.Call) and _READS.search(names.full(node.func)):
            what = ast.unparse(node.func)
            yield f"its answer is what it reads ({what}, line {node.lineno}), and may change"
