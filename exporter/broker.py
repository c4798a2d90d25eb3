"""The message broker, through kombu: one short connection for each look at it.

Invariant: a broker that does not answer costs seconds, not minutes, and its URL is never told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from kombu.exceptions import KombuError

ANSWER_SECONDS: Final = 3.0
_TIMEOUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}
"""What the time-outs of a transport's connections are called."""


class Broker:
    """The broker of `app`, or the one at `url` with the app's other settings."""

    def __init__(self, app: Any, url: str | None = None) -> None:
        self._app, self._url = app, url
        try:
            self._lazy().release()
        except Exception as error:  # whatever a transport's module does when it is imported
            problem = f"cannot be used as a broker's URL ({type(error).__name__}): say, for "
            raise ConfigurationError(
                "--broker-url", f"{problem}example, redis://host/0 or amqp://user@host//"
            ) from None

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A kombu connection. Raises StoreUnavailable, also for what breaks within."""
        with self._lazy() as connection:
            try:
                connection.ensure_connection(
                    max_retries=len(connection.alt) or 1, interval_start=0, interval_step=0,
                    interval_max=0, timeout=ANSWER_SECONDS,
                )  # fmt: skip
                yield connection
            except Exception as error:
                if isinstance(error, _lost(connection)):
                    raise StoreUnavailable("broker", _told(error)) from error
                raise

    def ping(self) -> None:
        """Raises StoreUnavailable."""
        with self.connected():
            pass

    def _lazy(self) -> Any:
        connection = self._app.connection_for_read(self._url, connect_timeout=ANSWER_SECONDS)
        names = _TIMEOUTS.get(connection.transport.driver_type, ())
        connection.transport_options = {
            **dict.fromkeys(names, ANSWER_SECONDS), **(connection.transport_options or {})
        }  # fmt: skip
        return connection


def _lost(connection: Any) -> tuple[type[BaseException], ...]:
    """What a broker that fails raises: a list of brokers may change the transport meanwhile."""
    return (*connection.connection_errors, *connection.channel_errors, KombuError, OSError)


def _told(error: BaseException) -> str:
    """Its kind, and what it says; drivers name host and port, and a login only in a URL."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
