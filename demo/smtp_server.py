"""A mail server for the demo and the tests: takes every mail, and tells of it.

Invariant: a mail is told of before the 250, so who has seen the 250 can count on its being counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from threading import Lock
from typing import Any, Final, NamedTuple

from idemwatch.idempotency.errors import ConfigurationError

from .processes import free_port

try:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, Envelope, Session
except ImportError as error:
    raise ConfigurationError(
        "the mail server", 'needs aiosmtpd: pip install "idemwatch[demo]"'
    ) from error

HOST: Final = "127.0.0.1"
TAKEN: Final = "250 OK"
KEPT: Final = 10_000
"""Mails that an inbox keeps, the newest."""
_PORT_TRIES: Final = 10


class Received(NamedTuple):
    """A mail that was taken."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    text: str


class Inbox:
    """Keeps what comes. `answer`: what is said to a mail instead of 250, asked before it is kept;
    `taken`: called when it is kept, before the 250.
    """

    def __init__(
        self,
        taken: Callable[[Received], object] = lambda _: None,
        answer: Callable[[Received], str] = lambda _: TAKEN,
    ) -> None:
        self._mails: deque[Received] = deque(maxlen=KEPT)
        self._lock = Lock()
        self.taken, self.answer = taken, answer

    def mails(self) -> list[Received]:
        """What was taken, the first first."""
        with self._lock:
            return list(self._mails)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd's hook: the reply to a whole mail."""
        mail = _received(envelope)
        reply = self.answer(mail)
        if reply.startswith("2"):
            with self._lock:
                self._mails.append(mail)
            self.taken(mail)
        return reply


class MailServer:
    """A running server on a free loopback port (or on `port`); `close` ends it."""

    def __init__(self, inbox: Inbox, host: str = HOST, port: int = 0) -> None:
        self.inbox = inbox
        self._controller = _started(inbox, host, port)
        self.address = f"{host}:{self._controller.port}"

    def close(self) -> None:
        """Stop, and wait until it has."""
        self._controller.stop()


def _started(inbox: Inbox, host: str, port: int) -> Any:
    for tries_left in reversed(range(1 if port else _PORT_TRIES)):
        controller = Controller(inbox, hostname=host, port=port or free_port())
        try:
            controller.start()
        except OSError:
            if not tries_left:
                raise
        else:
            return controller
    raise AssertionError("unreachable")


def _received(envelope: Envelope) -> Received:
    content = envelope.content if isinstance(envelope.content, bytes) else b""
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return Received(
        message_id=str(message["Message-ID"] or ""),
        sender=envelope.mail_from or "",
        recipients=tuple(envelope.rcpt_tos),
        subject=str(message["Subject"] or ""),
        text=str(message.get_content()),
    )
