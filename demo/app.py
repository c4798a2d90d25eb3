"""The demo's Celery app: tasks of facility management, each made to meet its duplicates.

Every task makes one effect, a row without any unique constraint, in one PostgreSQL transaction
with the record of its key. The servers come by the settings IDEMWATCH_* and CELERY_BROKER_URL (else
the broker is the same Redis); everything in them bears the namespace, so that the demo can share a
Redis with others.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery import Celery
from celery.signals import task_prerun
from idemwatch.exporter.worker import serve_worker_metrics
from idemwatch.idempotency import (
    IdempotentTask,
    Settings,
    autoclose_key,
    ppm_job_key,
    report_generation_key,
    ticket_escalation_key,
)
from idemwatch.idempotency.keys import FIRING_HEADERS, firing_of
from idemwatch.idempotency.redelivery import header
from idemwatch.idempotency.settings import load

from .ledger import Journal, write_effect

VISIBILITY: Final = "DEMO_VISIBILITY_SECONDS"
"""How long the broker waits for a message to be acknowledged. Short, it makes duplicates."""
SHORT_VISIBILITY_SECONDS: Final = 2
REDELIVERY_DEADLINE_SECONDS: Final = 60.0
CLOSE: Final = "demo.auto_close_job"
ESCALATE: Final = "demo.escalate_ticket"
REPORT: Final = "demo.generate_report"
DISPATCH: Final = "demo.create_ppm_job"
NOTIFY: Final = "demo.send_notification"
METER: Final = "demo.read_meter"
WARM: Final = "demo.warm_cache"


def configure(app: Celery, settings: Settings) -> None:
    """Point `app` at the servers of `settings`; all keys in Redis begin with the namespace.

    Celery itself lets CELERY_BROKER_URL win over what is set here.
    """
    app.conf.update(
        broker_url=(settings.redis_url or "").replace("unix://", "redis+socket://", 1) or None,
        broker_transport_options={
            "global_keyprefix": f"{settings.namespace}:",
            # Without the last two a redelivery comes only with every hundredth turn of the loop.
            "visibility_timeout": float(os.environ.get(VISIBILITY, SHORT_VISIBILITY_SECONDS)),
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        broker_connection_retry_on_startup=True,
        task_default_queue=settings.namespace,
        task_ignore_result=True,
        worker_prefetch_multiplier=4,
    )


app = Celery("demo")
configure(app, load())
serve_worker_metrics(app)
journal = Journal(load().database_url)


@task_prerun.connect  # type: ignore[untyped-decorator]
def write_delivery(task: Any, **_: object) -> None:
    """Each delivery that reaches a task is written down, whatever then becomes of it."""
    redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
    journal.write_delivery(task.request.id, task.name, redelivered)


class PagerUnreachable(Exception):
    """The pager did not answer the first time."""


def make_effect(
    task: Any, work: str, result: str, before_commit: Callable[[], None] | None = None
) -> Any:
    """The effect of `work`, once, and its result; `before_commit` is where things go wrong.

    What a beat sent is known by its schedule and due time instead.
    """
    work = firing_of(*(header(task.request, name) for name in FIRING_HEADERS)) or work
    with task.idempotency.transaction(f"effect:{work}") as tx:
        if not tx.duplicate:
            write_effect(tx.connection, work, task.request.id)
            if before_commit is not None:
                before_commit()
            tx.result = result
    return tx.result


# shared=False: the tests that import this module have apps of their own, which get no task of it.
@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name=CLOSE,
    idempotency_key=lambda _task, job_id, day: autoclose_key(job_id, day),
)
def auto_close_job(self: Any, job_id: int, day: str) -> Any:
    """Quick work; its publisher sends it twice."""
    return make_effect(self, f"{CLOSE}:{job_id}", f"closed on {day}")


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name=ESCALATE,
    max_retries=3,
    idempotency_key=lambda _task, ticket_id, level, day: ticket_escalation_key(
        ticket_id, level, day
    ),
)
def escalate_ticket(self: Any, ticket_id: int, level: int, day: str) -> Any:
    """Its first attempt fails after the effect and before the commit, and is retried."""
    try:
        told = f"level {level} told on {day}"
        return make_effect(self, f"{ESCALATE}:{ticket_id}", told, lambda: call_pager(self))
    except PagerUnreachable as error:
        raise self.retry(exc=error, countdown=0.1) from error


def call_pager(task: Any) -> None:
    """Raise PagerUnreachable in a first attempt."""
    if not task.request.retries:
        raise PagerUnreachable


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name=REPORT,
    idempotency_key=lambda _task, report_id, user_id: report_generation_key(
        "assets", {"report": report_id}, user_id
    ),
)
def generate_report(self: Any, report_id: int, user_id: int) -> Any:
    """Takes longer than the broker waits: as long as it takes to be delivered once more."""
    pages, pause = 0, threading.Event()
    deadline = time.monotonic() + REDELIVERY_DEADLINE_SECONDS
    while not journal.was_redelivered(self.request.id) and time.monotonic() < deadline:
        pause.wait(0.1)
        self.claim.check()
        pages += 1
    return make_effect(self, f"{REPORT}:{report_id}", f"{pages} pages for user {user_id}")


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name=DISPATCH,
    idempotency_key=lambda _task, schedule_id, day, _dies: ppm_job_key(schedule_id, day),
)
def create_ppm_job(self: Any, schedule_id: int, day: str, dies: str) -> Any:
    """Its process is killed in the first attempt, `before` its effect's commit or `after` it."""
    work = f"{DISPATCH}:{schedule_id}"
    before_commit = partial(die_once, work) if dies == "before" else None
    result = make_effect(self, work, f"planned for {day}", before_commit)
    if dies == "after":
        die_once(work)
    return result


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask, bind=True, shared=False, name=NOTIFY, idempotency_scope="user"
)
def send_notification(self: Any, user_id: int, number: int) -> Any:
    """Once for each user: the scope is theirs."""
    return make_effect(self, f"{NOTIFY}:{number}", f"user {user_id} was told")


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask,
    bind=True,
    shared=False,
    name=METER,
    idempotency_scope="device",
    idempotency_authority="redis",
)
def read_meter(self: Any, device_id: str, number: int) -> Any:
    """Small and frequent, so Redis decides; one at a time reads a device."""
    with self.idempotency.lock(f"meter:{device_id}"):
        return make_effect(self, f"{METER}:{number}", f"reading {number} of {device_id}")


@app.task(  # type: ignore[untyped-decorator]
    base=IdempotentTask, shared=False, name=WARM, idempotency_enabled=False
)
def warm_cache() -> None:
    """Harmless to repeat, so its protection is off, and metrics and boards say so."""


def die_once(work: str) -> None:
    """SIGKILL to this process, if it is the first time for `work`."""
    if journal.first_death(work):
        os.kill(os.getpid(), signal.SIGKILL)
