"""What the names of a module stand for: `st` is celery.shared_task where that was imported so.

Only the source is read. A name that is bound twice stands for what was bound last at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

UNKNOWN: Final = "?"


@dataclass(slots=True)
class Names:
    """`imported`: full names by local ones. `assigned`, `functions`, `classes`: of the module."""

    imported: dict[str, str] = field(default_factory=dict)
    assigned: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    anywhere: dict[str, list[ast.expr]] = field(default_factory=dict)
    """All that is assigned to a name, in functions too."""
    changed: set[str] = field(default_factory=set)
    """Names of containers that are changed after they were made."""

    def full(self, node: ast.expr) -> str:
        """The dotted name of an expression, calls left out: `Job.objects.filter.update`.

        An imported head is replaced by what it stands for; an alias by what it was assigned.
        """
        return self._full(node, 0)

    def _full(self, node: ast.expr, depth: int) -> str:
        tail: list[str] = []
        while True:
            if isinstance(node, ast.Attribute):
                tail.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call):
                node = node.func
            elif isinstance(node, ast.Subscript | ast.Await):
                node = node.value
            else:
                break
        head = self._head(node, depth) if isinstance(node, ast.Name) else UNKNOWN
        return ".".join([head, *reversed(tail)])

    def _head(self, node: ast.Name, depth: int) -> str:
        if node.id in self.imported:
            return self.imported[node.id]
        value = self.assigned.get(node.id)
        if isinstance(value, ast.Name | ast.Attribute) and depth < 5:
            return self._full(value, depth + 1)
        return node.id


def names_of(tree: ast.Module) -> Names:
    """The names of a module, also those that functions import for themselves."""
    names = Names()
    for node in _statements(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    names.imported[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                for alias in node.names:
                    joint = "" if module.endswith(".") else "."
                    names.imported[alias.asname or alias.name] = f"{module}{joint}{alias.name}"
            case _:
                pass
    for statement in top_level(tree):
        _bind(names, statement)
    for node in ast.walk(tree):
        _note(names, node)
    return names


def _note(names: Names, node: ast.AST) -> None:
    match node:
        case ast.Assign(targets=[ast.Name() as target], value=value):
            names.anywhere.setdefault(target.id, []).append(value)
        case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
            names.anywhere.setdefault(target.id, []).append(value)
        case ast.Call(func=ast.Attribute(value=ast.Name() as changed, attr=method)):
            if method in ("update", "setdefault", "pop", "clear"):
                names.changed.add(changed.id)
        case ast.Subscript(value=ast.Name() as changed, ctx=ast.Store() | ast.Del()):
            names.changed.add(changed.id)
        case ast.AugAssign(target=ast.Name() as changed):
            names.changed.add(changed.id)
        case _:
            pass


def _bind(names: Names, node: ast.stmt) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            names.functions[node.name] = node
        case ast.ClassDef():
            names.classes[node.name] = node
        case ast.Assign(targets=[ast.Name() as target], value=value):
            names.assigned[target.id] = value
        case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
            names.assigned[target.id] = value
        case _:
            pass


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, also those within `if`, `try` and `with`."""
    yield from _inner(tree.body)


def _inner(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _inner(node.body)
            yield from _inner(getattr(node, "orelse", []))
            yield from _inner(getattr(node, "finalbody", []))
            for handler in getattr(node, "handlers", []):
                yield from _inner(handler.body)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All imports; those at the top come last, since they are known everywhere."""
    top = {id(node) for node in top_level(tree)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    yield from (node for node in imports if id(node) not in top)
    yield from (node for node in imports if id(node) in top)


def literal_options(names: Names, node: ast.expr) -> dict[str, ast.expr] | None:
    """What `**node` stands for, if it is a dict that is written out; else None."""
    if isinstance(node, ast.Name):
        if node.id in names.changed or len(names.anywhere.get(node.id, [])) > 1:
            return None
        node = names.assigned.get(node.id, node)
    if isinstance(node, ast.Call) and names.full(node.func) == "dict" and not node.args:
        if all(one.arg for one in node.keywords):
            return {str(one.arg): one.value for one in node.keywords}
        return None
    if not isinstance(node, ast.Dict):
        return None
    options = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return None
        options[key.value] = value
    return options
