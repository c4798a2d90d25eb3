"""The calls that are simulated: those of the sample tasks, or of the user's, one for each work.

Invariant: two pieces of work never have the same key, so that whatever runs twice is a duplicate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError

from .simulate_history import Kind
from .simulate_plan import Plan

NUMBER: Final = "{n}"
"""What stands in a call for the number of the work."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is published for one piece of work, which `work` names."""

    work: str
    task: str
    kind: Kind
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A call that the user gave: `task:JSON`, in which {n} is the number of the work."""

    task: str
    text: str

    @classmethod
    def of(cls, given: str) -> Template:
        """Raises ValueError, with what is wrong."""
        task, colon, text = given.partition(":")
        template = cls(task.strip(), text.strip() if colon else "[]")
        if not template.task:
            raise ValueError(f"{given!r} names no task: write 'task:[arguments]'")
        template.arguments(1)
        return template

    @property
    def numbered(self) -> bool:
        """Whether it makes as many pieces of work as are wanted, or only one."""
        return NUMBER in self.text

    def arguments(self, number: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named ones. Raises ValueError."""
        try:
            given = json.loads(self.text.replace(NUMBER, str(number)))
        except ValueError as error:
            raise ValueError(f"the arguments of {self.task} are no JSON: {error}") from None
        if isinstance(given, list):
            return tuple(given), {}
        if isinstance(given, dict):
            return (), given
        raise ValueError(f"the arguments of {self.task} must be a JSON list or object")


def sample_calls(plan: Plan, kinds: Mapping[str, Kind]) -> list[Call]:
    """The sample tasks, in turn."""
    tasks = list(kinds)
    calls = []
    for work in plan.works:
        task = tasks[work.number % len(tasks)]
        name = f"{task.rpartition('.')[2]}({work.number})"
        calls.append(Call(name, task, kinds[task], (work.number,)))
    return calls


def users_calls(app: Any, templates: Sequence[Template], works: int) -> list[Call]:
    """Those of the user's tasks, in turn, at most `works`; fewer when none is numbered.

    Raises ConfigurationError for a task that is unknown or plain, and for works of one key.
    """
    for template in templates:
        _require_protected(app, template.task)
    once = [one for one in templates if not one.numbered][:works]
    numbered = [one for one in templates if one.numbered]
    more = [numbered[place % len(numbered)] for place in range(works - len(once)) if numbered]
    calls = [_call(one, number) for number, one in enumerate([*once, *more], start=1)]
    _require_keys(app, calls)
    return calls


def _call(template: Template, number: int) -> Call:
    args, kwargs = template.arguments(number)
    shown = ", ".join(
        [*map(json.dumps, args), *(f"{k}={json.dumps(v)}" for k, v in kwargs.items())]
    )
    name = f"{template.task}({shown})"
    return Call(
        name if len(name) <= 120 else f"{name[:112]}...#{number}",
        template.task,
        Kind.YOURS,
        args,
        kwargs,
    )


def _require_protected(app: Any, name: str) -> None:
    task = app.tasks.get(name)
    if task is None:
        known = sorted(str(one) for one in app.tasks if not str(one).startswith("celery."))
        raise ConfigurationError(
            "--call", f"the app has no task {name!r}; it has {', '.join(known) or 'none'}"
        )
    if not isinstance(task, IdempotentTask):
        told = f"{name} is a plain task: give it base=IdempotentTask (see migrate-tasks)"
        raise ConfigurationError("--call", told)
    if not task.idempotency_options.enabled:
        raise ConfigurationError("--call", f"the protection of {name} is turned off")


def _require_keys(app: Any, calls: Iterable[Call]) -> None:
    known: dict[str, str] = {}
    for call in calls:
        try:
            key = app.tasks[call.task].idempotency_key_of(*call.args, **(call.kwargs or {})).key
        except (IdempotencyError, TypeError) as error:
            raise ConfigurationError("--call", f"{call.work} has no key: {error}") from error
        except Exception as error:  # a key function is the user's
            told = f"idempotency_key of {call.task} raised {type(error).__name__} for {call.work}"
            raise ConfigurationError("--call", told) from error
        if key in known:
            told = f"{known[key]} and {call.work} have one key: let {NUMBER} change it"
            raise ConfigurationError("--call", told)
        known[key] = call.work
