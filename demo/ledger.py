"""The ledger: what was published and what really happened, in tables that would show a double.

Invariants: `effect` has no unique constraint and is never read by a task, so an effect that happens
twice is two rows; a piece of work stands in `work` before its first message is published, so none
can be missing in the count. The tables stand in the demo's own schema, which the URL's search_path
names, and are made by whichever process comes first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import psycopg
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.keys import firing_of
from idemwatch.scheduler.firing import utc_text

# A lock, since two that make a table at once are refused even with IF NOT EXISTS.
TABLES: Final = """
SELECT pg_advisory_xact_lock(hashtextextended('idemwatch.demo', 0));
CREATE TABLE IF NOT EXISTS effect (
    work text NOT NULL,
    task_id text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS effect_work ON effect (work);
CREATE TABLE IF NOT EXISTS delivery (
    task_id text NOT NULL,
    task text NOT NULL,
    redelivered boolean NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS delivery_redelivered ON delivery (task_id) WHERE redelivered;
CREATE TABLE IF NOT EXISTS death (work text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS work (name text PRIMARY KEY, messages integer NOT NULL);
CREATE TABLE IF NOT EXISTS lane (number bigint GENERATED ALWAYS AS IDENTITY);
"""
FIRED: Final = """
SELECT schedule_id, due_at FROM schedule_firing WHERE outcome IN ('fired', 'late')
"""
COUNTED: Final = """
SELECT (SELECT count(*) FROM work), (SELECT coalesce(sum(messages), 0) FROM work),
       (SELECT count(*) FROM schedule_firing WHERE outcome IN ('fired', 'late')),
       (SELECT count(*) FROM effect)
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often the effects that were expected happened."""

    once: int
    twice: tuple[str, ...]
    lost: tuple[str, ...]


def judge(expected: Iterable[str], effects: Mapping[str, int]) -> Verdict:
    """Compare the pieces of work that were published with the effects that were counted.

    What happened twice is told whether it was expected or not.
    """
    works = set(expected)
    twice = tuple(sorted(work for work, count in effects.items() if count > 1))
    lost = tuple(sorted(work for work in works if not effects.get(work, 0)))
    once = sum(effects.get(work, 0) == 1 for work in works)
    return Verdict(once=once, twice=twice, lost=lost)


class Published(NamedTuple):
    """So far: pieces of work of the traffic, their messages, due times that beats fired, effects.

    A due time is one piece of work with one message.
    """

    traffic: int
    traffic_messages: int
    fired: int
    effects: int

    @property
    def works(self) -> int:
        """All pieces of work."""
        return self.traffic + self.fired

    @property
    def messages(self) -> int:
        """All messages."""
        return self.traffic_messages + self.fired


class Ledger:
    """The side of the supervisor and of the traffic: makes the tables, writes work, counts."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        create_tables(self._connection)

    def new_lane(self) -> int:
        """A number from 1 that no other traffic has."""
        row = self._connection.execute("INSERT INTO lane DEFAULT VALUES RETURNING number")
        return int(_only(row.fetchone())[0])

    def expect(self, works: Sequence[tuple[str, int]]) -> None:
        """Write down pieces of work and the messages of each, before they are published."""
        with self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO work (name, messages) VALUES (%s, %s)", works)

    def happened(self, works: Collection[str]) -> set[str]:
        """Which of these have had their effect."""
        asked = "SELECT DISTINCT work FROM effect WHERE work = ANY (%s)"
        return {str(row[0]) for row in self._connection.execute(asked, (list(works),))}

    def published(self) -> Published:
        """Numbers to show."""
        return Published(*map(int, _only(self._connection.execute(COUNTED).fetchone())))

    def expected(self) -> set[str]:
        """Every piece of work that must have its effect: of the traffic and of the beats."""
        works = {str(row[0]) for row in self._connection.execute("SELECT name FROM work")}
        fired = self._connection.execute(FIRED).fetchall()
        return works | {firing_of(str(schedule), utc_text(due)) for schedule, due in fired}

    def effects(self) -> dict[str, int]:
        """How often the effect of each piece of work happened."""
        rows = self._connection.execute("SELECT work, count(*) FROM effect GROUP BY work")
        return dict(rows.fetchall())

    def redelivered(self) -> int:
        """How many deliveries the broker had marked as not the first."""
        return self._count("SELECT count(*) FROM delivery WHERE redelivered")

    def deaths(self) -> int:
        """How many pool processes were killed."""
        return self._count("SELECT count(*) FROM death")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _count(self, statement: str) -> int:
        return int(_only(self._connection.execute(statement.encode()).fetchone())[0])


class Journal:
    """The tasks' side, outside their transactions. Connects at first use, so after the fork."""

    def __init__(self, database_url: str | None) -> None:
        self._database_url = database_url

    @cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        if self._database_url is None:
            raise ConfigurationError("idempotency_database_url", "is not set: run idemwatch.demo")
        connection = psycopg.connect(self._database_url, autocommit=True)
        create_tables(connection)
        return connection

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


def create_tables(connection: psycopg.Connection[Any]) -> None:
    """Make the tables that are not there."""
    with connection.transaction():
        connection.execute(TABLES)


def write_effect(connection: psycopg.Connection[Any], work: str, task_id: str) -> None:
    """The effect of `work`, in the transaction of `connection`."""
    connection.execute("INSERT INTO effect (work, task_id) VALUES (%s, %s)", (work, task_id))


def _only(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if row is None:
        raise AssertionError("PostgreSQL gave no row")
    return row
