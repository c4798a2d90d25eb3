"""What Alertmanager sends: a small HTTP server that keeps each notification.

Invariant: a page counts once, however many receivers and repetitions it comes by.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

log = logging.getLogger(__name__)

CRITICAL: Final = "critical"
LONGEST_BODY: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Notification:
    """One alert as it was delivered. `status`: firing or resolved. `at`: when it came, UTC.

    `began`: when the alert began to fire, as Alertmanager writes it.
    """

    alertname: str
    severity: str
    status: str
    at: datetime
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    receiver: str = ""
    began: str = ""

    @property
    def page(self) -> bool:
        """Whether it wakes somebody."""
        return self.status == "firing" and self.severity == CRITICAL

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for what tells the same again."""
        return (*sorted(self.labels.items()), self.began, self.status)

    def about(self, alertname: str, labels: Mapping[str, str]) -> bool:
        """Whether it is of this alert, with these labels among others."""
        return self.alertname == alertname and labels.items() <= self.labels.items()

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "alertname": self.alertname,
            "severity": self.severity,
            "status": self.status,
            "at": self.at.isoformat(timespec="milliseconds"),
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "receiver": self.receiver,
        }


def read(body: bytes, at: datetime) -> list[Notification]:
    """The alerts of a webhook message of version 4. Raises ValueError for another body."""
    message = json.loads(body)
    if not isinstance(message, dict) or message.get("version") != "4":
        raise ValueError("no webhook message of version 4")
    return [_notification(alert, message["receiver"], at) for alert in message["alerts"]]


def _notification(alert: Mapping[str, Any], receiver: str, at: datetime) -> Notification:
    labels = alert["labels"]
    return Notification(
        alertname=labels["alertname"],
        severity=labels.get("severity", "none"),
        status=alert["status"],
        at=at,
        labels=labels,
        annotations=alert.get("annotations", {}),
        receiver=receiver,
        began=alert["startsAt"],
    )


def distinct(notifications: Iterable[Notification]) -> list[Notification]:
    """Each once, the first of it."""
    found: dict[tuple[object, ...], Notification] = {}
    for one in notifications:
        found.setdefault(one.identity, one)
    return list(found.values())


class Webhook:
    """Listens on a free loopback port until `close`."""

    def __init__(self) -> None:
        self._kept: list[Notification] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._kept))
        self._server.daemon_threads = True
        serve = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="webhook", daemon=True
        )
        serve.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def notifications(self) -> list[Notification]:
        """What came so far, each once."""
        return distinct(tuple(self._kept))

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(kept: list[Notification]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > LONGEST_BODY:
                self.send_error(413)
                return
            try:
                kept.extend(read(self.rfile.read(length), datetime.now(UTC)))
            except (ValueError, KeyError, TypeError) as error:
                log.warning("a notification could not be read: %r", error)
                self.send_error(400)
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet: the screen is the user's."""

    return Handler
