"""What the classes and apps of a whole code base are: Celery's, ours, a peer's, or unknown.

Classes are known by their last name, since only running the imports could tell more; where two of
one name differ, they are unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .task_names import Names, top_level

OURS: Final = (
    "idemwatch.idempotency.Idempotent",
    "idemwatch.idempotency.task.Idempotent",
    "idemwatch.idempotency.batches.Idempotent",
)
"""How the names of our base classes begin."""
_TEST: Final = re.compile(r"(^|[\\/])(tests?[\\/]|test_\w*\.py$|\w*_test\.py$|conftest\.py$)")
CELERY_TASKS: Final = frozenset(
    (
        *("celery.Task", "celery.app.task.Task", "celery.app.Task", "celery.task.Task"),
        *("celery.task.base.Task", "celery.contrib.django.task.DjangoTask"),
    )
)
PEERS: Final = {"QueueOnce": "celery-once", "Singleton": "celery-singleton"}
OTHERS: Final = frozenset(
    (
        *("huey", "dramatiq", "taskiq", "airflow", "prefect", "invoke", "luigi", "arq", "rq"),
        *("procrastinate", "locust", "flytekit", "kfp", "modal", "robocorp", "fabric", "nox"),
    )
)
"""Libraries whose `task` is not Celery's."""
SENDING: Final = ("delay", "apply_async", "s", "si", "signature", "subtask", "delay_on_commit")
TENANTS: Final = ("tenant_schemas_celery", "django_tenants_celery_beat")
_SIGNATURE: Final = re.compile(r"\.(s|si|signature|subtask)(\.\w+)*$")
_APP_NAME: Final = re.compile(r"(^|_)(app|celery|current_app)$", re.IGNORECASE)


@dataclass(slots=True)
class Tree:
    """What all files together say: bases by class name, apps by name, and what a beat publishes."""

    bases: dict[str, set[str]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    apps: dict[str, bool] = field(default_factory=dict)
    beat: dict[str, str] = field(default_factory=dict)
    """Where each task that is named in a beat schedule stands there."""

    task_classes: dict[str, str] = field(default_factory=dict)
    """Where, by file, an app is given a task class of its own, as Flask's context needs it."""
    senders: dict[str, set[str]] = field(default_factory=dict)
    """The functions that send a task or call a function, by its name."""
    tenants: str = ""
    """Where a library is imported that sends the tenant in a header of the message."""
    on_commit: set[str] = field(default_factory=set)
    """Tasks that are sent with a method that only Django's task class has."""
    known: dict[str, str] = field(default_factory=dict)
    """Answers of `kind_of`, once all files were learnt."""

    def kind_of(self, base: str) -> str:
        """`ours`, `celery`, the name of a peer, or `unknown`: what tasks of this base are."""
        if base not in self.known:
            kinds = {_kind(one) for one in self._ancestors(base)}
            order = ("ours", *PEERS.values(), "celery")
            self.known[base] = next((one for one in order if one in kinds), "unknown")
        return self.known[base]

    def _ancestors(self, base: str) -> set[str]:
        """The class and all that it inherits from, each once."""
        seen = {base}
        left = [base]
        while left:
            found = self.bases.get(left.pop().rsplit(".", 1)[-1], set()) - seen
            seen |= found
            left += found
        return seen


def _kind(base: str) -> str:
    if base.startswith(OURS):
        return "ours"
    if base in CELERY_TASKS:
        return "celery"
    peer = base.split(".", 1)[0] in ("celery_once", "celery_singleton")
    return PEERS.get(base.rsplit(".", 1)[-1], "") if peer else ""


def learn(tree: Tree, path: str, module: ast.Module, names: Names) -> None:
    """Add what one file says."""
    tree.known.clear()
    if any(full.startswith(TENANTS) for full in names.imported.values()):
        tree.tenants = tree.tenants or path
    for node in ast.walk(module):
        match node:
            case ast.ClassDef():
                _learn_class(tree, node, names)
            case ast.FunctionDef():
                _learn_sender(tree, node, names)
            case ast.Dict():
                _learn_entry(tree, path, node)
            case ast.Call():
                _learn_call(tree, path, node, names)
            case ast.Attribute(attr="delay_on_commit" | "apply_async_on_commit"):
                tree.on_commit.add(names.full(node.value).rsplit(".", 1)[-1])
            case ast.Assign(targets=[ast.Attribute(attr="Task")]):
                tree.task_classes.setdefault(path, f"{path}:{node.lineno}")
            case _:
                pass
    _learn_apps(tree, module, names)


def _learn_apps(tree: Tree, module: ast.Module, names: Names) -> None:
    for statement in top_level(module):
        match statement:
            case ast.Assign(targets=[ast.Name() as target], value=ast.Call() as value):
                found = makes_app(names, value)
                tree.apps[target.id] = tree.apps.get(target.id, False) or found
            case _:
                pass


def _learn_sender(tree: Tree, function: ast.FunctionDef, names: Names) -> None:
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in SENDING:
            sent = names.full(node.value).rsplit(".", 1)[-1]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            sent = names.full(node.func).rsplit(".", 1)[-1]
        else:
            continue
        tree.senders.setdefault(sent, set()).add(function.name)


def _learn_call(tree: Tree, path: str, node: ast.Call, names: Names) -> None:
    match node:
        case ast.Call(func=ast.Attribute(attr="add_periodic_task"), args=[_, signature, *_]):
            _learn_signature(tree, path, signature, names)
        case ast.Call(func=ast.Attribute(attr="add_periodic_task")):
            for one in node.keywords:
                if one.arg == "sig":
                    _learn_signature(tree, path, one.value, names)
        case _ if any(one.arg == "task" for one in node.keywords):
            _learn_row(tree, path, node, names)
        case _ if any(one.arg == "task_cls" for one in node.keywords) and makes_app(names, node):
            tree.task_classes.setdefault(path, f"{path}:{node.lineno}")
        case _:
            pass


def _learn_signature(tree: Tree, path: str, signature: ast.expr, names: Names) -> None:
    published = _SIGNATURE.sub("", names.full(signature))
    tree.beat.setdefault(published.rsplit(".", 1)[-1], f"{path}:{signature.lineno}")


def _learn_row(tree: Tree, path: str, node: ast.Call, names: Names) -> None:
    """`dict(task=..., schedule=...)`, and a row of django-celery-beat."""
    given = {one.arg: one.value for one in node.keywords}
    task = given["task"]
    full = names.full(node.func)
    known = "schedule" in given or "PeriodicTask" in full or "ScheduleEntry" in full
    if known and isinstance(task, ast.Constant) and isinstance(task.value, str):
        tree.beat.setdefault(task.value, f"{path}:{node.lineno}")


def _learn_class(tree: Tree, node: ast.ClassDef, names: Names) -> None:
    bases = [names.full(base) for base in node.bases]
    if any(base.endswith((".Model", ".DeclarativeBase")) or base == "Model" for base in bases):
        tree.models.add(node.name)
    tree.bases.setdefault(node.name, set()).update(bases)


def _learn_entry(tree: Tree, path: str, node: ast.Dict) -> None:
    """An entry of a beat schedule: a dict with a task's name and a schedule."""
    entry = {
        key.value: value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }
    task = entry.get("task")
    if "schedule" in entry and isinstance(task, ast.Constant) and isinstance(task.value, str):
        tree.beat.setdefault(task.value, f"{path}:{node.lineno}")


def in_beat(tree: Tree, name: str, function: str) -> str:
    """Where a beat schedule names the task, or nothing."""
    for published, place in tree.beat.items():
        if published == name or published.rsplit(".", 1)[-1] == function:
            return place
    return ""


def fanned_out(tree: Tree, function: str) -> str:
    """Where a beat schedule names a task that sends this one, also by way of others."""
    seen, left = {function}, [function]
    while left:
        new = tree.senders.get(left.pop(), set()) - seen
        place = next(filter(None, (in_beat(tree, one, one) for one in sorted(new))), "")
        if place:
            return place
        seen |= new
        left += new
    return ""


def makes_app(names: Names, call: ast.Call) -> bool:
    """Whether a call makes a Celery app: `Celery(...)`, `make_celery(...)`."""
    return "celery" in names.full(call.func).rsplit(".", 1)[-1].lower()


def task_class(tree: Tree, path: str) -> str:
    """Where the app of a file's tasks is given a task class of its own, or nothing.

    An app may be made in any file; one that a test makes is of that file alone.
    """
    others = (place for made, place in tree.task_classes.items() if not _TEST.search(made))
    return tree.task_classes.get(path) or next(others, "")


def is_app(tree: Tree, names: Names, node: ast.expr) -> bool:
    """Whether an expression is, as far as the source tells, a Celery app."""
    if isinstance(node, ast.Call):
        return makes_app(names, node)
    full = names.full(node)
    if full.split(".", 1)[0].lstrip(".") in OTHERS:
        return False
    if isinstance(node, ast.Name) and node.id not in names.imported:
        made = [one for one in names.anywhere.get(node.id, []) if isinstance(one, ast.Call)]
        if made:
            return any(makes_app(names, one) for one in made)
    last = full.rsplit(".", 1)[-1]
    if "." in full and tree.apps.get(last) is False and "celery" not in full.lower():
        return False
    return tree.apps.get(last, False) or _APP_NAME.search(last) is not None


def bases_of(node: ast.ClassDef, names: Names) -> Sequence[str]:
    """The full names of a class's bases."""
    return [names.full(base) for base in node.bases]
