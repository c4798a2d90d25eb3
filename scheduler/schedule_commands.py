"""`idemwatch schedules`: what runs when, how crowded the day is, and how to clear it."""

from __future__ import annotations

import click
from idemwatch.idempotency.command_settings import Group

from .change_commands import apply, import_schedules, revert
from .view_commands import list_schedules, load, optimize, recommend


@click.group(cls=Group)
def schedules() -> None:
    """Look at schedules, find crowded times, and move schedules out of them.

    \b
    What is there, and when is it crowded?
        idemwatch schedules list --source crontab
        idemwatch schedules load --source beat.csv --capacity 20
    When should a new one run?
        idemwatch schedules recommend report 600 --business-hours-only
    Clear the crowd: look, apply, and take it back if need be.
        idemwatch schedules optimize
        idemwatch schedules apply
        idemwatch schedules revert 7

    Only the table can be changed; `import` brings other sources into it.

    \b
    Exit codes: 0 done, 1 failed or something cannot be read, 2 wrong usage,
    130 interrupted.
    """


for command in (list_schedules, load, recommend, optimize, apply, revert, import_schedules):
    schedules.add_command(command)
