"""Traffic by itself: publishes until it is told to end. Runs alone in a container, too."""

from __future__ import annotations

import logging
import signal
import threading

import click
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError
from idemwatch.idempotency.settings import load

from .traffic import PATTERNS, TICK_SECONDS, Traffic

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--pattern",
    type=click.Choice(list(PATTERNS)),
    default="mixed",
    show_default=True,
    help="mixed: every kind of duplicate. calm: one in a hundred. duplicates: nothing else.",
)
def traffic(pattern: str) -> None:
    """Publish work for the demo's worker until SIGTERM or Ctrl-C.

    Servers as the worker has them: IDEMWATCH_DATABASE_URL, and IDEMWATCH_REDIS_URL or
    CELERY_BROKER_URL for the broker. The database must be migrated (idemwatch db upgrade
    facility).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        publish(pattern, stop)
    except IdempotencyError as error:
        raise click.ClickException(str(error)) from error


def publish(pattern: str, stop: threading.Event) -> None:
    """Publish a pattern until `stop` is set. Raises ConfigurationError without a database."""
    from . import facility_store
    from .app import app
    from .ledger import Ledger

    database_url = load().database_url
    if database_url is None:
        raise ConfigurationError(
            "idempotency_database_url", "is not set: say postgresql://user@host/database"
        )
    ledger = Ledger(database_url)
    try:
        with facility_store.connect() as facility:
            running = Traffic(app, ledger, pattern, facility)
            log.info("publishing, pattern %s", pattern)
            while not stop.wait(TICK_SECONDS):
                running.tick()
    finally:
        ledger.close()
        app.close()


if __name__ == "__main__":
    traffic(prog_name="python -m idemwatch.demo.traffic_command")
