"""The user's app and calls, as they were given to the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from celery.app.utils import find_app
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.app_tasks import import_tasks, reason
from idemwatch.idempotency.errors import ConfigurationError

from .simulate_calls import Template
from .simulate_run import UsersApp


def templates_of(given: Sequence[str]) -> list[Template]:
    """What --call says. Raises click.BadParameter."""
    try:
        return [Template.of(one) for one in given]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--call") from None


def users_app(spec: str, app: Any | None, templates: Sequence[Template]) -> UsersApp:
    """The app with its tasks, imported as `celery -A` does. Raises click.UsageError."""
    found = _found(spec) if app is None else app
    try:
        import_tasks(found)
    except ConfigurationError as error:
        raise click.UsageError(f"{spec}: {error.problem}") from error
    if not templates:
        names = sorted(n for n, task in found.tasks.items() if isinstance(task, IdempotentTask))
        known = f"it has {', '.join(names)}" if names else "it has no IdempotentTask"
        raise click.UsageError(f"{spec}: say which tasks, with --call 'task:[arguments]'; {known}")
    return UsersApp(spec, found, templates)


def _found(spec: str) -> Any:
    """Whatever the import of a user's module raises is a reason, and is told in one line."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return find_app(spec)
    except Exception as error:
        raise click.BadParameter(
            f"{spec!r} cannot be loaded: {reason(error)}", param_hint="--app"
        ) from error
