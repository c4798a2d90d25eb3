"""Pieces of work whose effect is a row in the table `effect`, beside their record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
from idemwatch.idempotency import IdempotencyService
from idemwatch.idempotency.service import Transaction
from psycopg import IsolationLevel

from support.stores import DEADLINE_SECONDS, KEY

Connection = psycopg.Connection[Any]


def effects(watcher: Connection) -> list[str]:
    return [who for (who,) in watcher.execute("SELECT who FROM effect ORDER BY who")]


def records(watcher: Connection) -> list[str]:
    return [state for (state,) in watcher.execute("SELECT state FROM idempotency_record")]


def act(tx: Transaction, who: str = "first") -> None:
    """The effect and the result of a piece of work, unless it is a duplicate."""
    if not tx.duplicate:
        tx.connection.execute("INSERT INTO effect VALUES (%s)", [who])
        tx.result = who


def do(service: IdempotencyService, who: str, **options: Any) -> Any:
    """Do the work, and return its result."""
    with service.transaction(KEY, **options) as tx:
        act(tx, who)
    return tx.result


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Work in another thread; the answer is a call that waits for its result."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield lambda: future.result(DEADLINE_SECONDS)


def waits_for_lock(watcher: Connection) -> bool:
    """Whether a claim waits for another's transaction."""
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    ).fetchone()
    return row is not None and row[0] > 0


def strict(connection: Connection) -> Connection:
    """The connection in a new transaction, whose snapshot is taken now."""
    connection.rollback()
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT count(*) FROM effect")
    return connection
