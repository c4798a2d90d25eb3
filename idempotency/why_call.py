"""A call as a worker would see it: its task, its key, and where its message is now.

Invariant: errors name arguments, never their values; what asks workers ends within seconds.
"""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from celery.exceptions import NotRegistered
from kombu.serialization import dumps, loads

from .app_tasks import import_tasks
from .errors import ConfigurationError, IdempotencyError, InvalidKey
from .keys import CallKey
from .task import IdempotentTask

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.0
"""How long workers are given to answer."""
LONGEST_SECONDS: Final = 4.0
"""How long a broker or result backend may take in all."""


class Message(NamedTuple):
    """A message that a worker has: `state` is active, reserved or ready (for its time)."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    worker: str
    state: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a task: what identifies it, and its arguments by their names."""

    task: IdempotentTask
    call: CallKey
    bound: Mapping[str, Any]


def task_of(app: Any, name: str) -> IdempotentTask:
    """The idempotent task of that name. Raises ConfigurationError."""
    import_tasks(app)
    try:
        task = app.tasks[name]
    except NotRegistered:
        near = difflib.get_close_matches(name, [*app.tasks], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError("--task", f"the app knows no task {name!r}{hint}") from None
    if not isinstance(task, IdempotentTask):
        told = f"{name} is no IdempotentTask: it has no key, and no message is turned away"
        raise ConfigurationError("--task", told)
    return task


def called(
    task: IdempotentTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    task_id: str = "",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """The call as a worker computes it. Raises InvalidKey or TypeError, without any value."""
    serializer = task.serializer or task.app.conf.task_serializer or "json"
    content_type, encoding, data = dumps([list(args), dict(kwargs)], serializer)
    sent_args, sent_kwargs = loads(data, content_type, encoding, accept={content_type})
    bound = task.idempotency_options.rule.binder.bind(sent_args, sent_kwargs)
    try:
        call = task.idempotency_call_key(sent_args, sent_kwargs, task_id=task_id, headers=headers)
    except IdempotencyError:
        raise
    except Exception as error:  # a key function is the user's; its text may have an argument
        told = f"idempotency_key of {task.name} raised {type(error).__name__} for this call"
        raise InvalidKey(told) from None
    return Called(task, call, bound)


def message_of(app: Any, task_id: str) -> Message | None:
    """The message of a task id, if a worker that answers in time has it."""
    return found_in(_in_time(lambda: _ask_workers(app, task_id)), task_id)


def _ask_workers(app: Any, task_id: str) -> Mapping[str, Any]:
    with app.connection_for_write() as connection:
        connection.ensure_connection(
            max_retries=1, interval_start=0, interval_step=0, timeout=ANSWER_SECONDS
        )
        inspect = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
        return inspect.query_task(task_id) or {}


def found_in(replies: Mapping[str, Any], task_id: str) -> Message | None:
    """The message among what workers answered; they may be of any version."""
    for worker, found in replies.items():
        pair = found.get(task_id) if isinstance(found, Mapping) else None
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        state, info = pair[0], pair[1] if isinstance(pair[1], Mapping) else {}
        args, kwargs = info.get("args"), info.get("kwargs")
        if isinstance(args, list | tuple) and isinstance(kwargs, Mapping):
            return Message(str(info.get("name")), args, kwargs, worker, str(state))
    return None


def kept_by_backend(app: Any, task_id: str) -> tuple[str, str, Message | None]:
    """The key of a message that was refused and the kind of its error, "" if none; and its call,
    where the backend keeps calls (result_extended). Nothing when it does not answer in time.
    """
    found = _in_time(lambda: app.backend.get_task_meta(task_id))
    error, args, kwargs = found.get("result"), found.get("args"), found.get("kwargs")
    key = str(getattr(error, "key", "")) if isinstance(error, IdempotencyError) else ""
    kind = type(error).__name__ if key else ""
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        return key, kind, None
    state = str(found.get("status")).lower()
    return key, kind, Message(str(found.get("name")), args, kwargs, str(found.get("worker")), state)


def _in_time(ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The answer, or nothing: a broker or backend that is frozen has no time-out of its own."""
    answers: list[Mapping[str, Any]] = []

    def asked() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # any driver's; then it tells nothing
            log.info("no answer: %s", type(error).__name__)

    thread = threading.Thread(target=asked, daemon=True)
    thread.start()
    thread.join(LONGEST_SECONDS)
    return answers[0] if answers else {}
