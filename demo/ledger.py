"""The ledger: what was published and what really happened, in tables that would show a double.

Invariants: no table of effects has a unique constraint, so an effect that happens twice is two
rows: in those of the facility application, in `mail`, what its mail server took, and in `effect`;
a piece of work stands in `work` before its first message is published, so none can be missing in
the count. The ledger's own tables stand in the demo's schema, which the URL's search_path names,
and are made by whichever process comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import psycopg
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.keys import firing_of
from idemwatch.scheduler.firing import utc_text

from .facility_settings import schema

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
CREATE TABLE IF NOT EXISTS mail (
    message_id text NOT NULL,
    subject text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS mail_message_id ON mail (message_id);
CREATE TABLE IF NOT EXISTS death (work text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS work (name text PRIMARY KEY, messages integer NOT NULL);
CREATE TABLE IF NOT EXISTS lane (number bigint GENERATED ALWAYS AS IDENTITY);
"""
FIRED: Final = """
SELECT schedule_id, due_at FROM schedule_firing WHERE outcome IN ('fired', 'late')
"""
EXPECT: Final = """
INSERT INTO work (name, messages) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET messages = work.messages + EXCLUDED.messages
"""
COUNTED: Final = """
SELECT (SELECT count(*) FROM work), (SELECT coalesce(sum(messages), 0) FROM work),
       (SELECT count(*) FROM schedule_firing WHERE outcome IN ('fired', 'late')),
       (SELECT count(*) FROM effect) + (SELECT count(*) FROM mail)
"""
MAIL: Final = "send_reminder_email"
FACILITY: Final = {
    "auto_close_jobs": ("job_closing", "job_id"),
    "ticket_escalation": ("ticket_escalation", "ticket_id"),
    "create_ppm_job": ("job", "recurring_job_id"),
    "create_scheduled_reports": ("report", "user_id"),
}
"""Where each task's effects stand, and which of the work's numbers with them."""


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
    """The side of the supervisor and of the traffic: makes the tables, writes work, counts.

    facility_schema: where the tables of the application are; as FACILITY_SCHEMA says unless told.
    """

    def __init__(self, database_url: str, facility_schema: str | None = None) -> None:
        self._facility = facility_schema or schema()
        self._connection = psycopg.connect(database_url, autocommit=True)
        create_tables(self._connection)

    def new_lane(self) -> int:
        """A number from 1 that no other traffic has."""
        row = self._connection.execute("INSERT INTO lane DEFAULT VALUES RETURNING number")
        return int(_only(row.fetchone())[0])

    def expect(self, works: Sequence[tuple[str, int]]) -> None:
        """Write down pieces of work and the messages of each, before they are published."""
        with self._connection.cursor() as cursor:
            cursor.executemany(EXPECT, works)

    def happened(self, works: Collection[str]) -> set[str]:
        """Which of these have had their effect."""
        asked = "SELECT DISTINCT work FROM effect WHERE work = ANY (%s)"
        found = {str(row[0]) for row in self._connection.execute(asked, (list(works),))}
        for task, (table, column) in {**FACILITY, MAIL: ("", "message_id")}.items():
            wanted = [name.partition(":")[2] for name in works if name.startswith(f"{task}:")]
            if wanted:
                found |= self._happened(task, table, column, wanted)
        return found

    def _happened(self, task: str, table: str, column: str, wanted: list[str]) -> set[str]:
        numbers = [int(one) for one in wanted] if table else wanted
        statement = f"SELECT DISTINCT {column} FROM {self._table(table)} WHERE {column} = ANY (%s)"  # noqa: S608
        rows = self._connection.execute(statement.encode(), (numbers,))
        return {f"{task}:{row[0]}" for row in rows}

    def _table(self, name: str) -> str:
        return f"{self._facility}.{name}" if name else "mail"

    def published(self) -> Published:
        """Numbers to show."""
        counted = _only(self._connection.execute(COUNTED).fetchone())
        facility = sum(self._counts(*where).total() for where in FACILITY.values())
        works, messages, fired, effects = map(int, counted)
        return Published(works, messages, fired, effects + facility)

    def expected(self) -> set[str]:
        """Every piece of work that must have its effect: of the traffic and of the beats."""
        works = {str(row[0]) for row in self._connection.execute("SELECT name FROM work")}
        fired = self._connection.execute(FIRED).fetchall()
        return works | {firing_of(str(schedule), utc_text(due)) for schedule, due in fired}

    def effects(self) -> dict[str, int]:
        """How often the effect of each piece of work happened."""
        rows = self._connection.execute("SELECT work, count(*) FROM effect GROUP BY work")
        found: dict[str, int] = dict(rows.fetchall())
        for task, (table, column) in FACILITY.items():
            counted = self._counts(table, column)
            found |= {f"{task}:{number}": count for number, count in counted.items()}
        return found | {f"{MAIL}:{one}": count for one, count in self.mails().items()}

    def mails(self) -> Counter[str]:
        """How often each mail was sent, by its Message-ID."""
        return self._counts("", "message_id")

    def _counts(self, table: str, column: str) -> Counter[Any]:
        statement = (
            f"SELECT {column}, count(*) FROM {self._table(table)} WHERE {column} IS NOT NULL"  # noqa: S608
            f" GROUP BY {column}"
        )
        return Counter(dict(self._connection.execute(statement.encode()).fetchall()))

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

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "_connection" in self.__dict__:
            self._connection.close()

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

    def write_mail(self, message_id: str, subject: str) -> None:
        """Write down that the mail server took a mail."""
        self._connection.execute(
            "INSERT INTO mail (message_id, subject) VALUES (%s, %s)", (message_id, subject)
        )

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
