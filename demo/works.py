"""Pieces of work for the facility application: what is published for each, what it works on, and
what befalls it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from . import facility_store as store
from . import mail, trouble
from .app import METER, NOTIFY
from .facility import email_key
from .facility_settings import REPORT_FOLDER
from .ledger import MAIL

LANE: Final = 1_000_000
"""Numbers of works that one process of traffic has for itself."""
CLOSE: Final = "auto_close_jobs"
ESCALATE: Final = "ticket_escalation"
DISPATCH: Final = "create_ppm_job"
REPORT: Final = "create_scheduled_reports"
DAY: Final = "2026-03-01"
PPM_DAY: Final = "2040-03-01"
"""Far away, so that the reminders of it are planned and none is sent while one looks."""
CONTACT: Final = "site-{}@example.org"
FORMATS: Final = ("pdf", "csv")

ADD_JOB: Final = store.in_schema("""
INSERT INTO facility.job (id, identifier, client_id, contact, fromdate, uptodate)
VALUES (%(number)s, 'clean the filters', %(client)s, %(contact)s, '2026-02-01', '2026-02-28')
""")
ADD_TICKET: Final = store.in_schema("""
INSERT INTO facility.ticket (id, title, client_id, contact, due_on)
VALUES (%(number)s, 'the lift stands', %(client)s, %(contact)s, '2026-02-28')
""")
ADD_RECURRING: Final = store.in_schema("""
INSERT INTO facility.recurring_job (id, identifier, cron_expression, asset_id, client_id, contact)
VALUES (%(number)s, 'inspect the pump', '0 6 * * *', 'pump-' || %(number)s, %(client)s, %(contact)s)
""")


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work, named as its effect is, and how many messages are sent for it.

    `needs`: the statement that adds what it works on. `trouble`: what befalls it.
    """

    task: str
    number: object
    args: tuple[Any, ...]
    messages: int = 1
    same_id: bool = False
    needs: bytes | None = None
    trouble: str = ""

    @property
    def name(self) -> str:
        """As the ledger has it."""
        return f"{self.task}:{self.number}"


Kind = Callable[[int], Work]


def close(number: int) -> Work:
    """Published twice: in turn by two publishers, and by one that lost the broker's reply."""
    args, same = (DAY, client_of(number)), number % 2 == 0
    return Work(CLOSE, number, args, messages=2, same_id=same, needs=ADD_JOB)


def escalate(number: int) -> Work:
    """Published once, and twice every other time; its first attempt fails after the effect."""
    args, messages = (DAY, client_of(number)), 1 + number % 2
    return Work(ESCALATE, number, args, messages=messages, needs=ADD_TICKET, trouble=trouble.FAILS)


def outlast(number: int) -> Work:
    """Longer than the visibility timeout: the broker makes the duplicates.

    A report, or without a folder for it (a container has none) a closing.
    """
    if not os.environ.get(REPORT_FOLDER):
        number += LANE // 2  # another one than those of `close`
        return replace(close(number), messages=1, trouble=trouble.SLOW)
    params = {"day": DAY, "client_id": client_of(number)}
    args = ("open_jobs", params, number, FORMATS[number % 2])
    return Work(REPORT, number, args, trouble=trouble.SLOW)


def dispatch(number: int) -> Work:
    """Its process is killed, in turn before and after its effect is committed."""
    dies = trouble.DIES_BEFORE if number % 2 else trouble.DIES_AFTER
    return replace(dispatch_safely(number), trouble=dies)


def dispatch_safely(number: int) -> Work:
    """Its process lives."""
    return Work(DISPATCH, number, (number, PPM_DAY), needs=ADD_RECURRING)


def notify(number: int) -> Work:
    """For one of a few users; published twice now and then."""
    return Work(NOTIFY, number, (number % 5, number), messages=1 + (number % 4 == 0))


def read(number: int) -> Work:
    """Of one of a few meters; published twice now and then."""
    device = f"meter-{number % 8}"
    return Work(METER, number, (device, number), messages=1 + (number % 4 == 0))


def letter(row: store.Row) -> Work:
    """A mail of the outbox. Its effect is known by its Message-ID."""
    args = (row["recipient"], row["template"], row["context"])
    return Work(MAIL, mail.message_id_of(email_key(*args)), args)


def client_of(number: object) -> str:
    """Whose job or ticket it is: each is of another client, so that each is found alone."""
    return f"site-{number}"
