"""The ledger: what really happened, in tables that would show a double.

Invariant: `effect` has no unique constraint and is never read by a task, so an effect that happens
twice is two rows. The tables stand in the demo's own schema, which the URL's search_path names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from idemwatch.idempotency.errors import ConfigurationError

TABLES = """
CREATE TABLE effect (
    work text NOT NULL,
    task_id text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE delivery (
    task_id text NOT NULL,
    task text NOT NULL,
    redelivered boolean NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX delivery_redelivered ON delivery (task_id) WHERE redelivered;
CREATE TABLE death (work text PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often the effects that were expected happened."""

    once: int
    twice: tuple[str, ...]
    lost: tuple[str, ...]


def judge(expected: Iterable[str], effects: Mapping[str, int]) -> Verdict:
    """Compare the pieces of work that were published with the effects that were counted."""
    works = sorted(expected)
    twice = tuple(work for work in works if effects.get(work, 0) > 1)
    lost = tuple(work for work in works if not effects.get(work, 0))
    return Verdict(once=len(works) - len(twice) - len(lost), twice=twice, lost=lost)


class Ledger:
    """The supervisor's side: makes the tables and counts."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)

    def create(self) -> None:
        """Make the tables."""
        self._connection.execute(TABLES)

    def effects(self) -> dict[str, int]:
        """How often the effect of each piece of work happened."""
        rows = self._connection.execute("SELECT work, count(*) FROM effect GROUP BY work")
        return dict(rows.fetchall())

    def redelivered(self) -> int:
        """How many deliveries the broker had marked as not the first."""
        row = self._connection.execute("SELECT count(*) FROM delivery WHERE redelivered").fetchone()
        return int(row[0]) if row else 0

    def deaths(self) -> int:
        """How many pool processes were killed."""
        row = self._connection.execute("SELECT count(*) FROM death").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Journal:
    """The tasks' side, outside their transactions. Connects at first use, so after the fork."""

    def __init__(self, database_url: str | None) -> None:
        self._database_url = database_url

    @cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        if self._database_url is None:
            raise ConfigurationError("idempotency_database_url", "is not set: run idemwatch.demo")
        return psycopg.connect(self._database_url, autocommit=True)

    def write_delivery(self, task_id: str, task: str, redelivered: bool) -> None:
        """Write down that a message reached its task."""
        self._connection.execute(
            "INSERT INTO delivery (task_id, task, redelivered) VALUES (%s, %s, %s)",
            (task_id, task, redelivered),
        )

    def was_redelivered(self, task_id: str) -> bool:
        """Whether a message of this id came more than once."""
        found = self._connection.execute(
            "SELECT FROM delivery WHERE task_id = %s AND redelivered LIMIT 1", (task_id,)
        )
        return found.rowcount == 1

    def first_death(self, work: str) -> bool:
        """Write down that the process of `work` dies; False if one did before."""
        done = self._connection.execute(
            "INSERT INTO death (work) VALUES (%s) ON CONFLICT DO NOTHING", (work,)
        )
        return done.rowcount == 1


def write_effect(connection: psycopg.Connection[Any], work: str, task_id: str) -> None:
    """The effect of `work`, in the transaction of `connection`."""
    connection.execute("INSERT INTO effect (work, task_id) VALUES (%s, %s)", (work, task_id))
