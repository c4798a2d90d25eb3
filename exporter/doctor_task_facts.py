"""What a Celery app says of its tasks and of its broker, as plain values for the doctor's checks.

Invariant: nothing is asked of a server, and a task whose options are wrong is told, not raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from celery.backends.base import DisabledBackend
from idemwatch.idempotency.errors import IdempotencyError
from idemwatch.idempotency.task import IdempotentTask

VISIBILITY_SECONDS: Final[Mapping[str, float]] = {"redis": 3600.0, "sqs": 1800.0}
"""Of the brokers that deliver again what is not acknowledged in time: what kombu takes for it."""


MOST_RETRIES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """One task. Durations in seconds; None: none is set."""

    name: str
    idempotent: bool = False
    enabled: bool = True
    acks_late: bool = False
    reject_on_worker_lost: bool = False
    acks_on_failure: bool = True
    ignore_result: bool = False
    on_duplicate: str = "replay"
    authority: str = "postgres"
    ttl: float = 0.0
    lease: float = 0.0
    max_hold: float | None = None
    time_limit: float | None = None
    longest_delay: float = 0.0
    """The longest wait before a retry."""
    retry_span: float = 0.0
    """From the first attempt to the last, without the runs themselves."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFacts:
    """An app. `visibility`: after so many seconds its broker delivers again; None: never."""

    tasks: tuple[TaskFacts, ...] = ()
    transport: str = ""
    visibility: float | None = None
    visibility_given: bool = False
    prefetch: int = 4
    always_eager: bool = False
    stores_results: bool = True
    beat_entries: int = 0
    authorities: frozenset[str] = field(default_factory=frozenset)


def app_facts(app: Any) -> AppFacts:
    """What the app says. Its modules must be imported."""
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    tasks = tuple(task_facts(app.tasks[name]) for name in names)
    transport = _transport(app)
    options = app.conf.broker_transport_options or {}
    usual = VISIBILITY_SECONDS.get(transport)
    given = options.get("visibility_timeout")
    return AppFacts(
        tasks=tasks,
        transport=transport,
        visibility=None if usual is None else float(given or usual),
        visibility_given=bool(given),
        prefetch=int(app.conf.worker_prefetch_multiplier or 0),
        always_eager=bool(app.conf.task_always_eager),
        stores_results=not isinstance(app.backend, DisabledBackend),
        beat_entries=len(app.conf.beat_schedule or {}),
        authorities=frozenset(one.authority for one in tasks if one.idempotent and one.enabled),
    )


def _transport(app: Any) -> str:
    """The driver's name: redis also for rediss, sentinel and valkey; "" when it is not known."""
    with suppress(Exception), app.connection_for_read() as connection:  # any transport's module
        return str(connection.transport.driver_type)
    return ""


def task_facts(task: Any) -> TaskFacts:
    """What one task says of itself and by the app's defaults."""
    limit = task.time_limit or task.app.conf.task_time_limit
    delay, span = retry_delays(task)
    plain: dict[str, Any] = {
        "name": task.name,
        "acks_late": bool(task.acks_late),
        "reject_on_worker_lost": bool(task.reject_on_worker_lost),
        "acks_on_failure": task.acks_on_failure_or_timeout is not False,
        "ignore_result": bool(task.ignore_result),
        "time_limit": float(limit) if limit else None,
        "longest_delay": delay,
        "retry_span": span,
    }
    if not isinstance(task, IdempotentTask):
        return TaskFacts(**plain)
    try:
        options = task.idempotency_options
    except IdempotencyError as error:
        return TaskFacts(**plain, idempotent=True, problem=str(error))
    hold = options.max_hold
    return TaskFacts(
        **plain,
        idempotent=True,
        enabled=options.enabled,
        on_duplicate=options.on_duplicate,
        authority=options.authority,
        ttl=options.ttl.total_seconds(),
        lease=options.lease.total_seconds(),
        max_hold=None if hold is None else hold.total_seconds(),
    )


def retry_delays(task: Any) -> tuple[float, float]:
    """The longest delay before a retry and the sum of all, in seconds; of a task that retries by
    itself (autoretry_for), else 0: `retry(countdown=...)` in its code is not seen. Without an end
    of retries their sum is 0: it means nothing."""
    retries = (getattr(task, "retry_kwargs", None) or {}).get("max_retries", task.max_retries)
    if not getattr(task, "autoretry_for", ()) or retries == 0:
        return 0.0, 0.0
    number = MOST_RETRIES if retries is None else min(int(retries), MOST_RETRIES)
    backoff = float(getattr(task, "retry_backoff", False) or 0)
    most = float(getattr(task, "retry_backoff_max", 600))
    flat = float(task.default_retry_delay or 0)
    delays = [min(backoff * 2.0**n, most) if backoff else flat for n in range(number)]
    return max(delays), 0.0 if retries is None else sum(delays)
