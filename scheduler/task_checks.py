"""What a Celery app says of the tasks that its schedules name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, Final

from celery.exceptions import NotRegistered
from idemwatch.idempotency.app_tasks import import_tasks
from idemwatch.idempotency.keys import DUE_HEADER, SCHEDULE_HEADER
from idemwatch.idempotency.task import IdempotentTask
from kombu.utils.json import loads

from .idempotency_checks import CallFact
from .inventory import Inventory

FOREIGN_BEATS: Final = ("redbeat", "django")
"""Sources whose beats send no due time with a message."""
BEAT: Final = "idemwatch.scheduler.beat:Scheduler"
OTHER_BEAT: Final = (
    f"unless beat runs with -S {BEAT}, which sends the due time (say so in beat_scheduler)"
)
FUNCTION: Final = "as far as its function tells now: it may look at the clock"
_DUE: Final = datetime(2026, 1, 1, tzinfo=UTC)
Headers = Mapping[str, Any]


def call_facts(app: Any, inventory: Inventory) -> dict[str, CallFact]:
    """Facts by the id of each active schedule. Key functions of tasks are called.

    Raises ConfigurationError when the app's modules cannot be imported.
    """
    import_tasks(app)
    doubted = inventory.source == "beat" and app.conf.beat_scheduler != BEAT
    dated = inventory.source not in FOREIGN_BEATS

    @cache
    def fact(task: str, args: str, kwargs: str, options: str) -> CallFact:
        given = loads(options).get("headers") or {}
        call = partial(_fact, app, task, loads(args), loads(kwargs))
        found = call([{**given, **_firing(number)} for number in (1, 2)] if dated else [given] * 2)
        if doubted and not found.one_key:
            found = replace(call([given] * 2), doubt=OTHER_BEAT)
        return found

    active = (one for one in inventory.schedules if one.active)
    return {one.id: fact(one.task, one.args, one.kwargs, one.options) for one in active}


def _firing(number: int) -> Headers:
    """The headers of two firings in a row of one schedule."""
    due = _DUE + number * timedelta(days=1)
    return {SCHEDULE_HEADER: "1", DUE_HEADER: due.isoformat()}


def _fact(
    app: Any,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    headers: Sequence[Headers],
) -> CallFact:
    try:
        task = app.tasks[name]
    except NotRegistered:
        return CallFact(registered=False)
    if not isinstance(task, IdempotentTask):
        return CallFact()
    try:
        options = task.idempotency_options
        keys = {
            task.idempotency_call_key(args, kwargs, task_id=str(number), headers=sent).key
            for number, sent in enumerate(headers)
        }
    except Exception as error:  # a key function is the user's, and may raise anything
        return CallFact(idempotent=True, error=f"{type(error).__name__}: {error}")
    return CallFact(
        idempotent=options.enabled,
        one_key=options.enabled and len(keys) == 1,
        doubt=FUNCTION if options.rule.function is not None else "",
        ttl=options.ttl,
    )
