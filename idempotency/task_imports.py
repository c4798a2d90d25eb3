"""Imports that a migrated module needs: those that it has are used, others are added once.

A name that means something else in the module is not touched: ours gets another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "idemwatch_"
WIDTH: Final = 88
PACKAGE: Final = "idemwatch.idempotency"


@dataclass(slots=True)
class Imports:
    """`before`: the line that the names are needed at."""

    tree: ast.Module
    before: int
    added: dict[str, dict[str, str]] = field(default_factory=dict)
    """By module: local names by what is imported."""

    def name(self, module: str, name: str) -> str:
        """How to write `module.name` in this file."""
        known = self._imported(module, name)
        if known:
            return known
        wanted = self.added.setdefault(module, {})
        if name not in wanted:
            meanings = set(_meanings(self.tree, name))
            wanted[name] = name if meanings <= {f"{module}.{name}"} else f"{PREFIX}{name}"
        return wanted[name]

    def _imported(self, module: str, name: str) -> str:
        for node in self.tree.body:
            if node.lineno >= self.before:
                break
            for local, full in _bound_by(node):
                if full == f"{module}.{name}" and _once(self.tree, local):
                    return local
                if full == module and module == "datetime" and _once(self.tree, local):
                    return f"{local}.{name}"
        return ""

    def lines(self) -> list[str]:
        """The statements to add, the standard library's first."""
        return [_statement(module, names) for module, names in sorted(self.added.items())]


def _statement(module: str, names: dict[str, str]) -> str:
    clauses = [_clause(one) for one in sorted(names.items())]
    line = f"from {module} import {', '.join(clauses)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {one},\n" for one in clauses) + ")"


def _clause(pair: tuple[str, str]) -> str:
    name, local = pair
    return name if name == local else f"{name} as {local}"


def _bound_by(node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Import():
            for alias in node.names:
                if alias.asname or "." not in alias.name:
                    yield alias.asname or alias.name, alias.name
        case ast.ImportFrom(level=0, module=str() as module):
            for alias in node.names:
                yield alias.asname or alias.name, f"{module}.{alias.name}"
        case _:
            pass


def _once(tree: ast.Module, name: str) -> bool:
    """Whether a name has one meaning in the whole file."""
    return len(set(_meanings(tree, name))) == 1


def _meanings(tree: ast.Module, name: str) -> Iterator[str]:
    """What a name is bound to anywhere in the file: full names, or `?` for what is no import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if name in {alias.asname or alias.name.split(".")[0] for alias in node.names}:
                yield dict(_bound_by(node)).get(name, "?")
        elif _binds(node, name):
            yield "?"


def _binds(node: ast.AST, name: str) -> bool:
    """Whether the node gives the name a meaning of this file's own."""
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.arg):
        return node.arg == name
    return name == getattr(node, "name", None) and not isinstance(node, ast.alias)


def place_of(tree: ast.Module, before: int) -> int:
    """The line after which imports are added: the last import before the module's first code.

    So what must come first, as `monkey.patch_all()`, still does. 0 for the top of the file.
    """
    place = 0
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            break
        if node.lineno >= before:
            break
        end = node.end_lineno or node.lineno
        if (number == 0 and _is_text(node)) or _imports(node):
            place = end
    return place


def first_line(node: ast.stmt) -> int:
    """The line that a statement begins on, with its decorators."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return node.lineno


def _imports(node: ast.stmt) -> bool:
    return any(isinstance(one, ast.Import | ast.ImportFrom) for one in ast.walk(node))


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
