"""Mail of the facility application: rendered from templates, and sent by SMTP.

Invariants: what arguments say never becomes a header or a second recipient; one Message-ID belongs
to one piece of work, so that a mail that had to be sent again can be told from another one.
"""

from __future__ import annotations

import smtplib
from collections.abc import Mapping
from contextlib import suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from string import Template
from typing import Any, Final, NamedTuple

from .facility_settings import BadInput, mail_from, smtp_address, text_of

TIMEOUT_SECONDS: Final = 10.0
LONGEST_ADDRESS: Final = 254
LONGEST_SUBJECT: Final = 200


class Mail(NamedTuple):
    """A template; `$name` stands for a value of the context."""

    subject: Template
    text: Template


TEMPLATES: Final[Mapping[str, Mail]] = {
    "job_closed": Mail(
        Template("Job $job was closed"),
        Template("Job $job (number $job_id) was not done in time and was closed on $day.\n"),
    ),
    "ticket_escalated": Mail(
        Template("Ticket $ticket_id is at level $level"),
        Template('Ticket $ticket_id, "$ticket", was escalated to level $level on $day.\n'),
    ),
    "job_due": Mail(
        Template("Maintenance of $asset on $day"),
        Template("Please do the maintenance $job of $asset on $day.\n"),
    ),
}


class MailRefused(BadInput):
    """The mail server refuses this mail for good (a 5xx reply)."""


def send(
    recipient: str, template: str, context: Mapping[str, Any], message_id: str | None = None
) -> str:
    """Render a mail and hand it to the mail server; returns its Message-ID.

    Raises BadInput, MailRefused, ConfigurationError; smtplib.SMTPException or OSError when trying
    again may help.
    """
    message = compose(recipient, template, context, message_id)
    smtp = smtplib.SMTP(*smtp_address(), timeout=TIMEOUT_SECONDS)
    try:
        smtp.send_message(message)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException) as error:
        _raise_if_for_good(error)
        raise
    finally:  # after the 250 it is sent, whatever becomes of the connection
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()
        smtp.close()
    return str(message["Message-ID"])


def compose(
    recipient: str, template: str, context: Mapping[str, Any], message_id: str | None = None
) -> EmailMessage:
    """The mail. Raises BadInput for a wrong recipient, template or context."""
    if not isinstance(template, str) or template not in TEMPLATES:
        raise BadInput("template_name", f"{template!r:.60} is none of {', '.join(TEMPLATES)}")
    if not isinstance(context, Mapping):
        raise BadInput("context", f"a value of type {type(context).__name__} is no object")
    subject, text = (_filled(part, context) for part in TEMPLATES[template])
    if not subject.isprintable() or len(subject) > LONGEST_SUBJECT:
        raise BadInput("context", "makes a subject of several lines, or too long a one")
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = address("FACILITY_MAIL_FROM", mail_from())
    message["To"] = address("recipient_email", recipient)
    message["Date"] = formatdate()
    if message_id is not None:
        message["Message-ID"] = message_id
    message.set_content(text)
    return message


def message_id_of(key: str) -> str:
    """The Message-ID (RFC 5322) of the mail of an idempotency key: the same for the same key."""
    return f"<{sha256(key.encode()).hexdigest()[:32]}@idemwatch.invalid>"


def address(name: str, given: Any) -> Address:
    """One plain address, as anna@example.org. Raises BadInput, which does not repeat it."""
    wrong = BadInput(name, "is no single e-mail address, as anna@example.org")
    if not isinstance(given, str) or not 3 <= len(given) <= LONGEST_ADDRESS:
        raise wrong
    if not given.isascii() or not given.isprintable() or set(given) & set(' ,;:<>()[]\\"'):
        raise wrong
    try:
        found = Address(addr_spec=given)
    except (MessageError, ValueError, IndexError):
        raise wrong from None
    if not found.username or not found.domain:
        raise wrong
    return found


def _filled(template: Template, context: Mapping[str, Any]) -> str:
    for name in template.get_identifiers():
        if name not in context:
            raise BadInput("context", f"lacks {name!r}, which the template needs")
        if isinstance(context[name], bool) or not isinstance(context[name], str | int):
            raise BadInput("context", f"{name!r} is neither text nor a whole number")
        text_of(f"context: {name}", str(context[name]))
    return template.substitute(context)


def _raise_if_for_good(
    error: smtplib.SMTPRecipientsRefused | smtplib.SMTPResponseException,
) -> None:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        ((code, _),) = error.recipients.values()
    else:
        code = error.smtp_code
    if 500 <= code < 600:
        raise MailRefused("mail", f"the mail server refuses it for good (reply {code})") from None
