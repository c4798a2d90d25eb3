"""What the commands of schedules share: the fleet that they look at, and its options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
from idemwatch.idempotency.command_settings import (
    app_of,
    database_option,
    redis_option,
    settings_for,
)
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.settings import Settings

from .capacity import Capacity, capacity_of
from .clock import zone_of
from .inventory import Inventory
from .sources import read_source

F = TypeVar("F", bound=Callable[..., Any])
MEASURED: Final = ("beat", "redbeat")
"""Sources, beside the table, whose tasks leave records in the database."""
YEARS: Final = range(1970, 2200)
"""Those in which a week may be looked at."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """An inventory, and what it is judged by: capacity, the moment, the zone of half hours."""

    inventory: Inventory
    capacity: Capacity
    now: datetime
    zone: str


class Number(click.FloatRange):
    """A number within a range, which `nan` is not."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def fleet_options(command: F) -> F:
    """--source, --capacity, --at, --timezone and the servers' addresses."""
    options = (
        click.option(
            "--source", metavar="SOURCE",
            help="table, beat, redbeat, django, or a file or folder (CSV, crontab, Kubernetes "
            "manifests; csv: crontab: system-crontab: k8s: before its name say which, csv:- reads "
            "standard input). Default: the table, else the app's beat_schedule.",
        ),
        click.option(
            "--capacity", type=Number(min=0.01, max=1_000_000), metavar="SLOTS",
            help="Runs that the workers take at once. Default: the sum of the live workers' "
            "concurrency, else idempotency_schedule_capacity, else 14.",
        ),
        click.option(
            "--at", "moment", metavar="TIME",
            help="Look at the week from this time on, as 2026-03-01T08:00 (UTC). Default: now.",
        ),
        click.option(
            "--timezone", "zone", default="UTC", show_default=True, metavar="ZONE",
            help="Half hours and times are those of this zone.",
        ),
        redis_option,
        database_option,
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def read_fleet(
    ctx: click.Context,
    *,
    source: str | None,
    capacity: float | None,
    moment: str | None,
    zone: str,
    redis_url: str | None,
    database_url: str | None,
) -> Fleet:
    """The fleet that the options name. Raises ConfigurationError and what `read_source` raises."""
    zone_of(zone)
    now = moment_of(moment)
    app = app_of(ctx)
    settings = settings_for(ctx, redis_url=redis_url, database_url=database_url)
    inventory = _measured(read_source(source, app=app, settings=settings), settings)
    return Fleet(inventory, capacity_of(capacity, app, settings), now, zone)


def _measured(inventory: Inventory, settings: Settings) -> Inventory:
    """Of an app's schedules the durations are those of its tasks, as far as a database knows."""
    if inventory.source not in MEASURED or settings.database_url is None:
        return inventory
    from .table_source import measured_by_task

    try:
        return measured_by_task(inventory, settings)
    except StoreUnavailable as error:
        click.echo(f"durations are estimates: {error}", err=True)
        return inventory


def moment_of(given: str | None) -> datetime:
    """A moment from an option; now for None. Raises ConfigurationError."""
    if given is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise ConfigurationError("--at", f"{given!r} is no time, as 2026-03-01T08:00") from None
    if moment.year not in YEARS:
        told = f"{given!r} is not from {YEARS.start} to {YEARS.stop - 1}"
        raise ConfigurationError("--at", told)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
