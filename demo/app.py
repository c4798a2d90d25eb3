"""The demo's Celery app: the facility application under trouble, and three small tasks beside it.

The small ones make one effect each, a row without any unique constraint, in one PostgreSQL
transaction with the record of its key. Trouble comes from outside the tasks, see trouble.py.
"""

from __future__ import annotations

from typing import Any, Final

from celery.signals import task_prerun
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.keys import FIRING_HEADERS, firing_of
from idemwatch.idempotency.redelivery import header
from idemwatch.idempotency.settings import load

from . import facility, trouble
from .celery_app import app
from .ledger import Journal, write_effect

__all__ = ["METER", "NOTIFY", "WARM", "app", "facility"]

NOTIFY: Final = "demo.send_notification"
METER: Final = "demo.read_meter"
WARM: Final = "demo.warm_cache"

journal = Journal(load().database_url)
trouble.install(app, journal)


@task_prerun.connect  # type: ignore[untyped-decorator]
def write_delivery(task: Any, **_: object) -> None:
    """Each delivery that reaches a task is written down, whatever then becomes of it."""
    redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
    journal.write_delivery(task.request.id, task.name, redelivered)


def make_effect(task: Any, work: str, result: str) -> Any:
    """The effect of `work`, once, and its result.

    What a beat sent is known by its schedule and due time instead.
    """
    work = firing_of(*(header(task.request, name) for name in FIRING_HEADERS)) or work
    with task.idempotency.transaction(f"effect:{work}") as tx:
        if not tx.duplicate:
            write_effect(tx.connection, work, task.request.id)
            tx.result = result
    return tx.result


# shared=False: the tests that import this module have apps of their own, which get no task of it.
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
