"""Finds the tasks of one module, and the places where tasks are made that cannot be told.

The source is parsed, never run. What is no task of Celery's by all that the source says is left
out: a `task` of another library, a class that only inherits.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeGuard

from .policies import POLICIES, task_retry_policy
from .task_classes import Tree, bases_of, is_app
from .task_files import Source, Trouble
from .task_model import Dynamic, Found, Kind
from .task_names import Names, literal_options, names_of

MAKERS: Final = frozenset(
    (
        *("celery.shared_task", "celery.app.shared_task", "celery.task", "celery.decorators.task"),
        *("celery.task.task", "celery.task.periodic_task", "celery.decorators.periodic_task"),
    )
)
_PACKAGE: Final = "idemwatch.idempotency"
IDEMPOTENT: Final = (f"{_PACKAGE}.idempotent", f"{_PACKAGE}.decorator.idempotent")
POLICY: Final = (f"{_PACKAGE}.task_retry_policy", f"{_PACKAGE}.policies.task_retry_policy")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """A file that was parsed."""

    source: Source
    tree: ast.Module
    names: Names


def parsed(source: Source) -> Module | Trouble:
    """The file's syntax tree, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with odd escapes: not our business
            tree = ast.parse(source.text)
    except SyntaxError as error:
        return Trouble(source.path, f"cannot be parsed: {error.msg}", error.lineno or 0)
    except (ValueError, RecursionError, MemoryError) as error:
        return Trouble(source.path, f"cannot be parsed: {error or type(error).__name__}")
    return Module(source, tree, names_of(tree))


class Scan(ast.NodeVisitor):
    """Walks over one module; `found` and `dynamic` are what it saw."""

    def __init__(self, module: Module, tree: Tree) -> None:
        self._names, self._tree = module.names, tree
        self._around: list[ast.AST] = []
        self._decorators: set[int] = set()
        self.found: list[Found] = []
        self.dynamic: list[Dynamic] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        task = self._task_of_class(node)
        if task is not None:
            self.found.append(task)
        self._within(node)

    def visit_Call(self, node: ast.Call) -> None:
        """A maker that is called, or handed to another, is no decorator: its task is not seen."""
        if id(node) not in self._decorators:
            handed = [one for one in node.args if self._is_maker(one)]
            if (self._is_maker(node.func) or handed) and not self._is_ours(node):
                self.dynamic.append(Dynamic(_short(node), node.lineno))
        self.generic_visit(node)

    def _is_ours(self, node: ast.Call) -> bool:
        """Whether a task that is made by a call is given our base class there."""
        bases = [self._names.full(one.value) for one in node.keywords if one.arg == "base"]
        return any(self._tree.kind_of(base) == "ours" for base in bases)

    def _function(self, node: Function) -> None:
        for number, decorator in enumerate(node.decorator_list):
            if self._is_maker(_called(decorator)):
                self._decorators.add(id(decorator))
                self.found.append(self._task(node, decorator, number))
                break
        self._within(node)

    def _within(self, node: ast.AST) -> None:
        self._around.append(node)
        self.generic_visit(node)
        self._around.pop()

    def _is_maker(self, node: ast.expr) -> bool:
        """Whether an expression is what makes tasks of functions."""
        if isinstance(node, ast.Name):
            value = self._names.assigned.get(node.id)
            if isinstance(value, ast.Attribute):
                node = value
        if isinstance(node, ast.Attribute) and node.attr == "task":
            if self._names.full(node) in MAKERS:
                return True
            return is_app(self._tree, self._names, node.value)
        return isinstance(node, ast.Name | ast.Attribute) and self._names.full(node) in MAKERS

    def _task(self, node: Function, decorator: ast.expr, number: int) -> Found:
        options, spread = self._options(decorator)
        given = options.get("base")
        base = self._names.full(given) if given is not None else ""
        method = bool(self._around) and isinstance(self._around[-1], ast.ClassDef)
        return Found(
            name=_name(options, node.name), function=node.name, line=node.lineno,
            column=decorator.col_offset, kind=Kind.FUNCTION, node=node, run=node,
            decorator=decorator, options=options, spread=spread, base=base,
            bound=_is_true(options.get("bind")), method=method,
            wrapped=number + 1 < len(node.decorator_list),
            made_often=_is_computed(options.get("name"))
            or any(isinstance(one, Function) for one in self._around),
            periodic=self._names.full(decorator).endswith(".periodic_task"),
            protected_by=self._protection(base, node.decorator_list[number + 1 :]),
        )  # fmt: skip

    def _options(self, decorator: ast.expr) -> tuple[dict[str, ast.expr], str]:
        """The options that are written out, and an argument `**…` that cannot be read."""
        options: dict[str, ast.expr] = {}
        spread = ""
        for one in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if one.arg is not None:
                options[one.arg] = one.value
                continue
            known = self._policy(one.value) or literal_options(self._names, one.value)
            options |= known or {}
            spread = spread if known is not None else f"**{ast.unparse(one.value)}"
        return options, spread

    def _policy(self, node: ast.expr) -> dict[str, ast.expr] | None:
        """The options of `task_retry_policy(...)`, as far as their names."""
        if not isinstance(node, ast.Call) or self._names.full(node.func) not in POLICY:
            return None
        names = {*task_retry_policy(next(iter(POLICIES))), *(one.arg for one in node.keywords)}
        given = {str(one.arg): one.value for one in node.keywords if one.arg}
        return {str(name): given.get(str(name), node) for name in names if name}

    def _protection(self, base: str, inner: list[ast.expr]) -> str:
        if any(self._names.full(one) in IDEMPOTENT for one in inner):
            return "@idempotent"
        kind = self._tree.kind_of(base) if base else ""
        return {"ours": "IdempotentTask", "celery": "", "unknown": ""}.get(kind, kind)

    def _task_of_class(self, node: ast.ClassDef) -> Found | None:
        """A class with `run` that inherits, in the end, from Celery's Task."""
        bases = bases_of(node, self._names)
        kinds = {self._tree.kind_of(base): base for base in bases}
        app_task = [one for one in node.bases if self._is_app_task(one)]
        if not ({*kinds} - {"unknown"} or app_task):
            return None
        run = next((one for one in node.body if _is_run(one)), None)
        options = _attributes(node)
        if run is None or _is_true(options.get("abstract")):
            return None
        direct = "celery" in kinds and kinds["celery"].startswith("celery.")
        protected = next((kind for kind in kinds if kind not in ("unknown", "celery")), "")
        return Found(
            name=_name(options, node.name), function=node.name, line=node.lineno,
            column=node.col_offset, kind=Kind.CLASS, node=node, run=run, options=options,
            base="" if direct else ", ".join(bases), bound=True,
            protected_by="IdempotentTask" if protected == "ours" else protected,
        )  # fmt: skip

    def _is_app_task(self, node: ast.expr) -> bool:
        """Whether a base is `app.Task`."""
        return (
            isinstance(node, ast.Attribute)
            and node.attr == "Task"
            and is_app(self._tree, self._names, node.value)
        )


def tasks_of(module: Module, tree: Tree) -> tuple[list[Found], list[Dynamic]]:
    """The module's tasks, in the order of their lines, and where tasks are made dynamically."""
    scan = Scan(module, tree)
    if _may_hold_tasks(module, tree):  # visiting costs ten times as much as parsing
        scan.visit(module.tree)
    once = {one.line: one for one in reversed(scan.dynamic)}
    return sorted(scan.found, key=_line), [once[line] for line in sorted(once)]


def _may_hold_tasks(module: Module, tree: Tree) -> bool:
    """Whether anything in a module is called as what makes a task."""
    if not MAKERS.isdisjoint(module.names.imported.values()):
        return True
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("task", "Task", "shared_task"):
            return True
        if isinstance(node, ast.ClassDef) and node.bases:
            kinds = {tree.kind_of(base) for base in bases_of(node, module.names)}
            if kinds != {"unknown"}:
                return True
    return False


def _is_run(node: ast.stmt) -> TypeGuard[Function]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "run"


def _line(found: Found) -> int:
    return found.line


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value)


def _is_computed(node: ast.expr | None) -> bool:
    return node is not None and not isinstance(node, ast.Constant)


def _name(options: dict[str, ast.expr], function: str) -> str:
    given = options.get("name")
    named = isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value
    return named or function


def _attributes(node: ast.ClassDef) -> dict[str, ast.expr]:
    return dict(_assigned(node))


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for one in node.body:
        match one:
            case ast.Assign(targets=[ast.Name() as target], value=value):
                yield target.id, value
            case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
                yield target.id, value
            case _:
                pass


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
