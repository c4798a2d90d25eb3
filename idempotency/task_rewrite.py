"""Changes the source of tasks, so that they are idempotent: arguments, bases, imports.

Only those places are touched: the rest of the text is the same, byte for byte. What was made is
parsed and compared with what was there before it is believed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace

import libcst as cst

from .errors import IdempotencyError
from .task_advice import POLICY_OPTIONS
from .task_call import with_arguments
from .task_check import check_rewritten
from .task_classes import CELERY_TASKS, Tree, learn
from .task_files import Source, Trouble
from .task_imports import PACKAGE, Imports, first_line, place_of
from .task_model import STRATEGY_DECORATOR, Chosen, Found, Kind
from .task_scan import Module, parsed, tasks_of
from .task_text import Edit, Text, applied


class CannotRewrite(IdempotencyError):
    """A file whose tasks cannot be changed safely. Nothing of it was written."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path}: cannot be changed safely ({self.problem}): migrate it by hand"


def rewritten(module: Module, chosen: Sequence[Chosen]) -> str:
    """The text of the module with these tasks migrated. Raises CannotRewrite."""
    source, text = module.source, Text(module.source.text)
    imports = Imports(module.tree, min(_first_line(module.tree, one.found) for one in chosen))
    edits: list[Edit] = []
    try:
        for one in chosen:
            edits += _edits(module, text, one, imports)
        edits += _import_edits(module, text, imports)
        after = applied(text.text, edits)
        check_rewritten(module, after, [one.found for one in chosen], imports)
        _check_protected(module, after, chosen)
    except (cst.ParserSyntaxError, ValueError, SyntaxError, RecursionError) as error:
        raise CannotRewrite(source.path, _sentence(error)) from error
    return after


def _check_protected(module: Module, after: str, chosen: Sequence[Chosen]) -> None:
    """Raise ValueError if one of the tasks would be found unprotected again."""
    made = parsed(replace(module.source, text=after))
    if isinstance(made, Trouble):
        raise ValueError(made.problem)
    tree = Tree()
    learn(tree, module.source.path, made.tree, made.names)
    wanted = {(one.found.function, one.found.kind) for one in chosen}
    for found in tasks_of(made, tree)[0]:
        if (found.function, found.kind) in wanted and not found.protected_by:
            raise ValueError(f"{found.function} would not be protected")


def _sentence(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _first_line(tree: ast.Module, found: Found) -> int:
    """The line of the module's statement that the task stands in."""
    ends = (node for node in tree.body if (node.end_lineno or node.lineno) >= found.line)
    return first_line(next(ends, found.node))


def _edits(module: Module, text: Text, one: Chosen, imports: Imports) -> Iterator[Edit]:
    if one.found.kind is Kind.CLASS:
        yield from _class_edits(module, text, one, imports)
    elif one.advice.strategy == STRATEGY_DECORATOR:
        yield _inner_decorator(text, one, imports)
    else:
        yield _task_arguments(text, one, imports)


def _task_arguments(text: Text, one: Chosen, imports: Imports) -> Edit:
    found = one.found
    assert found.decorator is not None  # noqa: S101  a task that is a function has one
    start, end = text.span(found.decorator)
    base = imports.name(PACKAGE, "IdempotentTask")
    given = "base" in found.options
    added = [] if given else [f"base={base}"]
    added += _options(one, imports)
    changed = with_arguments(
        text.text[start:end], added, replaced_base=base if given else "",
        newline=text.newline, indent=text.indent(found.decorator.lineno), unit=text.unit,
    )  # fmt: skip
    return Edit(start, end, changed)


def _options(one: Chosen, imports: Imports) -> Iterator[str]:
    """What is said of the task, but for what it says itself."""
    advice, given = one.advice, one.found.options
    if advice.policy:
        daily = f", idempotency_ttl={_ttl(one, imports)}" if advice.daily else ""
        yield f'**{imports.name(PACKAGE, "task_retry_policy")}("{advice.category}"{daily})'
    for name, value in _attributes(one, imports):
        if name not in given and not (advice.policy and name in POLICY_OPTIONS):
            yield f"{name}={value}"


def _attributes(one: Chosen, imports: Imports) -> Iterator[tuple[str, str]]:
    advice = one.advice
    if not advice.policy and "idempotency_ttl" not in one.found.options:
        yield "idempotency_ttl", _ttl(one, imports)
    yield "idempotency_authority", f'"{advice.authority}"'
    if advice.scope != "global":
        yield "idempotency_scope", f'"{advice.scope}"'
    if "idempotency_key_args" in one.found.options:
        return
    if advice.key_code:
        yield "idempotency_key", _key(one, imports)
    if advice.ignored:
        yield "idempotency_ignore_args", _names(advice.ignored)


def _ttl(one: Chosen, imports: Imports) -> str:
    return f"{imports.name('datetime', 'timedelta')}(hours={one.advice.ttl_seconds // 3600})"


def _key(one: Chosen, imports: Imports) -> str:
    """The lambda, with the builder as this file calls it."""
    local = imports.name(PACKAGE, one.advice.builder)
    return one.advice.key_code.replace(f": {one.advice.builder}(", f": {local}(")


def _names(names: Sequence[str]) -> str:
    return "(" + "".join(f'"{name}", ' for name in names).rstrip() + ")"


def _inner_decorator(text: Text, one: Chosen, imports: Imports) -> Edit:
    """`@idempotent(...)` on a line of its own, next to the function."""
    advice, line = one.advice, one.found.line
    options = [f"ttl={_ttl(one, imports)}"]
    if advice.key_code:
        options.append(f"key={_key(one, imports)}")
    ignored = (*_self_of(one.found), *advice.ignored)
    if ignored:
        options.append(f"ignore_args={_names(ignored)}")
    if advice.scope != "global":
        options.append(f'scope="{advice.scope}"')
    indent = text.indent(line)
    written = with_arguments(
        imports.name(PACKAGE, "idempotent"), options, replaced_base="",
        newline=text.newline, indent=indent, unit=text.unit,
    )  # fmt: skip
    at = text.line_start(line)
    return Edit(at, at, f"{indent}@{written}{text.newline}")


def _self_of(found: Found) -> tuple[str, ...]:
    """The name of the task itself among the function's arguments."""
    if not (found.bound and found.run is not None):
        return ()
    return tuple(one.arg for one in [*found.run.args.posonlyargs, *found.run.args.args][:1])


def _class_edits(module: Module, text: Text, one: Chosen, imports: Imports) -> Iterator[Edit]:
    node = one.found.node
    assert isinstance(node, ast.ClassDef)  # noqa: S101  of this kind
    for base in node.bases:
        if module.names.full(base) in CELERY_TASKS:
            yield Edit(*text.span(base), imports.name(PACKAGE, "IdempotentTask"))
    told = ast.get_docstring(node, clean=False) is not None
    first = node.body[0]
    line = (first.end_lineno or first.lineno) + 1 if told else _with_comments(text, first, node)
    indent = text.indent(first.lineno)
    lines = [
        f"{indent}{name} = {value}"
        for name, value in _attributes(one, imports)
        if name not in one.found.options
    ]
    gap = text.newline if told or isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) else ""
    written = "".join(f"{line}{text.newline}" for line in lines)
    at = text.line_start(line)
    yield Edit(at, at, f"{gap}{written}" if told else f"{written}{gap}")


def _with_comments(text: Text, first: ast.stmt, node: ast.ClassDef) -> int:
    """The line of a statement, or of the comments that stand above it."""
    line = first_line(first)
    while line - 1 > node.lineno and text.is_comment(line - 1):
        line -= 1
    return line


def _import_edits(module: Module, text: Text, imports: Imports) -> Iterator[Edit]:
    lines = imports.lines()
    if not lines:
        return
    place = place_of(module.tree, imports.before)
    line = place + 1 if place else _top(module.source, text)
    at = text.line_start(line)
    gap = "\n" if not place and imports.before == line else ""
    written = "".join(f"{one}\n" for one in lines) + gap
    yield Edit(at, at, written.replace("\n", text.newline))


def _top(source: Source, text: Text) -> int:
    """The first line after `#!` and the coding cookie."""
    line = 1
    while line <= 2 and source.text[text.line_start(line) :].startswith("#"):
        line += 1
    return line
