"""The ledger of a play: tables that would show a double, in a PostgreSQL that is never harmed.

Invariants: an effect is a row without a unique constraint, but for those whose target refuses a
second one; a death stands here before anything is killed; a task never reads what it wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.rows import kwargs_row

from .simulate_history import Delivery, Effect, Execution, Killed, Process

T = TypeVar("T")
CONNECT_SECONDS: Final = 10
TABLES: Final = """
CREATE SCHEMA simulation;
CREATE TABLE simulation.delivery (
    work text NOT NULL, task_id text NOT NULL, worker text NOT NULL, pid integer NOT NULL,
    redelivered boolean NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE simulation.execution (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    work text NOT NULL, task_id text NOT NULL, worker text NOT NULL, pid integer NOT NULL,
    began timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended timestamptz, returned timestamptz, outcome text, lease_lost boolean NOT NULL DEFAULT false
);
CREATE TABLE simulation.effect (
    work text NOT NULL, execution bigint NOT NULL, guarded boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX effect_guarded ON simulation.effect (work) WHERE guarded;
CREATE TABLE simulation.refused (
    work text NOT NULL, execution bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE simulation.killed (
    worker text NOT NULL, pid integer, point text NOT NULL, work text UNIQUE,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
EFFECT: Final = """
INSERT INTO simulation.effect (work, execution, guarded) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
"""
_SECONDS: Final = "extract(epoch FROM {} - %(origin)s::timestamptz)::float8 AS {}"
_EXECUTIONS: Final = f"""
SELECT number, work, task_id, worker, pid, {_SECONDS.format("began", "began")},
       {_SECONDS.format("ended", "ended")}, {_SECONDS.format("returned", "returned")},
       outcome, lease_lost
FROM simulation.execution ORDER BY number
"""  # noqa: S608  constants
_DELIVERIES: Final = f"""
SELECT work, task_id, worker, pid, redelivered, {_SECONDS.format("at", "at")}
FROM simulation.delivery ORDER BY delivery.at
"""  # noqa: S608
_EFFECTS: Final = f"""
SELECT work, execution, {_SECONDS.format("at", "at")}, refused FROM (
    SELECT work, execution, at, false AS refused FROM simulation.effect
    UNION ALL SELECT work, execution, at, true FROM simulation.refused) AS tried
ORDER BY tried.at
"""  # noqa: S608
_KILLED: Final = f"""
SELECT worker, pid, point, work, {_SECONDS.format("at", "at")} FROM simulation.killed
ORDER BY killed.at
"""  # noqa: S608


class Events(NamedTuple):
    """All that was written down."""

    deliveries: tuple[Delivery, ...]
    executions: tuple[Execution, ...]
    effects: tuple[Effect, ...]
    killed: tuple[Killed, ...]


class Ledger:
    """The simulator's side. Makes the tables; `origin` is the time that all others count from."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        self._connection.execute(TABLES)
        self._origin: Any = None

    def begin(self) -> None:
        """Publishing begins now."""
        self._origin = self._connection.execute("SELECT clock_timestamp()").fetchone()[0]  # type: ignore[index]

    def kill(self, worker: str, pid: int | None, point: str) -> None:
        """Write down what is killed next."""
        write_death(self._connection, worker, pid, point)

    def busy(self, worker: str) -> set[int]:
        """The processes of a worker that run a task."""
        asked = "SELECT pid FROM simulation.execution WHERE worker = %s AND returned IS NULL"
        return {int(row[0]) for row in self._connection.execute(asked, (worker,))}

    def events(self) -> Events:
        """Everything, in the order of its time."""
        return Events(
            self._read(_DELIVERIES, _with_process(Delivery)),
            self._read(_EXECUTIONS, _with_process(Execution)),
            self._read(_EFFECTS, Effect),
            self._read(_KILLED, Killed),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self, statement: str, make: Callable[..., T]) -> tuple[T, ...]:
        with self._connection.cursor(row_factory=kwargs_row(make)) as cursor:
            return tuple(cursor.execute(statement.encode(), {"origin": self._origin}))


def _with_process(make: Callable[..., T]) -> Callable[..., T]:
    """For rows in which a worker and a pid stand for the process."""

    def row(worker: str, pid: int, **given: Any) -> T:
        return make(process=Process(worker, pid), **given)

    return row


class Journal:
    """The side of one process of a pool. Connects at first use, so after the fork."""

    def __init__(self, url: str, worker: str) -> None:
        self._url, self._worker = url, worker
        self._connected: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """To the PostgreSQL that is never harmed."""
        if self._connected is None:
            self._connected = psycopg.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_SECONDS
            )
        return self._connected

    def deliver(self, work: str, task_id: str, redelivered: bool) -> None:
        """A message has come."""
        self.connection.execute(
            "INSERT INTO simulation.delivery (work, task_id, worker, pid, redelivered)"
            " VALUES (%s, %s, %s, %s, %s)",
            (work, task_id, self._worker, os.getpid(), redelivered),
        )

    def begin(self, work: str, task_id: str) -> int:
        """The body begins; the number of this execution."""
        row = self.connection.execute(
            "INSERT INTO simulation.execution (work, task_id, worker, pid)"
            " VALUES (%s, %s, %s, %s) RETURNING number",
            (work, task_id, self._worker, os.getpid()),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def end(self, number: int, outcome: str, lease_lost: bool) -> None:
        """The body has come to an end."""
        self.connection.execute(
            "UPDATE simulation.execution SET ended = clock_timestamp(), outcome = %s,"
            " lease_lost = %s WHERE number = %s",
            (outcome, lease_lost, number),
        )

    def returned(self, number: int) -> None:
        """The task has: what there is to record is recorded."""
        self.connection.execute(
            "UPDATE simulation.execution SET returned = clock_timestamp() WHERE number = %s",
            (number,),
        )

    def dies(self, work: str, pid: int | None, point: str) -> bool:
        """Write down that this process, or its whole worker, dies; False if one did for it."""
        return write_death(self.connection, self._worker, pid, point, work)


def write_death(
    connection: psycopg.Connection[Any],
    worker: str,
    pid: int | None,
    point: str,
    work: str | None = None,
) -> bool:
    """Write a death down; False if there was one for this work."""
    written = connection.execute(
        "INSERT INTO simulation.killed (worker, pid, point, work) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (worker, pid, point, work),
    )
    return written.rowcount == 1


def make_effect(connection: psycopg.Connection[Any], work: str, execution: int) -> None:
    """An effect that nothing but its transaction guards."""
    connection.execute(EFFECT, (work, execution, False))


def make_guarded_effect(connection: psycopg.Connection[Any], work: str, execution: int) -> None:
    """An effect whose target refuses a second one with the same key, and says so."""
    if connection.execute(EFFECT, (work, execution, True)).rowcount == 0:
        connection.execute(
            "INSERT INTO simulation.refused (work, execution) VALUES (%s, %s)", (work, execution)
        )
