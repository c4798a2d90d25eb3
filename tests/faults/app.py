"""The Celery app of the workers: tasks whose effects are written to the ledger.

Its conf comes from FAULTS_CONF (JSON). FAULTS_DISABLE names a rule to take out of this process.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from celery import Celery
from idemwatch.exporter.worker import install_signals
from idemwatch.idempotency import (
    AlreadyRunning,
    IdempotencyService,
    IdempotentTask,
    StoreUnavailable,
)
from idemwatch.idempotency.errors import LeaseLost

from .ledger import Ledger
from .plan import AUTHORITIES
from .rules import disable
from .witness import testify

CONF: Final[dict[str, Any]] = json.loads(os.environ.get("FAULTS_CONF", "{}"))

app = Celery("faults", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    **CONF.get("celery", {}),
)
install_signals()
ledger = Ledger(CONF.get("ledger", ""), CONF.get("round", ""), CONF.get("worker", ""))


STOOD_STILL_SECONDS: Final = 0.8


class Failed(Exception):
    """What a task that fails raises."""


def _work(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select([], [], [], min(left, 0.1))  # libfaketime breaks time.sleep


class Attempt:
    """One execution of a task, as it tells the ledger about itself."""

    def __init__(self, task: Any, key: str) -> None:
        self.task, self.key = task, key
        self.owner = str(task.claim.held.claim.owner)
        self.fence = int(task.claim.fence)
        self.id = str(task.request.id)

    @property
    def token(self) -> dict[str, Any]:
        """The result: who did it."""
        return {"key": self.key, "owner": self.owner, "fence": self.fence}

    def tell(self, kind: str, **data: Any) -> None:
        """One event."""
        ledger.write(kind, self.key, self.owner, self.id, fence=self.fence, **data)

    def check(self) -> None:
        """As one who wants to begin an effect asks: raises LeaseLost."""
        began = time.monotonic()
        self.task.claim.check()
        self.tell("check", began=began)


def _plain(attempt: Attempt, spec: dict[str, Any], *, last_check: bool) -> dict[str, Any]:
    attempt.check()
    attempt.tell("begin", attempt=attempt.task.request.retries)
    _work(spec["seconds"])
    if last_check and not spec.get("unchecked"):
        attempt.check()
    attempt.tell("end")
    return attempt.token


def plain(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Asks before each part of its effect."""
    return _plain(Attempt(self, key), spec, last_check=True)


def late(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Does not ask again before it completes."""
    return _plain(Attempt(self, key), spec, last_check=False)


def fenced(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Writes to two targets: one keeps the newest fence, one refuses a second effect."""
    attempt = Attempt(self, key)
    attempt.check()
    attempt.tell("begin")
    _work(spec["seconds"])
    taken = ledger.write_fenced(key, attempt.owner, attempt.fence)
    ledger.write_once(key, attempt.owner)
    attempt.tell("wrote", taken=taken)
    attempt.tell("end")
    return attempt.token


def unlucky(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Fails when it stood still meanwhile, or the first time, if it is told to."""
    attempt = Attempt(self, key)
    attempt.check()
    attempt.tell("begin")
    began = time.monotonic()
    _work(spec["seconds"])
    stood_still = time.monotonic() > began + spec["seconds"] + STOOD_STILL_SECONDS
    if stood_still or (spec.get("fails") and ledger.write_once(f"failed:{key}", attempt.owner)):
        attempt.tell("over")
        raise Failed(key)
    attempt.tell("end")
    return attempt.token


def retrying(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Retries before it does its effect."""
    attempt = Attempt(self, key)
    if self.request.retries < spec["retries"]:
        attempt.tell("tries")
        _work(spec["seconds"])
        raise self.retry(countdown=spec["countdown"], max_retries=50)
    return _plain(attempt, spec, last_check=True)


def failing(self: Any, key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Fails after its work."""
    attempt = Attempt(self, key)
    attempt.tell("begin")
    _work(spec["seconds"])
    attempt.tell("over")
    raise Failed(key)


def _key(task: Any, key: str, spec: dict[str, Any]) -> str:
    return key


KINDS: Final[tuple[Callable[..., Any], ...]] = (plain, late, fenced, unlucky, retrying, failing)
for _authority in AUTHORITIES:
    for _kind in KINDS:
        app.task(
            name=f"{_authority}.{_kind.__name__}",
            base=IdempotentTask,
            bind=True,
            shared=False,
            idempotency_authority=_authority,
            idempotency_key=_key,
        )(_kind)


def commit(self: Any, key: str, spec: dict[str, Any]) -> Any:
    """Its effect commits with its record; whatever goes wrong is tried again."""
    service = IdempotencyService.from_app(app)
    token = {"key": key, "owner": os.urandom(8).hex()}
    try:
        with service.transaction(key, lock_timeout=1.0) as tx:
            if not tx.duplicate:
                ledger.write("begin", key, token["owner"], self.request.id)
                tx.connection.execute(
                    "INSERT INTO faults_effect (key, token) VALUES (%s, %s)", (key, token["owner"])
                )
                _work(spec["seconds"])
                tx.result = token
            return tx.result
    except (AlreadyRunning, StoreUnavailable, LeaseLost, psycopg.Error) as error:
        raise self.retry(exc=error, countdown=0.3) from error


app.task(name="commit", bind=True, acks_late=True, reject_on_worker_lost=True, max_retries=None)(
    commit
)

if "worker" in CONF:
    testify(ledger, float(CONF["wall_minus_mono"]))
    if os.environ.get("FAULTS_DISABLE"):
        disable(os.environ["FAULTS_DISABLE"])
