"""The sample tasks of the simulation, idempotent or plain: effects as users have them.

Invariant: but for the base class and the record beside an effect, both are the same, with the
settings that plain Celery fares best with: late acknowledgement, a lost worker's messages come
again, one message is taken at a time, and an error of the database is retried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
from celery import Celery
from idemwatch.idempotency import IdempotentTask

from .simulate_harness import CURRENT
from .simulate_history import Kind
from .simulate_ledger import CONNECT_SECONDS, Journal, make_effect, make_guarded_effect

PREFIX: Final = "simulation."
KINDS: Final[Mapping[str, Kind]] = {
    f"{PREFIX}pay_invoice": Kind.TRANSACTION,
    f"{PREFIX}order_part": Kind.GUARDED,
    f"{PREFIX}send_reminder": Kind.EXTERNAL,
    f"{PREFIX}read_meter": Kind.EXTERNAL,
}
RETRY_SECONDS: Final = 0.5
MAX_CRASHES: Final = 50
"""Enough for a plan in which everything dies: a poisoned key would wait for an operator."""


USUAL: Final[Mapping[str, Any]] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "autoretry_for": (psycopg.OperationalError,),
    "retry_backoff": False,
    "default_retry_delay": RETRY_SECONDS,
    "max_retries": 100,
}
"""The options of all tasks, on either side."""


class Database:
    """The application's own PostgreSQL, which may be away; a broken connection is made again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """A connection that was not broken when it was last used."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_SECONDS
            )
        return self._connection


def make_app(journal: Journal, database: Database, *, protected: bool) -> Celery:
    """The application, with idempotent tasks or with plain ones."""
    app = Celery("simulation")
    bodies = {
        "pay_invoice": _paying(database, protected=protected),
        "order_part": _ordering(journal),
        "send_reminder": _reminding(journal),
        "read_meter": _reminding(journal),
    }
    for name, body in bodies.items():
        options = _protection(name) if protected else {}
        app.task(name=f"{PREFIX}{name}", bind=True, shared=False, **USUAL, **options)(body)
    return app


def _protection(name: str) -> dict[str, Any]:
    """All that is different under idemwatch."""
    return {
        "base": IdempotentTask,
        "idempotency_max_crashes": MAX_CRASHES,
        "idempotency_authority": "redis" if name == "read_meter" else "postgres",
    }


def _paying(database: Database, *, protected: bool) -> Callable[..., None]:
    def pay_invoice(self: Any, number: int) -> None:
        if not protected:
            connection = database.connection
            with connection.transaction():
                make_effect(connection, *CURRENT.get())
            return
        with self.idempotency.transaction(f"invoice:{number}") as tx:
            if not tx.duplicate:
                make_effect(tx.connection, *CURRENT.get())

    return pay_invoice


def _ordering(journal: Journal) -> Callable[..., None]:
    def order_part(self: Any, number: int) -> None:  # noqa: ARG001
        make_guarded_effect(journal.connection, *CURRENT.get())

    return order_part


def _reminding(journal: Journal) -> Callable[..., None]:
    def send_reminder(self: Any, number: int) -> None:  # noqa: ARG001
        make_effect(journal.connection, *CURRENT.get())

    return send_reminder
