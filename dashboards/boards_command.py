"""`idemwatch boards`: write the boards' JSON, or bring them to a Grafana.

Exit codes: 0 done or nothing to do, 1 failed, 2 wrong usage, 3 somebody edited a board there.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
from idemwatch.alerts.command_options import job_options, threshold_option
from idemwatch.alerts.names import RUNBOOKS
from idemwatch.alerts.thresholds import Thresholds

from .boards import boards as built
from .boards import write
from .grafana import TIMEOUT_SECONDS, BadAddressError, Grafana, GrafanaError, address
from .options import Options
from .push import Action, Plan, carry_out, planned

LEFT_TO_DO: Final = {Action.CREATE, Action.UPDATE}


class EditedError(click.ClickException):
    """Somebody edited a board, and nothing was changed."""

    exit_code = 3


def _build_options(command: Callable[..., Any]) -> Callable[..., Any]:
    runbooks = click.option(
        "--runbook-url", default=RUNBOOKS, metavar="URL",
        help="Where the runbooks are; alerts link to URL/ALERT.md.",
    )  # fmt: skip
    return threshold_option(job_options(runbooks(command)))


@click.group("boards")
def boards() -> None:
    """Grafana boards: write their JSON, or bring them to a Grafana."""


@boards.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_build_options
def build(
    folder: Path, thresholds: Thresholds, job: str, worker_job: str, runbook_url: str
) -> None:
    """Write each board to FOLDER/UID.json, for Grafana's provisioning or import."""
    options = _options(thresholds, job, worker_job, runbook_url)
    try:
        paths = write(folder, options)
    except OSError as error:
        where = error.filename or folder
        raise click.ClickException(f"cannot write {where}: {error.strerror}") from error
    for path in paths:
        click.echo(path)


@boards.command()
@click.argument("url")
@click.option("--token-file", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Holds the token of a service account with the role Editor.")  # fmt: skip
@click.option("--folder", metavar="UID", help="The folder to put them in; else where they are.")
@click.option("--force", is_flag=True, help="Replace boards that somebody edited, too.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--timeout", default=TIMEOUT_SECONDS, show_default=True, metavar="SECONDS",
              type=click.FloatRange(0.1, 600), help="How long to wait for an answer.")  # fmt: skip
@_build_options
def push(
    url: str, token_file: Path, folder: str | None, force: bool, dry_run: bool, timeout: float,
    thresholds: Thresholds, job: str, worker_job: str, runbook_url: str,
) -> None:  # fmt: skip
    """Bring the boards to the Grafana at URL, and show what changes.

    A board that somebody edited since the last push is left alone, and then so are all others:
    the difference is shown, and the exit code is 3. --force replaces it. SSL_CERT_FILE may name
    a CA of your own.
    """
    options = _options(thresholds, job, worker_job, runbook_url)
    grafana = Grafana(_checked(url), _token(token_file), timeout)
    try:
        plans = list(planned(grafana, built(options), force=force))
        _judge(plans)
        for plan in plans:
            click.echo(_done(grafana, plan, folder, dry_run=dry_run))
    except GrafanaError as error:
        raise click.ClickException(str(error)) from error


def _options(thresholds: Thresholds, job: str, worker_job: str, runbook_url: str) -> Options:
    try:
        return Options(
            thresholds=thresholds, job=job, worker_job=worker_job,
            runbook_url=runbook_url.rstrip("/"),
        )  # fmt: skip
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _checked(url: str) -> str:
    try:
        found = address(url)
    except BadAddressError as error:
        raise click.UsageError(str(error)) from None
    if urlsplit(found).scheme == "http" and not _is_here(urlsplit(found).hostname or ""):
        click.echo("warning: over http the token can be read on its way; use https", err=True)
    return found


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        token, mode = "", 0
    if not token or not token.isprintable() or " " in token:
        raise click.UsageError(f"{path} does not hold a token, alone on one line")
    if mode & stat.S_IROTH:
        click.echo(f"warning: everybody here can read {path}: chmod 600 {path}", err=True)
    return token


def _judge(plans: Sequence[Plan]) -> None:
    """Raise unless every board may be written."""
    fixed = [plan.uid for plan in plans if plan.action is Action.PROVISIONED]
    if fixed:
        raise GrafanaError(f"{', '.join(fixed)}: Grafana reads this from its own files "
                           "(provisioning), and takes it from nowhere else")  # fmt: skip
    edited = [plan for plan in plans if plan.action is Action.REFUSE]
    for plan in edited:
        click.echo(plan.diff, nl=False)
    if edited:
        names = ", ".join(plan.uid for plan in edited)
        raise EditedError(
            f"{names}: edited in Grafana since the last push, see above; nothing was changed "
            "(--force replaces it)"
        )


def _done(grafana: Grafana, plan: Plan, folder: str | None, *, dry_run: bool) -> str:
    if plan.action not in LEFT_TO_DO:
        return f"{plan.uid}: unchanged"
    if plan.action is Action.UPDATE:
        click.echo(plan.diff, nl=False)
    if dry_run:
        return f"{plan.uid}: would be {plan.action.value}"
    return f"{plan.uid}: {plan.action.value}, version {carry_out(grafana, plan, folder)}"
