"""The demo's command: `make demo ARGS=...`, or `python -m idemwatch.demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError
from idemwatch.scheduler.command_options import Number

from .json_file import json_option, write_json

NAMES = ("calm", "duplicate-storm", "redis-outage", "hotspots", "beat-stall")
"""Of the scenarios; they themselves are imported when the demo runs."""
EPILOG = """
\b
Examples
  make demo                                        until Ctrl-C
  make demo ARGS="--seconds 30 --json out.json"    ends by itself
  make demo ARGS="--scenario duplicate-storm"      until the page came, and went
  IDEMWATCH_REDIS_URL=redis://localhost:6379/0 make demo

\b
Exit code
  0    each effect happened exactly once, and the scenario went as it should
  1    an effect happened twice or never, a page did not come, or somebody was paged for nothing, or
       something did not start
  2    a wrong option or setting
  129, 130, 143    ended by a signal before it could count
"""


@click.command(epilog=EPILOG)
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True),
    help="Publish for so long, then settle and end. Default: until Ctrl-C.",
)
@json_option("summary")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=9912,
    show_default=True,
    help="Port of the worker's /metrics on 127.0.0.1; the next free one when taken, 0 for any.",
)
@click.option(
    "--scenario",
    type=click.Choice(NAMES),
    help="Make trouble, and see who is paged. Default: every kind of duplicate, nobody judges.",
)
def demo(
    seconds: float | None, json_file: Path | None, metrics_port: int, scenario: str | None
) -> None:
    """Hand a Celery worker the same work again and again, and count what happens.

    Starts PostgreSQL and Redis of its own on free ports (or uses those of IDEMWATCH_DATABASE_URL
    and IDEMWATCH_REDIS_URL, within schemas and key names of its own, which it removes), a mail
    server, a prefork worker whose broker delivers again after 2 seconds, two beats with a small
    fleet of schedules, the state exporter, and, where Debian's prometheus and
    prometheus-alertmanager are installed, these too, with the committed configuration and rules in
    which an hour is a minute.

    The tasks are those of facility management: auto_close_jobs, ticket_escalation, create_ppm_job,
    create_scheduled_reports, send_reminder_email. They get every kind of duplicate: messages
    published twice, tasks that outlast the broker's patience, retries, processes killed before and
    after they commit. The table shows what the worker's /metrics counts:

    \b
      executed            runs that came to an end, failed attempts too
      turned away         deliveries that found the work finished or in progress
      met a running one   the latter of these
      hit rate            turned away, of all checks

    Every effect is a row in a table without any unique constraint, or a mail, so a double would
    show. At the end each piece of work must have exactly one. A mail that was sent again after a
    lost lease has the Message-ID that it had, and is told apart.

    A scenario is calm traffic, then trouble. Its alert must be delivered to the demo's webhook, and
    its resolution when the trouble is over; nobody may be paged for anything else:

    \b
      calm              nobody is paged (until Ctrl-C, or --seconds)
      duplicate-storm   a publisher goes wild           IdempotencyHitRateHigh
      redis-outage      the cache hangs, work goes on   StoreDown, and CircuitOpen fires
      hotspots          schedules crowd together        ScheduleHealthLow, and ScheduleHotspots
      beat-stall        all beats hang                  BeatStalled
    """
    sys.exit(_play(seconds, json_file, metrics_port, scenario))


def _play(
    seconds: float | None, json_file: Path | None, metrics_port: int, scenario: str | None
) -> int:
    from .interrupts import Interrupted, Interrupts

    interrupts = Interrupts()
    with interrupts.handled():
        try:
            return _count(seconds, json_file, metrics_port, scenario, interrupts)
        except Interrupted as signal:
            click.echo(f"{signal}; nothing was counted", err=True)
            return signal.exit_code
        except ConfigurationError as error:
            click.echo(f"error: {error}", err=True)
            return 2
        except IdempotencyError as error:
            click.echo(f"error: {error}", err=True)
            return 1


def _count(
    seconds: float | None,
    json_file: Path | None,
    metrics_port: int,
    scenario: str | None,
    interrupts: object,
) -> int:
    from idemwatch.idempotency.settings import load
    from rich.console import Console

    from .cast import Options
    from .interrupts import Interrupts
    from .scenarios import SCENARIOS
    from .screen import screen_for
    from .supervisor import run

    assert isinstance(interrupts, Interrupts)
    options = Options(
        seconds=seconds,
        metrics_address=f"127.0.0.1:{metrics_port}",
        scenario=SCENARIOS[scenario] if scenario else None,
    )
    summary = run(options, load(), screen_for(Console()), interrupts)
    click.echo(summary)
    write_json(json_file, summary.as_json())
    return 0 if summary.good else 1
