"""The facility application under test: its database, its mail server, its folder of reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from idemwatch.demo.smtp_server import Inbox, MailServer

DAY = "2026-03-02"
CONTACT = "anna@example.org"


@dataclass
class Facility:
    """What the tasks work on, and what they did."""

    connection: psycopg.Connection[Any]
    server: MailServer
    environment: dict[str, str]
    reports: Path

    @property
    def inbox(self) -> Inbox:
        """All mail."""
        return self.server.inbox

    def add_job(self, client_id: str = "c1", uptodate: str = "2026-03-01") -> int:
        """A job that should be done by a day."""
        return self._id(
            "INSERT INTO facility.job (identifier, client_id, contact, fromdate, uptodate)"
            " VALUES ('filters', %s, %s, '2026-02-01', %s) RETURNING id",
            (client_id, CONTACT, uptodate),
        )

    def add_ticket(self, client_id: str = "c1", due_on: str = "2026-03-01") -> int:
        """A ticket that is due on a day."""
        return self._id(
            "INSERT INTO facility.ticket (title, client_id, contact, due_on)"
            " VALUES ('lift stands', %s, %s, %s) RETURNING id",
            (client_id, CONTACT, due_on),
        )

    def add_recurring(self, asset_id: str = "pump-1", cron: str = "0 6 * * *") -> int:
        """A recurring job."""
        return self._id(
            "INSERT INTO facility.recurring_job"
            " (identifier, cron_expression, asset_id, client_id, contact)"
            " VALUES ('ppm', %s, %s, 'c1', %s) RETURNING id",
            (cron, asset_id, CONTACT),
        )

    def closings(self) -> Counter[int]:
        """How often each job was closed."""
        return self._counted("SELECT job_id, count(*) FROM facility.job_closing GROUP BY 1")

    def steps(self) -> Counter[int]:
        """How often each ticket was escalated."""
        return self._counted(
            "SELECT ticket_id, count(*) FROM facility.ticket_escalation GROUP BY 1"
        )

    def ppm_jobs(self) -> Counter[int]:
        """How many jobs each recurring one has."""
        return self._counted(
            "SELECT recurring_job_id, count(*) FROM facility.job"
            " WHERE recurring_job_id IS NOT NULL GROUP BY 1"
        )

    def outbox(self) -> Counter[str]:
        """How many mails of each template wait to be sent."""
        return self._counted("SELECT template, count(*) FROM facility.outbox GROUP BY 1")

    def rows(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        """What a statement answers."""
        return self.connection.execute(statement.encode(), given or None).fetchall()

    def _id(self, statement: str, given: tuple[Any, ...]) -> int:
        row = self.connection.execute(statement.encode(), given).fetchone()
        assert row is not None
        return int(row[0])

    def _counted(self, statement: str) -> Counter[Any]:
        return Counter(dict(self.rows(statement)))


@contextmanager
def open_facility(database_url: str, folder: Path) -> Iterator[Facility]:
    """On a migrated database; makes the tables of the application there."""
    from idemwatch.idempotency.migrate import upgrade

    upgrade(database_url, "facility")
    reports = folder / "reports"
    reports.mkdir()
    server = MailServer(Inbox())
    environment = {
        "FACILITY_DATABASE_URL": database_url,
        "FACILITY_SMTP": server.address,
        "FACILITY_REPORT_FOLDER": str(reports),
    }
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            yield Facility(connection, server, environment, reports)
    finally:
        server.close()


def overdue(day: date) -> str:
    """The day before."""
    return date.fromordinal(day.toordinal() - 1).isoformat()
