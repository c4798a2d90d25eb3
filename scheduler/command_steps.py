"""The steps that commands of schedules take in common: read the fleet, plan, tell what is wrong."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
from idemwatch.idempotency.command_settings import settings_for
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.printing import printable

from .advice import Advice, advice_of
from .command_options import Fleet
from .inventory import Problem
from .planner import STRATEGIES, Plan, plan
from .schedule_store import ScheduleStore
from .terminal import explained

F = TypeVar("F", bound=Callable[..., Any])
MOST_PROBLEMS: Final = 100

format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
strategy_option = click.option(
    "--strategy", type=click.Choice(STRATEGIES), default="balanced", show_default=True,
    help="balanced: the fewest moves until no minute is over 70%. spread: the whole plan, with the "
    "lowest peak. consolidate: runs of one task side by side, under 70%.",
)  # fmt: skip
all_option = click.option("--all", "whole", is_flag=True, help="Show every line, not only 20.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def planned(fleet: Fleet, strategy: str) -> tuple[Plan, list[Advice]]:
    """The plan for a fleet, and its moves with what they are worth."""
    schedules, slots = fleet.inventory.schedules, fleet.capacity.slots
    with explained("planning", len(schedules)):
        found = plan(schedules, fleet.now, capacity=slots, strategy=strategy)
        return found, advice_of(found)


def as_json(value: object) -> str:
    """JSON to read."""
    return json.dumps(value, indent=2)


def tell_problems(
    ctx: click.Context, problems: Sequence[Problem], doubts: Sequence[Problem] = ()
) -> None:
    """Tell on stderr what is wrong, and end with 1 if something could not be read."""
    told = [*problems, *doubts]
    for problem in told[:MOST_PROBLEMS]:
        click.echo(printable(str(problem)), err=True)
    if len(told) > MOST_PROBLEMS:
        click.echo(f"... and {len(told) - MOST_PROBLEMS:,} more", err=True)
    if problems:
        ctx.exit(1)


@contextmanager
def open_table(ctx: click.Context, database_url: str | None) -> Iterator[ScheduleStore]:
    """The table in the database that the settings name. Raises ConfigurationError."""
    settings = settings_for(ctx, database_url=database_url)
    if settings.database_url is None:
        raise ConfigurationError(
            "idempotency_database_url",
            "is not set: the table needs it, say --database-url postgresql://user@host/db",
        )
    link = PostgresLink(settings.database_url, pooled=settings.database_pooled)
    try:
        yield ScheduleStore(link)
    finally:
        link.close()


def operator() -> str:
    """Who is noted for a change: the login name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
