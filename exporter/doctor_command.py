"""`idemwatch doctor`: its options, and an exit code for every end, as validate-schedules has."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import replace
from typing import Final

import click
from idemwatch.alerts.names import STATE_JOB, WORKER_JOB
from idemwatch.idempotency.command_settings import (
    app_of,
    database_option,
    redis_option,
    settings_for,
)
from idemwatch.idempotency.errors import IdempotencyError
from idemwatch.idempotency.printing import print_text
from idemwatch.idempotency.settings import check_redis_url, check_url
from idemwatch.scheduler.check_command import CheckCommand
from idemwatch.scheduler.command_options import Number
from idemwatch.scheduler.terminal import screen

from .doctor_checks import Places, checks
from .doctor_fetch import checked
from .doctor_findings import exit_code
from .doctor_prometheus import checked_jobs
from .doctor_run import run
from .doctor_view import as_json, lines

DEADLINE_SECONDS: Final = 20.0
HELP: Final = """Check what idemwatch stands on, and say what to change.

Versions, settings, migrations, rights, Redis' policy and persistence, clocks, the broker's
visibility timeout beside the longest task, poisoned and expired records, beats, metrics; with
your app its tasks' options too. All at once; a check that fails or hangs costs only itself.
Nothing is changed, and no password is shown.

\b
Examples:
    celery -A proj idemwatch doctor
    celery -A proj idemwatch doctor --prometheus-url http://prometheus:9090
    idemwatch doctor --format json --deadline 10

\b
Exit codes, as those of validate-schedules:
  0    all is well (what is only worth knowing is "info")
  1    warnings, or something could not be checked
  2    errors: a server that does not answer, a schema that is not migrated,
       a role that lacks rights, work that may be done twice
  3    it could not run: a wrong option
  130  interrupted
"""


class _Command(CheckCommand):
    def unforeseen(self, error: Exception) -> str:
        """Without its text, in which there may be a password."""
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


@click.command("doctor", cls=_Command, help=HELP)
@click.option(
    "--prometheus-url", metavar="URL",
    help="Look there too: targets up, rules loaded, alerts firing.",
)  # fmt: skip
@click.option(
    "--job", "jobs", multiple=True, metavar="NAME", default=(STATE_JOB, WORKER_JOB),
    show_default=True, help="A job of ours in Prometheus; may be repeated.",
)  # fmt: skip
@click.option(
    "--broker-url", metavar="URL", envvar="CELERY_BROKER_URL",
    help="The broker; default CELERY_BROKER_URL, or the app's.",
)  # fmt: skip
@click.option(
    "--deadline", type=Number(min=1, max=600), default=DEADLINE_SECONDS, show_default=True,
    metavar="SECONDS", help="After so long a check that has not ended is an error.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@redis_option
@database_option
@click.pass_context
def doctor(
    ctx: click.Context, /, *, prometheus_url: str | None, jobs: tuple[str, ...],
    broker_url: str | None, deadline: float, form: str, redis_url: str | None,
    database_url: str | None,
) -> int:  # fmt: skip
    # Its help is HELP.
    check_redis_url("--redis-url", redis_url)
    check_url("--database-url", database_url, ("postgresql", "postgres"))
    places = Places(
        settings=None,
        app=app_of(ctx),
        broker_url=broker_url or None,
        prometheus_url=checked(prometheus_url, "--prometheus-url") if prometheus_url else None,
        jobs=checked_jobs(jobs),
    )
    try:
        settings = settings_for(ctx, redis_url=redis_url, database_url=database_url)
        places = replace(places, settings=settings)
    except IdempotencyError as problem:
        places = replace(places, problem=str(problem))
    began = time.monotonic()
    findings = run(checks(places), deadline)
    seconds = time.monotonic() - began
    if form == "json":
        text = json.dumps(as_json(findings, seconds), indent=2)
    else:
        text = "\n".join(lines(findings, seconds, screen()))
    print_text(f"{text}\n")
    return exit_code(findings)
