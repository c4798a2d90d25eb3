"""`idemwatch rules build`: alert and recording rules as the files that Prometheus loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from .command_options import job_options, threshold_option
from .names import GRAFANA, RUNBOOKS
from .rule import Build
from .thresholds import Thresholds
from .whole_files import write
from .windows import MOST_SCALE, TimeScale

_URL: Final = re.compile(r"https?://[^\s\"'`{}<>\\?#]+")


def _scale(_ctx: click.Context, _param: click.Parameter, factor: float) -> TimeScale:
    try:
        return TimeScale(factor)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _address(_ctx: click.Context, _param: click.Parameter, url: str) -> str:
    """The name of a board or an alert is put behind it, and everybody reads it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise click.BadParameter("this is no address like https://host/path") from None
    if "@" in parts.netloc:
        raise click.BadParameter("a password in the address would be in every alert")
    if not host or port == 0 or not _URL.fullmatch(url):
        raise click.BadParameter(f"{url!r} is no address like https://host/path")
    return url.rstrip("/")


@click.group()
def rules() -> None:
    """Write the alert and recording rules that Prometheus loads."""


@rules.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@threshold_option
@job_options
@click.option(
    "--runbook-url", callback=_address, metavar="URL", default=RUNBOOKS, show_default=True,
    help="Where your copies of the runbooks are: an alert leads to URL/ALERT.md.",
)  # fmt: skip
@click.option(
    "--dashboard-url", callback=_address, metavar="URL", default=GRAFANA, show_default=True,
    help="Your Grafana: an alert leads to URL/d/BOARD.",
)  # fmt: skip
@click.option(
    "--time-scale", type=float, callback=_scale, metavar="NUMBER", default=1, show_default=True,
    help=f"Divide every window by this, 1 to {MOST_SCALE:g}, for a demonstration: 60 makes an "
    "hour a minute. Scrape each second then.",
)  # fmt: skip
def build(
    folder: Path,
    thresholds: Thresholds,
    job: str,
    worker_job: str,
    runbook_url: str,
    dashboard_url: str,
    time_scale: TimeScale,
) -> None:
    """Write recording.yml and alerts.yml into DIR, in place of what is there.

    \b
        idemwatch rules build /etc/prometheus/idemwatch \\
            --dashboard-url https://grafana.example.com --threshold hit_rate=0.1
        promtool check rules /etc/prometheus/idemwatch/*.yml

    Then Prometheus loads them, and again when it is told to (kill -HUP):

    \b
        rule_files:
          - idemwatch/*.yml

    With a threshold of your own, say the same to `idemwatch exporter` and `idemwatch boards
    build`. Two installations under one Prometheus: other jobs, another DIR.

    Exit codes: 0 written, 1 the folder cannot be written, 2 wrong usage.
    """
    if job == worker_job:
        raise click.UsageError(f"--job and --worker-job are both {job!r}: they are two jobs")
    made = Build(
        thresholds=thresholds,
        scale=time_scale,
        job=job,
        worker_job=worker_job,
        runbook_url=runbook_url,
        dashboard_url=dashboard_url,
    )
    for name in _write(folder, made):
        click.echo(f"wrote {folder / name}")


def _write(folder: Path, made: Build) -> list[str]:
    from .rule_files import texts

    try:
        files = texts(made)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f'rules needs {error.name}: pip install "idemwatch[server]"'
        ) from error
    try:
        write(folder, files)
    except OSError as error:
        place = error.filename or folder
        raise click.ClickException(
            f"{str(folder)!r} cannot be written: {error.strerror} ({str(place)!r})"
        ) from error
    return list(files)
