"""Whether a file was changed as it was meant to be, and nowhere else.

The two syntax trees are compared with what was to change taken out of both. A mistake of the
rewriting is found here, before anything is written.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from .task_imports import Imports
from .task_model import Found
from .task_scan import Module

OURS = "idempotency_"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def check_rewritten(module: Module, after: str, found: Sequence[Found], imports: Imports) -> None:
    """Raise ValueError if more than these tasks and these imports differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before_tree, after_tree = ast.parse(module.source.text), ast.parse(after)
    touched = {number for number, node in enumerate(_definitions(module.tree))
               if any(node is one.node for one in found)}  # fmt: skip
    _take_out_imports(after_tree, imports.lines())
    for tree in (before_tree, after_tree):
        for number, node in enumerate(_definitions(tree)):
            if number in touched:
                _take_out(node)
    if ast.dump(before_tree) != ast.dump(after_tree):
        raise ValueError("the change would touch more than the task")
    _check_options(module.source.text, after, touched)


def _definitions(tree: ast.Module) -> list[Definition]:
    """In an order that is the same for both."""
    return [node for node in ast.walk(tree) if isinstance(node, Definition)]


def _take_out_imports(tree: ast.Module, lines: Sequence[str]) -> None:
    for line in lines:
        wanted = ast.dump(ast.parse(line).body[0])
        at = next((n for n, node in enumerate(tree.body) if ast.dump(node) == wanted), None)
        if at is None:
            raise ValueError("an import is not where it was to be")
        del tree.body[at]


def _take_out(node: Definition) -> None:
    node.decorator_list = []
    if isinstance(node, ast.ClassDef):
        node.bases = []
        node.body = [one for one in node.body if not _is_option(one)]


def _is_option(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name.startswith(OURS)
        case _:
            return False


def _check_options(before: str, after: str, touched: set[int]) -> None:
    """Every argument that a task had, it still has; none is there twice."""
    pairs = zip(_definitions(ast.parse(before)), _definitions(ast.parse(after)), strict=True)
    for number, (old, new) in enumerate(pairs):
        if number not in touched:
            continue
        kept = _arguments(new)
        if not set(_arguments(old)) <= {*kept}:
            raise ValueError(f"an option of {old.name} would be lost")
        for decorator in new.decorator_list:
            names = [one.arg for one in getattr(decorator, "keywords", []) if one.arg]
            if len(set(names)) != len(names):
                raise ValueError(f"an option of {old.name} would be there twice")


def _arguments(node: Definition) -> list[str]:
    """All options but the base, as source."""
    return [
        ast.unparse(one)
        for decorator in node.decorator_list
        for one in (decorator.keywords if isinstance(decorator, ast.Call) else ())
        if one.arg != "base"
    ]
