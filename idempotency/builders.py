"""Readable keys for common tasks. Parts are escaped, and personal data is hashed.

>>> from datetime import date
>>> autoclose_key(100, date(2026, 11, 24))
'autoclose:100:2026-11-24'
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from .encoding import encode_arguments
from .errors import UnencodableArgument
from .keys import VERSION, digest, hashed_if_personal

Id = int | str | UUID
"""What names a row. JSON gives a UUID back as one."""


def autoclose_key(job_id: Id, execution_date: date | str) -> str:
    """`autoclose:{job_id}:{date}`: one closing of a job a day."""
    return _join("autoclose", _part("job_id", job_id), _day(execution_date))


def ticket_escalation_key(ticket_id: Id, level: int, date: date | str) -> str:
    """`escalation:{ticket_id}:L{level}:{date}`: one step to a level a day."""
    return _join("escalation", _part("ticket_id", ticket_id), f"L{int(level)}", _day(date))


def ppm_job_key(schedule_id: Id, execution_date: date | str) -> str:
    """`ppm_job:{schedule_id}:{date}`: one job of a maintenance schedule a day."""
    return _join("ppm_job", _part("schedule_id", schedule_id), _day(execution_date))


def report_generation_key(
    report_name: str,
    params: Mapping[str, Any],
    user_id: Id,
    format: str = "pdf",  # noqa: A002
) -> str:
    """`report:{name}:{params_hash}:U{user_id}:{format}`."""
    user = f"U{_part('user_id', user_id)}"
    name, kind = _part("report_name", report_name), _part("format", format)
    return _join("report", name, _hash("params", params), user, kind)


def email_notification_key(
    recipient: str, template: str, context: Mapping[str, Any] | None = None
) -> str:
    """`email:{recipient_hash}:{template}:{context_hash}`; the address, caseless, is hashed."""
    who = digest(VERSION, recipient.strip().casefold().encode("utf-8", "surrogatepass"))
    return _join("email", who, _part("template", template), _hash("context", context or {}))


def _join(*parts: str) -> str:
    return ":".join(parts)


def _part(name: str, value: Id) -> str:
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, Id) or not text:
        raise UnencodableArgument(name, f"a value of type {type(value).__name__} is no id or name")
    return hashed_if_personal(quote(text, safe="@+.-_/"))


def _day(value: date | str) -> str:
    if isinstance(value, datetime):
        raise UnencodableArgument("date", "a datetime names a day only in a time zone; pass a date")
    if isinstance(value, date):
        return value.isoformat()
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise UnencodableArgument("date", f"{value!r} is neither a date nor YYYY-MM-DD") from None


def _hash(name: str, value: Mapping[str, Any]) -> str:
    return digest(VERSION, encode_arguments({name: dict(value)}))
