"""The tables of the facility application: each function is one statement, or a few that belong
together in the transaction of the connection that it is given.

Nothing here knows of idempotency, and no unique constraint hides a double: what is done twice is
two rows. The lock_* functions take a row until the transaction ends, and say whether it is still
to be worked on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from .facility_settings import BadInput, database_url, schema

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

TOP_LEVEL: Final = 3
"""Who is told of a ticket at this level has nobody above."""
SCHEMA: Final = schema()


def in_schema(statement: str) -> bytes:
    """A statement about the tables `facility.*`, in the schema that they really have."""
    return statement.replace("facility.", f"{SCHEMA}.").encode()


JOBS_TO_CLOSE: Final = in_schema("""
SELECT id, identifier, contact FROM facility.job
 WHERE status IN ('PENDING', 'IN_PROGRESS') AND uptodate < %(day)s
   AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
 ORDER BY id
""")
LOCK_JOB: Final = in_schema("""
SELECT FROM facility.job WHERE id = %s AND status IN ('PENDING', 'IN_PROGRESS') FOR UPDATE
""")
CLOSE_JOB: Final = in_schema("""
WITH closing AS (INSERT INTO facility.job_closing (job_id, day) VALUES (%(id)s, %(day)s))
UPDATE facility.job
   SET status = 'CLOSED', autoclosed = true, autocloseddate = clock_timestamp()
 WHERE id = %(id)s
""")
TICKETS_TO_ESCALATE: Final = in_schema("""
SELECT id, title, contact, escalation_level FROM facility.ticket
 WHERE status = 'OPEN' AND due_on < %(day)s AND escalation_level < %(top)s
   AND (escalated_on IS NULL OR escalated_on < %(day)s)
   AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
 ORDER BY id
""")
LOCK_TICKET: Final = in_schema("""
SELECT FROM facility.ticket
 WHERE id = %s AND escalation_level = %s AND status = 'OPEN' FOR UPDATE
""")
ESCALATE: Final = in_schema("""
WITH step AS (
    INSERT INTO facility.ticket_escalation (ticket_id, level, day)
    VALUES (%(id)s, %(level)s, %(day)s)
)
UPDATE facility.ticket
   SET escalation_level = %(level)s, escalated_on = %(day)s, escalated_at = clock_timestamp()
 WHERE id = %(id)s
""")
RECURRING: Final = in_schema("SELECT * FROM facility.recurring_job WHERE id = %s AND active")
ADD_JOB: Final = in_schema("""
INSERT INTO facility.job (identifier, asset_id, client_id, contact, recurring_job_id, schedule_id,
    fromdate, uptodate)
VALUES (%(identifier)s, %(asset_id)s, %(client_id)s, %(contact)s, %(id)s, %(schedule_id)s,
    %(day)s::date, %(day)s::date + 1)
RETURNING id
""")
ADD_REPORT: Final = in_schema("""
INSERT INTO facility.report (name, params, user_id, format, path, record_count)
VALUES (%(name)s, %(params)s, %(user_id)s, %(format)s, %(path)s, %(record_count)s)
RETURNING id
""")
ADD_MAIL: Final = in_schema("""
INSERT INTO facility.outbox (recipient, template, context) VALUES (%s, %s, %s)
""")
WAITING_MAIL: Final = in_schema("""
SELECT id, recipient, template, context FROM facility.outbox
 WHERE published_at IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
""")
MAIL_PUBLISHED: Final = in_schema("""
UPDATE facility.outbox SET published_at = clock_timestamp() WHERE id = %s
""")


@contextmanager
def connect() -> Iterator[Connection]:
    """A connection in autocommit mode to the application's database."""
    with psycopg.connect(database_url(), autocommit=True, connect_timeout=5) as connection:
        yield connection


def jobs_to_close(connection: Connection, day: date, client_id: str | None = None) -> list[Row]:
    """Open jobs that should have been done before `day`; of one client, or of all."""
    return rows_of(connection, JOBS_TO_CLOSE, {"day": day, "client_id": client_id})


def lock_job(connection: Connection, job_id: int) -> bool:
    """Whether the job is still open."""
    return connection.execute(LOCK_JOB, (job_id,)).rowcount == 1


def close_job(connection: Connection, job: Row, day: date) -> None:
    """Close a job, write its closing down, and tell its contact."""
    with connection.transaction():
        connection.execute(CLOSE_JOB, {"id": job["id"], "day": day})
        told = {"job_id": job["id"], "job": job["identifier"], "day": day.isoformat()}
        add_mail(connection, job["contact"], "job_closed", told)


def tickets_to_escalate(
    connection: Connection, day: date, client_id: str | None = None
) -> list[Row]:
    """Open tickets that are overdue on `day` and were not escalated on it."""
    given = {"day": day, "client_id": client_id, "top": TOP_LEVEL}
    return rows_of(connection, TICKETS_TO_ESCALATE, given)


def lock_ticket(connection: Connection, ticket: Row) -> bool:
    """Whether the ticket is still open at the level at which it was seen."""
    seen = (ticket["id"], ticket["escalation_level"])
    return connection.execute(LOCK_TICKET, seen).rowcount == 1


def escalate(connection: Connection, ticket: Row, level: int, day: date) -> None:
    """Bring a ticket to a level, write the step down, and tell its contact."""
    with connection.transaction():
        connection.execute(ESCALATE, {"id": ticket["id"], "level": level, "day": day})
        told = {"ticket_id": ticket["id"], "ticket": ticket["title"], "level": level}
        context = {**told, "day": day.isoformat()}
        add_mail(connection, ticket["contact"], "ticket_escalated", context)


def recurring_job(connection: Connection, recurring_id: int) -> Row:
    """A recurring job that is active. Raises BadInput."""
    for row in rows_of(connection, RECURRING, (recurring_id,)):
        return row
    raise BadInput("schedule_id", f"there is no active recurring job {recurring_id}")


def add_job(
    connection: Connection, recurring: Row, day: date, schedule_id: int | None = None
) -> int:
    """A job of a recurring one, for a day; returns its id."""
    given = {**recurring, "day": day, "schedule_id": schedule_id}
    return int(rows_of(connection, ADD_JOB, given)[0]["id"])


def add_report(connection: Connection, report: Mapping[str, Any]) -> int:
    """Write a report down that was rendered; returns its id."""
    given = {**report, "params": Jsonb(dict(report["params"]))}
    return int(rows_of(connection, ADD_REPORT, given)[0]["id"])


def add_mail(
    connection: Connection, recipient: str, template: str, context: Mapping[str, Any]
) -> None:
    """Put a mail into the outbox: it is sent if and only if the transaction commits."""
    connection.execute(ADD_MAIL, (recipient, template, Jsonb(dict(context))))


def waiting_mail(connection: Connection, at_most: int = 100) -> list[Row]:
    """Mail of the outbox for which no task was published yet, the oldest first; others leave it
    alone until the transaction ends.
    """
    return rows_of(connection, WAITING_MAIL, (at_most,))


def mail_published(connection: Connection, mail_id: int) -> None:
    """A task was published. Who dies before this publishes it again, which the task bears."""
    connection.execute(MAIL_PUBLISHED, (mail_id,))


def rows_of(connection: Connection, statement: bytes, given: Any) -> list[Row]:
    """The answer to a statement."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, given).fetchall()
