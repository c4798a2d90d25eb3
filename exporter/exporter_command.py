"""`idemwatch exporter`: serves what PostgreSQL, Redis, the broker and the schedules are like."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from idemwatch.alerts.command_options import threshold_option
from idemwatch.idempotency.command_settings import (
    Command,
    app_of,
    database_option,
    redis_option,
    settings_for,
)
from idemwatch.scheduler.command_options import Number

from . import endpoint
from .refresh import INTERVAL_SECONDS
from .state import Options, State

DEFAULT_ADDRESS: Final = "127.0.0.1:9911"
LEVELS: Final = ("debug", "info", "warning", "error")
FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HELP: Final = """Serve the state of stores, records, schedules, beats, workers and queues.

Everything is read in the background, each source by itself: a scrape never waits, and a source
that fails or hangs costs only its own metrics (idemwatch_collector_success tells which). Databases
may be away when it starts. What is not configured is not looked at.

\b
Examples:
  export IDEMWATCH_DATABASE_URL=postgresql://user@host/db IDEMWATCH_REDIS_URL=redis://host/0
  idemwatch exporter --broker-url redis://host/1 --queue celery --queue reports
  idemwatch exporter --web.listen-address 0.0.0.0:9911 --web.config.file web.yml
  celery -A proj idemwatch exporter --source beat --threshold hit_rate=0.1

\b
Paths: /metrics, /sd (the workers, for Prometheus' http_sd_configs), /-/healthy, /-/ready.

\b
Exit codes: 0 ended by SIGTERM or Ctrl-C, 1 could not start (the reason is told), 2 wrong usage.
"""


@click.command(
    "exporter", cls=Command, help=HELP, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--web.listen-address",
    "address",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 is any free one.",
)
@click.option(
    "--web.config.file",
    "web_config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TLS and passwords, in the format of Prometheus' exporter-toolkit.",
)
@click.option(
    "--refresh-seconds",
    type=Number(min=1, max=300),
    default=INTERVAL_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How often each source is read.",
)
@click.option(
    "--source",
    metavar="SOURCE",
    help="Schedules: table, beat, redbeat, django, or a file or folder, as for "
    "validate-schedules. Default: the table, else the app's beat_schedule.",
)
@click.option(
    "--capacity",
    type=Number(min=0.01, max=1_000_000),
    metavar="SLOTS",
    help="Runs that the workers take at once. Default: the sum of the registered workers' "
    "concurrency, else idempotency_schedule_capacity, else 14.",
)
@click.option(
    "--timezone",
    "zone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="Half hours are those of this zone.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Count this queue; may be repeated. Default: the app's queues, else celery.",
)
@click.option(
    "--broker-url",
    envvar="CELERY_BROKER_URL",
    metavar="URL",
    help="The broker; default CELERY_BROKER_URL, or the app's.",
)
@threshold_option
@redis_option
@database_option
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What is logged, to stderr.",
)
@click.pass_context
def exporter(
    ctx: click.Context, /, *, address: str, web_config: Path | None, redis_url: str | None,
    database_url: str | None, log_level: str, **given: Any,
) -> None:  # fmt: skip
    # Its help is HELP.
    settings = settings_for(ctx, redis_url=redis_url, database_url=database_url)
    with _logging(log_level), _ending() as ended:
        state = State(settings, Options(**given), app_of(ctx))
        try:
            running = endpoint.start(
                address, collect=tuple,  # /metrics is a route of the state's
                ready=state.problems,
                web_config=web_config, routes=state.routes(), title="idemwatch state exporter",
            )  # fmt: skip
            try:
                state.start()
                click.echo(f"idemwatch exporter: {running.url}/metrics")
                ended.wait()
            finally:
                running.close()
        finally:
            state.close()


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set: services are ended so, and that is no failure."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logging(level: str) -> Iterator[None]:
    """Our log on stderr, unless the app has set up its own."""
    log = logging.getLogger("idemwatch")
    before = log.level
    log.setLevel(level.upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    if not logging.getLogger().handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
