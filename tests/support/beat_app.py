"""A Celery app for the beat's tests: its tasks write each delivery and each piece of work down.

Its conf comes from APP_CONF (JSON); the ledger is the table `ledger` of the same database.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from functools import cache
from typing import Any

import psycopg
from celery import Celery
from celery.signals import after_task_publish, before_task_publish, task_prerun
from idemwatch.idempotency import IdempotentTask

LEDGER = """
CREATE TABLE ledger (
    what text NOT NULL, task text NOT NULL, task_id text NOT NULL, schedule text NOT NULL,
    due_at text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE gate (opened boolean NOT NULL DEFAULT true);
"""
WRITE = """
INSERT INTO ledger (what, task, task_id, schedule, due_at) VALUES (%s, %s, %s, %s, %s)
"""

_published = itertools.count(1)
app = Celery("beats", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    **json.loads(os.environ.get("APP_CONF", "{}")),
)


@cache
def _ledger(_pid: int) -> psycopg.Connection[Any]:
    return psycopg.connect(app.conf.idempotency_database_url, autocommit=True)


def write(what: str, request: Any) -> None:
    """Write down what happened to a message."""
    headers = request.headers or {}
    told = (headers.get("idempotency_schedule", ""), headers.get("idempotency_due_at", ""))
    _ledger(os.getpid()).execute(WRITE, (what, request.task, request.id, *told))


@task_prerun.connect  # type: ignore[untyped-decorator]
def _delivered(task: Any, **_: Any) -> None:
    write("delivered", task.request)


@before_task_publish.connect  # type: ignore[untyped-decorator]
@after_task_publish.connect  # type: ignore[untyped-decorator]
def _harm(**_: Any) -> None:
    """With the chance of `harm`, a publisher dies or freezes with a message in its hands."""
    if random.random() < app.conf.get("harm", 0.0):
        os.kill(os.getpid(), random.choice((signal.SIGKILL, signal.SIGSTOP)))


@after_task_publish.connect  # type: ignore[untyped-decorator]
def _freeze(**_: Any) -> None:
    """The publisher freezes with this message in its hands, counted by `freeze_at`."""
    if next(_published) == app.conf.get("freeze_at", 0):
        os.kill(os.getpid(), signal.SIGSTOP)


@app.task(name="beats.work", base=IdempotentTask, bind=True)  # type: ignore[untyped-decorator]
def work(self: Any, *_: Any, **__: Any) -> None:
    """Done once for each due time."""
    write("done", self.request)


@app.task(name="beats.gated", base=IdempotentTask, bind=True)  # type: ignore[untyped-decorator]
def gated(self: Any) -> None:
    """Runs until the test opens the gate."""
    write("begun", self.request)
    connection = _ledger(os.getpid())
    connection.execute("LISTEN gate")
    while connection.execute("SELECT 1 FROM gate WHERE NOT opened").fetchone():
        for _ in connection.notifies(timeout=60, stop_after=1):
            break
    write("done", self.request)


@app.task(name="beats.again", base=IdempotentTask, bind=True)  # type: ignore[untyped-decorator]
def again(self: Any) -> None:
    """Fails once, and is done by its retry."""
    write(f"key {self.claim.key}", self.request)
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    write("done", self.request)


@app.task(name="beats.plain", bind=True)  # type: ignore[untyped-decorator]
def plain(self: Any) -> None:
    """No IdempotentTask."""
    write("done", self.request)
