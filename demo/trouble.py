"""Trouble, brought to the facility tasks from outside, as a message's header asks for it.

A process is killed before or after the commit of its effect, an attempt fails after its effect and
before the commit, a task takes longer than the broker waits. The tasks know nothing of it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Final

from celery import Celery, current_task
from idemwatch.idempotency.redelivery import header

from . import facility_store
from .ledger import Journal

HEADER: Final = "demo_trouble"
DIES_BEFORE: Final = "dies-before-commit"
DIES_AFTER: Final = "dies-after-commit"
FAILS: Final = "fails-before-commit"
SLOW: Final = "outlasts-the-broker"
TASKS: Final = (
    *("auto_close_jobs", "ticket_escalation", "create_ppm_job", "create_scheduled_reports"),
    "send_reminder_email",
)
EFFECTS: Final = ("close_job", "escalate", "add_job", "add_report")
REDELIVERY_DEADLINE_SECONDS: Final = 60.0

Call = Callable[..., Any]


class PagerUnreachable(Exception):
    """The pager did not answer the first time."""


def install(app: Celery, journal: Journal) -> None:
    """Put the trouble around the tasks, once they are all there, and into their effects."""
    for name in EFFECTS:
        effect = getattr(facility_store, name)
        setattr(facility_store, name, _uncommitted(effect, journal))
    app.on_after_finalize.connect(partial(_surround, journal), weak=False)


def _surround(journal: Journal, sender: Celery, **_: object) -> None:
    for name in TASKS:
        task = sender.tasks[name]
        task.run = _troubled(task, task.run, journal)


def _troubled(task: Any, run: Call, journal: Journal) -> Call:
    @wraps(run)
    def troubled(*args: Any, **kwargs: Any) -> Any:
        asked = header(task.request, HEADER)
        if asked == SLOW:
            _outlast_the_broker(task, journal)
        result = run(*args, **kwargs)
        if asked == DIES_AFTER:
            die_once(task, journal)
        return result

    return troubled


def _uncommitted(effect: Call, journal: Journal) -> Call:
    @wraps(effect)
    def made(*args: Any, **kwargs: Any) -> Any:
        result = effect(*args, **kwargs)
        asked = header(current_task.request, HEADER) if current_task else ""
        if asked == DIES_BEFORE:
            die_once(current_task, journal)
        if asked == FAILS and not current_task.request.retries:
            raise current_task.retry(exc=PagerUnreachable(), countdown=0.1)
        return result

    return made


def _outlast_the_broker(task: Any, journal: Journal) -> None:
    """As long as it takes to be delivered once more."""
    deadline, pause = time.monotonic() + REDELIVERY_DEADLINE_SECONDS, threading.Event()
    while not journal.was_redelivered(task.request.id) and time.monotonic() < deadline:
        pause.wait(0.1)
        task.claim.check()


def die_once(task: Any, journal: Journal) -> None:
    """SIGKILL to this process, if it is the first time for this piece of work."""
    if journal.first_death(task.claim.key):
        os.kill(os.getpid(), signal.SIGKILL)
