"""The Celery app of the soak: every kind of work that a worker knows, each with one effect.

SOAK_CONF (JSON) is its conf. An effect is a row of `effect`, which nothing makes unique: a second
one is seen. Within a lock, a counter is read and written in two statements: without the lock,
counts would be lost.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import psycopg
from celery import Celery
from idemwatch.exporter import serve_worker_metrics
from idemwatch.idempotency import AlreadyRunning, IdempotencyService, IdempotentTask
from idemwatch.idempotency.app_settings import settings_of

LOCKS: Final = 4
LOCK_SECONDS: Final = 60.0
RECYCLED_AFTER: Final = 300
"""Tasks of a child."""

app = Celery("soak", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_retry_delay=0,
    task_acks_late=True,
    worker_max_tasks_per_child=RECYCLED_AFTER,
    **json.loads(os.environ.get("SOAK_CONF", "{}")),
)
serve_worker_metrics(app)
for _name in ("celery.app.trace", "celery.worker.strategy"):  # two lines for each message
    logging.getLogger(_name).setLevel(logging.CRITICAL)
_local = threading.local()


def ledger() -> psycopg.Connection[Any]:
    """The connection of this thread to where effects are written down."""
    known: psycopg.Connection[Any] | None = getattr(_local, "connection", None)
    if known is None:
        known = _local.connection = psycopg.connect(app.conf.ledger_url, autocommit=True)
        known.execute("SET synchronous_commit = off")
    return known


def effect(kind: str, number: int) -> int:
    """What the work is for."""
    ledger().execute("INSERT INTO effect VALUES (%s, %s)", (kind, number))
    return number


def service(authority: str) -> IdempotencyService:
    """The service whose locks and claims are decided there."""
    return IdempotencyService(replace(settings_of(app), authority=authority))


def protected(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """An idempotent, bound task `soak.<name>`."""
    made: Callable[[Callable[..., Any]], Any] = app.task(
        name=f"soak.{name}", base=IdempotentTask, bind=True, shared=False, **options
    )
    return made


@protected("postgres", idempotency_authority="postgres")
def postgres(self: Any, number: int) -> int:
    return effect("postgres", number)


@protected("redis", idempotency_authority="redis")
def redis(self: Any, number: int) -> int:
    return effect("redis", number)


@protected("retries", max_retries=3)
def retries(self: Any, number: int) -> int:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return effect("retries", number)


@protected("fails", idempotency_authority="redis", max_retries=0)
def fails(self: Any, number: int) -> None:
    effect("fails", number)
    raise ValueError("as the soak says")


@protected("locks", idempotency_authority="redis")
def locks(self: Any, number: int) -> int:
    authority = "redis" if number % 2 else "postgres"
    name = f"counter:{number % LOCKS}"
    with service(authority).lock(name, timeout=LOCK_SECONDS):
        row = ledger().execute("SELECT value FROM counter WHERE name = %s", (name,)).fetchone()
        assert row is not None
        ledger().execute("UPDATE counter SET value = %s WHERE name = %s", (row[0] + 1, name))
    return effect("locks", number)


@app.task(name="soak.transaction", bind=True, shared=False, max_retries=None)  # type: ignore[untyped-decorator]
def transaction(self: Any, number: int) -> Any:
    try:
        with service("postgres").transaction(f"transaction:{number}") as tx:
            if not tx.duplicate:
                row = ("transaction", number)
                tx.connection.execute("INSERT INTO effect VALUES (%s, %s)", row)
    except AlreadyRunning as error:
        raise self.retry(countdown=1) from error


@app.task(name="soak.once", bind=True, shared=False, max_retries=None)  # type: ignore[untyped-decorator]
def once(self: Any, number: int) -> Any:
    try:
        with service("postgres").once(f"once:{number}") as work:
            if not work.duplicate:
                work.result = effect("once", number)
    except AlreadyRunning as error:
        raise self.retry(countdown=1) from error
