"""What the doctor reads in PostgreSQL: one short connection a check, facts out.

Invariant: it only reads, in transactions that say so, and no statement runs longer than a few
seconds. An error names the server's host at most, never a password.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from idemwatch.idempotency.answer_guard import AnswerGuard
from idemwatch.idempotency.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from idemwatch.idempotency.postgres_link import check_schema, unavailable
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege

Connection = psycopg.Connection[Any]

CONNECT_SECONDS: Final = 3
STATEMENT_SECONDS: Final = 5
LATE_HOURS: Final = 24
MOST_LATE: Final = 10_000
LATEST_RUNS: Final = 200
MOST_TASKS: Final = 1000

WORKER_RIGHTS: Final = {
    "idempotency_record": "SELECT,INSERT,UPDATE,DELETE",
    "endpoint_stats": "SELECT,INSERT,UPDATE",
    "endpoint_bucket": "SELECT,INSERT,UPDATE",
    "idemwatch_alembic_version": "SELECT",
}
"""What a worker does with which table."""
BEAT_RIGHTS: Final = {
    "schedule": "SELECT,INSERT,UPDATE",
    "schedule_firing": "SELECT,INSERT,UPDATE",
    "schedule_beat": "SELECT,INSERT,UPDATE,DELETE",
}
MIGRATED: Final = "SELECT to_regclass('idempotency_record') IS NOT NULL"
ROLE: Final = """
SELECT rolname, rolsuper, rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
       pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean
  FROM pg_roles WHERE rolname = current_user
"""
# By oid: a table that is not there, or in a schema that may not be used, has no rights.
RIGHTS: Final = """
SELECT w.name, r.privilege, coalesce(has_table_privilege(c.oid, r.privilege), false)
  FROM unnest(%(names)s::text[], %(rights)s::text[]) AS w (name, rights)
  LEFT JOIN pg_class AS c ON c.oid = to_regclass(w.name)
 CROSS JOIN LATERAL unnest(string_to_array(w.rights, ',')) AS r (privilege)
"""
OWNED: Final = """
SELECT c.relname FROM unnest(%(names)s::text[]) AS w (name)
  JOIN pg_class AS c ON c.oid = to_regclass(w.name)
  JOIN pg_roles AS r ON r.oid = c.relowner AND r.rolname = current_user
 ORDER BY 1
"""
CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
POISONED: Final = """
SELECT count(*) FROM idempotency_record WHERE state = 'poisoned' AND starts_with(key, %(head)s)
"""
LATE: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM idempotency_record
     WHERE expires_at <= statement_timestamp() - make_interval(hours => %(hours)s)
       AND state <> 'poisoned' LIMIT %(most)s) AS late
"""
SCHEDULES: Final = """
SELECT (SELECT count(*) FROM schedule WHERE status IN ('PENDING', 'IN_PROGRESS')),
       (SELECT count(*) FROM schedule_beat
         WHERE last_tick_at > clock_timestamp() - make_interval(secs => %(live)s)),
       (SELECT count(*) FROM schedule
         WHERE status IN ('PENDING', 'IN_PROGRESS') AND next_due_at <= statement_timestamp()
           AND next_due_at + make_interval(secs => misfire_grace_seconds) < statement_timestamp())
"""
# A run begins where its claim was granted, which its fence tells in microseconds: a record is as
# old as the first attempt, and the waits between retries are no work. Times that no clock shows are
# left out.
DURATIONS: Final = """
SELECT t.task, count(*),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY r.seconds), max(r.seconds)
  FROM unnest(%(tasks)s::text[]) AS t (task)
 CROSS JOIN LATERAL (
       SELECT greatest(0, extract(epoch FROM completed_at)::float8
                  - greatest(extract(epoch FROM created_at)::float8, fence / 1e6)) AS seconds
         FROM (SELECT created_at, completed_at, fence FROM idempotency_record
                WHERE endpoint = t.task AND state = 'done' AND starts_with(key, %(head)s)
                ORDER BY created_at DESC LIMIT %(latest)s) AS latest
        WHERE created_at BETWEEN '1970-01-01Z' AND '9999-01-01Z'
          AND completed_at BETWEEN '1970-01-01Z' AND '9999-01-01Z') AS r
 GROUP BY t.task
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The role that we are, and what it may do. `missing`: table to rights that it lacks."""

    name: str
    superuser: bool
    powerful: bool
    standby: bool
    read_only: bool
    migrated: bool
    missing: dict[str, list[str]]
    owned: list[str]


@dataclass(frozen=True, slots=True)
class Runs:
    """How long the last finished runs of a task took, in seconds."""

    count: int
    p95: float
    longest: float


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection that reads. Raises StoreUnavailable or ConfigurationError."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "idempotency_database_url", "not a PostgreSQL URL: postgresql://user@host/database"
        ) from None
    options: dict[str, Any] = {
        **given,
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "idemwatch doctor",
    }
    try:
        # Nothing is prepared, and what is set ends with the transaction: behind a pooler the same
        # session serves workers next.
        with psycopg.connect(**options, prepare_threshold=None) as connection, _cut_off(connection):
            connection.read_only = True
            connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}")
            yield connection
            connection.rollback()
    except psycopg.Error as problem:
        raise unavailable(problem) from problem


@contextmanager
def _cut_off(connection: Connection) -> Iterator[None]:
    """A server that is frozen keeps no time-out of its own: end the connection here."""
    guard = AnswerGuard(2 * STATEMENT_SECONDS)
    guard.begin(connection)
    try:
        yield
    finally:
        guard.end(connection)
        guard.close()


def server(connection: Connection) -> tuple[int, str]:
    """Its server_version_num, and what is wrong with the schema ("" if nothing)."""
    try:
        check_schema(connection)
    except SchemaMismatch as mismatch:
        return connection.info.server_version, mismatch.reason
    return connection.info.server_version, ""


def role(connection: Connection) -> Role:
    """Who we are there."""
    name, superuser, powerful, standby, read_only = _row(connection.execute(ROLE))
    (migrated,) = _row(connection.execute(MIGRATED))
    wanted = WORKER_RIGHTS | BEAT_RIGHTS
    given = {"names": list(wanted), "rights": list(wanted.values())}
    missing: dict[str, list[str]] = {}
    for table, right, has in connection.execute(RIGHTS, given):
        if not has:
            missing.setdefault(table, []).append(right)
    owned = [table for (table,) in connection.execute(OWNED, given)]
    return Role(
        name=name, superuser=superuser, powerful=powerful, standby=standby, read_only=read_only,
        migrated=migrated, missing=missing, owned=owned,
    )  # fmt: skip


def clock(connection: Connection) -> float:
    """Its time, in seconds since 1970."""
    return float(_row(connection.execute(CLOCK))[0])


def records(connection: Connection, namespace: str) -> tuple[int, int]:
    """How many keys are poisoned, and how many (at most MOST_LATE) expired a day ago or more."""
    (poisoned,) = _row(connection.execute(POISONED, {"head": f"{namespace}:"}))
    (late,) = _row(connection.execute(LATE, {"hours": LATE_HOURS, "most": MOST_LATE}))
    return poisoned, late


def schedules(connection: Connection, live_seconds: float) -> tuple[int, int, int]:
    """Active schedules, live beats, schedules that are overdue."""
    active, live, overdue = _row(connection.execute(SCHEDULES, {"live": live_seconds}))
    return active, live, overdue


def is_refused(problem: StoreUnavailable) -> bool:
    """Whether it answered, and the role may not read that."""
    return isinstance(problem.__cause__, InsufficientPrivilege)


def durations(connection: Connection, namespace: str, tasks: Sequence[str]) -> dict[str, Runs]:
    """How long the tasks take, by name; those without a finished run are not there."""
    given = {"tasks": list(tasks)[:MOST_TASKS], "head": f"{namespace}:", "latest": LATEST_RUNS}
    rows = connection.execute(DURATIONS, given)
    return {task: Runs(count, float(p95), float(most)) for task, count, p95, most in rows}


def _row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] = cursor.fetchone() or ()
    return row
