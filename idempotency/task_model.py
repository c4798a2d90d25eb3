"""What is known of the tasks of a code base: plain values, which the scan makes and advice reads.

Lines count from 1. A column is that of the text, from 1.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """How a task is made."""

    FUNCTION = "function"
    CLASS = "class"


class Level(StrEnum):
    """How bad a finding is; the worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Action(StrEnum):
    """What becomes of a task."""

    MIGRATE = "migrate"
    BY_HAND = "by_hand"
    ALREADY = "already"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a task does to the world outside it, or reads from it."""

    kind: str
    what: str
    line: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something of a task that whoever migrates it should know."""

    rule: str
    level: Level
    message: str
    line: int


@dataclass(slots=True)
class Found:
    """A task as the source has it. `decorator` is the expression that makes it one."""

    name: str
    function: str
    line: int
    column: int
    kind: Kind
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    run: ast.FunctionDef | ast.AsyncFunctionDef | None
    decorator: ast.expr | None = None
    options: Mapping[str, ast.expr] = field(default_factory=dict)
    spread: str = ""
    """An argument `**…` that cannot be read, as it is written."""
    base: str = ""
    """The full name of its base class, empty for Celery's own."""
    bound: bool = False
    method: bool = False
    made_often: bool = False
    """Its function may be made for several tasks: in a function, or under a computed name."""
    wrapped: bool = False
    """Other decorators stand between the task and the function."""
    periodic: bool = False
    """It is made by `periodic_task`, which Celery had before version 5."""
    protected_by: str = ""


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A place where tasks are made that cannot be told from the source."""

    what: str
    line: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How a task becomes idempotent, and why."""

    category: str
    strategy: str
    ttl_seconds: int
    scope: str
    authority: str
    key: str
    """The key as an operator reads it."""
    builder: str = ""
    """The name of the key builder in use."""
    key_code: str = ""
    """The value of `idempotency_key`, empty where all arguments make the key."""
    ignored: tuple[str, ...] = ()
    policy: bool = True
    """Whether the retries of the category are taken too."""
    daily: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """One task: what was found, what is recommended, and what becomes of it."""

    path: str
    name: str
    function: str
    line: int
    column: int
    kind: Kind
    action: Action
    why: str
    """Why it is left, where it is."""
    advice: Recommendation
    effects: tuple[Effect, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task that is to be changed, and how."""

    found: Found
    advice: Recommendation


STRATEGY_BASE: Final = "IdempotentTask"
STRATEGY_DECORATOR: Final = "@idempotent"
