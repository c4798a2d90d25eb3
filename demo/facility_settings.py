"""The settings of the facility application, from the environment, and what it refuses.

| variable | default | meaning |
|---|---|---|
| FACILITY_DATABASE_URL | IDEMWATCH_DATABASE_URL | the database with the tables of the application |
| FACILITY_SCHEMA | facility | their schema |
| FACILITY_SMTP | none | HOST:PORT of the mail server |
| FACILITY_MAIL_FROM | facility@localhost | who sends |
| FACILITY_REPORT_FOLDER | none | where reports are written |

The two database URLs must lead to one database: an effect commits with its record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError

DATABASE_URL: Final = "FACILITY_DATABASE_URL"
SCHEMA: Final = "FACILITY_SCHEMA"
SMTP: Final = "FACILITY_SMTP"
MAIL_FROM: Final = "FACILITY_MAIL_FROM"
REPORT_FOLDER: Final = "FACILITY_REPORT_FOLDER"
_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class BadInput(IdempotencyError, ValueError):
    """An argument of a task is wrong; to try again would not help. `name` is the argument's."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def day_of(day: Any) -> date:
    """The day that a task was given, as text or as a date. Raises BadInput."""
    if isinstance(day, date) and not isinstance(day, datetime):
        found = day
    else:
        try:
            found = date.fromisoformat(day)
        except (TypeError, ValueError):
            raise BadInput("day", f"{day!r:.60} is no day, as 2026-03-01") from None
    if found == date.max:
        raise BadInput("day", f"{found} has no day after it")
    return found


def number_of(name: str, value: Any) -> int:
    """The id that a task was given. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise BadInput(name, f"{value!r} is no id: pass a whole number from 1")
    return value


def client_of(value: Any) -> str | None:
    """The client that a task was given; None for all. Raises BadInput."""
    return None if value is None else text_of("client_id", value)


def text_of(name: str, value: Any) -> str:
    """Text that a database and a mail can hold, as JSON need not. Raises BadInput."""
    if not isinstance(value, str):
        raise BadInput(name, f"a value of type {type(value).__name__} is no text")
    if "\0" in value or (not value.isascii() and _SURROGATE.search(value)):
        raise BadInput(name, "has a letter that is none: NUL, or half of a surrogate pair")
    return value


def schema(environ: Mapping[str, str] = os.environ) -> str:
    """The schema of the tables; safe to stand in a statement. Raises ConfigurationError."""
    given = environ.get(SCHEMA) or "facility"
    if not _IDENTIFIER.fullmatch(given):
        told = f"{given!r} is no plain name: lower-case letters, digits and _, 63 at most"
        raise ConfigurationError(SCHEMA, told)
    return given


def database_url(environ: Mapping[str, str] = os.environ) -> str:
    """Where the tables are. Raises ConfigurationError."""
    found = environ.get(DATABASE_URL) or environ.get("IDEMWATCH_DATABASE_URL")
    if not found:
        raise ConfigurationError(DATABASE_URL, "is not set: say postgresql://user@host/database")
    return found


def smtp_address(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port of the mail server. Raises ConfigurationError."""
    given = _required(environ, SMTP, "say HOST:PORT of a mail server")
    host, _, port = given.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(SMTP, f"{given!r} is not HOST:PORT, as localhost:25")
    return host.removeprefix("[").removesuffix("]"), int(port)


def mail_from(environ: Mapping[str, str] = os.environ) -> str:
    """The address of the sender, checked where it is used."""
    return environ.get(MAIL_FROM) or "facility@localhost"


def report_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """An existing folder. Raises ConfigurationError."""
    folder = Path(_required(environ, REPORT_FOLDER, "say a folder that reports are written to"))
    if not folder.is_dir():
        raise ConfigurationError(REPORT_FOLDER, f"there is no folder {folder}: make it")
    return folder


def _required(environ: Mapping[str, str], name: str, advice: str) -> str:
    found = environ.get(name)
    if not found:
        raise ConfigurationError(name, f"is not set: {advice}")
    return found
