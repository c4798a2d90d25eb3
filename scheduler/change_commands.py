"""`idemwatch schedules apply | revert | import`: what they write is shown and asked for before."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from idemwatch.idempotency.command_settings import (
    Command,
    app_of,
    database_option,
    redis_option,
    settings_for,
)
from idemwatch.idempotency.printing import printable

from .change_store import ChangeRecord
from .changes import Change, moves
from .command_options import fleet_options, read_fleet
from .command_steps import (
    all_option,
    open_table,
    operator,
    planned,
    strategy_option,
    tell_problems,
    yes_option,
)
from .errors import UnknownChange
from .importing import import_of
from .inventory import Inventory
from .load_view import counted
from .model import Schedule
from .plan_view import MOST_SHOWN, plan_view
from .schedule_store import ScheduleStore
from .sources import read_source
from .terminal import screen, show

BATCH: Final = 500
"""Schedules that are added in one transaction."""
TABLE: Final = "table"


@click.command(cls=Command)
@strategy_option
@all_option
@yes_option
@fleet_options
@click.pass_context
def apply(ctx: click.Context, /, strategy: str, whole: bool, yes: bool, **options: Any) -> None:
    """Move schedules of the table as planned. Asks first.

    The plan is that of `optimize` with the same options, made again and shown. All moves are made
    or none: if a schedule was changed meanwhile, nothing is written. Applied twice, a plan changes
    nothing more. Another source than the table is not changed: the changes to make by hand are
    listed, and the exit code is 1.

    \b
        idemwatch schedules apply --strategy spread
        idemwatch schedules apply --yes
    """
    fleet, on = read_fleet(ctx, **options), screen()
    found, advice = planned(fleet, strategy)
    show(plan_view(found, advice, fleet.zone, on, whole=whole), on)
    changes = moves(found.moves)
    if changes and fleet.inventory.source != TABLE:
        _refuse(changes, fleet.inventory)
    if changes:
        _ask(yes, f"Move {counted(len(changes), 'schedule')}?")
        with open_table(ctx, options["database_url"]) as table:
            change = table.apply(changes, operator())
        click.echo(f"change {change}: {counted(len(changes), 'schedule')} moved")
        click.echo(f"to undo it: idemwatch schedules revert {change}")
    tell_problems(ctx, fleet.inventory.problems, fleet.inventory.doubts)


def _ask(yes: bool, question: str) -> None:
    if not yes:
        click.confirm(question, abort=True)


def _refuse(changes: Sequence[Change], inventory: Inventory) -> None:
    """The changes for whoever makes them by hand; raises ClickException."""
    click.echo("\nchanges to make by hand:")
    for change in changes:
        place = change.before.place or inventory.source
        click.echo(printable(f"{place}: {change}"))
    raise click.ClickException(
        f"only the table can be changed, and these schedules are in {inventory.source}; "
        "`idemwatch schedules import` brings them into the table"
    )


@click.command(cls=Command)
@click.argument("change_id", metavar="ID", type=click.IntRange(min=1))
@all_option
@yes_option
@database_option
@click.pass_context
def revert(
    ctx: click.Context, change_id: int, whole: bool, yes: bool, database_url: str | None
) -> None:
    """Put back what change ID changed. Asks first.

    It is refused as a whole if one of its schedules was changed again since. What puts it back is
    a change of its own, which can be reverted too.

    \b
        idemwatch schedules revert 7
    """
    with open_table(ctx, database_url) as table:
        record = _revertible(table, change_id)
        show(_put_back(record, None if whole else MOST_SHOWN), screen())
        _ask(yes, f"Put back {counted(len(record.changes), 'schedule')}?")
        again = table.revert(change_id, operator())
    click.echo(f"change {again}: {counted(len(record.changes), 'schedule')} put back")
    click.echo(f"to undo it: idemwatch schedules revert {again}")


def _revertible(table: ScheduleStore, change_id: int) -> ChangeRecord:
    """The change, looked at before anybody is asked; the write decides again."""
    found = table.changes(change_id)
    if not found:
        raise UnknownChange(change_id, "there is none of this id")
    if found[0].reverted_by is not None:
        raise UnknownChange(change_id, f"it was reverted already, by change {found[0].reverted_by}")
    return found[0]


def _put_back(record: ChangeRecord, most: int | None) -> list[str]:
    lines = [
        printable(str(Change(before=one.after, after=one.before, reason="revert")))
        for one in record.changes
    ]
    shown = lines[:most]
    if len(shown) < len(lines):
        shown.append(f"... and {len(lines) - len(shown):,} more (--all shows all)")
    made = f"change {record.change_id}, made {record.at:%Y-%m-%d %H:%M} UTC by {record.by}"
    return [f"{printable(made)}; to be put back:", *shown]


@click.command("import", cls=Command)
@click.option(
    "--source", metavar="SOURCE",
    help="As for the other commands, but not the table. Default: the app's beat_schedule.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@redis_option
@database_option
@click.pass_context
def import_schedules(
    ctx: click.Context,
    source: str | None,
    dry_run: bool,
    yes: bool,
    redis_url: str | None,
    database_url: str | None,
) -> None:
    """Bring the schedules of a source into the table. Asks first.

    What means the same as a schedule of the table is there already, also when that one was moved
    since; so importing again adds nothing. What the table cannot hold is refused with its reason,
    and the rest goes on.

    \b
        idemwatch schedules import --source crontab --dry-run
        celery -A proj idemwatch schedules import --source django
    """
    settings = settings_for(ctx, redis_url=redis_url, database_url=database_url)
    if source == TABLE or (source is None and app_of(ctx) is None):
        raise click.UsageError("say --source: what is to be brought into the table", ctx)
    inventory = read_source(source or "beat", app=app_of(ctx), settings=settings)
    with open_table(ctx, database_url) as table:
        found = import_of(inventory, table.schedules().schedules)
        added = len(found.new)
        if added and not dry_run:
            _ask(yes, f"Add {counted(added, 'schedule')} of {inventory.source} to the table?")
            added = _add(table, found.new)
    known = found.known + len(found.new) - added
    click.echo(f"{added:,} {'would be new' if dry_run else 'new'}, {known:,} already there, "
               f"{len(found.refused):,} refused")  # fmt: skip
    tell_problems(ctx, found.refused, inventory.doubts)


def _add(table: ScheduleStore, schedules: Sequence[Schedule]) -> int:
    """How many were new, batch by batch: one that was begun is finished by importing again."""
    added = 0
    hidden = len(schedules) <= BATCH or not sys.stderr.isatty()
    with click.progressbar(
        length=len(schedules), label="import", file=sys.stderr, hidden=hidden
    ) as bar:
        for first in range(0, len(schedules), BATCH):
            batch = schedules[first : first + BATCH]
            added += sum(table.insert(batch))
            bar.update(len(batch))
    return added
