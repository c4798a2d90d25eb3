"""Options of more than one command: thresholds, and the jobs that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .names import STATE_JOB, WORKER_JOB, job_name
from .thresholds import RANGES, Thresholds, chosen

F = TypeVar("F", bound=Callable[..., Any])


def threshold_option(command: F) -> F:
    """--threshold, as `thresholds`: the whole of them."""
    return click.option(
        "--threshold", "thresholds", multiple=True, metavar="NAME=NUMBER", callback=_thresholds,
        help="Another limit for boards and alerts; may be repeated. NAME is one of "
        f"{', '.join(RANGES)}.",
    )(command)  # fmt: skip


def job_options(command: F) -> F:
    """--job and --worker-job."""
    told = (("--worker-job", WORKER_JOB, "the workers"), ("--job", STATE_JOB, "the state exporter"))
    for name, default, whose in told:
        command = click.option(
            name, callback=_job, metavar="JOB", default=default, show_default=True,
            help=f"The Prometheus job of {whose}.",
        )(command)  # fmt: skip
    return command


def _thresholds(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> Thresholds:
    try:
        return chosen(pairs)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _job(_ctx: click.Context, _param: click.Parameter, name: str) -> str:
    try:
        return job_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
