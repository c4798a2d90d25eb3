"""`idemwatch schedules list | load | recommend | optimize`: they look, and write nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from idemwatch.idempotency.command_settings import Command

from .command_options import Fleet, fleet_options, read_fleet
from .command_steps import (
    all_option,
    as_json,
    format_option,
    planned,
    strategy_option,
    tell_problems,
)
from .coordinator import ScheduleCoordinator, plan_answer
from .health import health
from .load_view import Day, load_chart, load_json, load_summary
from .model import Status
from .plan_view import plan_view
from .recommend import PRIORITIES, TASK_TYPES, WEEKDAYS
from .recommend_view import recommendation_view
from .schedule_view import chosen, schedule_json, schedule_table, upcoming
from .starts import starts_by_slot
from .terminal import explained, screen, show

STATUSES: Final = ("active", *(status.lower() for status in Status))
_time = click.DateTime(formats=["%H:%M"])


@click.command("list", cls=Command)
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option("--task", metavar="NAME", help="Only those of this task; * stands for anything.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many. Default: all.")
@format_option
@fleet_options
@click.pass_context
def list_schedules(
    ctx: click.Context,
    /,
    status: str | None,
    task: str | None,
    limit: int | None,
    form: str,
    **options: Any,
) -> None:
    """List schedules, those that run next first.

    \b
        idemwatch schedules list --source crontab --timezone Europe/Paris
        idemwatch schedules list --task 'reports.*' --status active --limit 20
        idemwatch schedules list --format json | jq '.[].name'

    What cannot be read is told on stderr, and ends the command with 1; the rest is shown.
    """
    options["capacity"] = options["capacity"] or 1.0  # not looked at: no worker need be asked
    fleet, on = read_fleet(ctx, **options), screen()
    asked = chosen(fleet.inventory.schedules, status=status, task=task)
    with explained("looking at", len(asked)):
        found = upcoming(asked, fleet.now)[:limit]
    if form == "json":
        show([as_json([schedule_json(one, fleet.zone) for one in found])], on)
    elif found:
        show(schedule_table(found, fleet.zone, on), on)
    else:
        click.echo("no such schedules" if status or task else "no schedules", err=True)
    tell_problems(ctx, fleet.inventory.problems, fleet.inventory.doubts)


@click.command(cls=Command)
@format_option
@fleet_options
@click.pass_context
def load(ctx: click.Context, /, form: str, **options: Any) -> None:
    """Draw the day: the highest load of each half hour over the week.

    Load is the runs at once by what the workers take at once. Marks are at 50% and 70%; over 70%
    a half hour is a hotspot. The last column counts the schedules that start there.

    \b
        idemwatch schedules load --source crontab --capacity 20
        idemwatch schedules load --timezone America/New_York --format json
    """
    fleet, on = read_fleet(ctx, **options), screen()
    day = _day(fleet)
    if form == "json":
        show([as_json(load_json(day))], on)
    else:
        show([*load_chart(day, on), "", *load_summary(day, on)], on)
    tell_problems(ctx, fleet.inventory.problems, fleet.inventory.doubts)


def _day(fleet: Fleet) -> Day:
    schedules = fleet.inventory.schedules
    with explained("looking at", len(schedules)):
        found = health(schedules, fleet.now, capacity=fleet.capacity.slots, zone=fleet.zone)
        starts = starts_by_slot(schedules, found.load, fleet.zone)
    return Day(found, starts, fleet.capacity, fleet.zone)


@click.command(cls=Command)
@click.argument("task_type", type=click.Choice(TASK_TYPES))
@click.argument("duration_seconds", type=click.FloatRange(min=0, min_open=True))
@click.option("--priority", type=click.Choice(PRIORITIES), default="medium", show_default=True)
@click.option("--business-hours-only", is_flag=True, help="From 09:00 to 17:00.")
@click.option("--not-before", type=_time, metavar="HH:MM", help="Not earlier in the day.")
@click.option("--not-after", type=_time, metavar="HH:MM", help="Not later in the day.")
@click.option(
    "--day", "days", type=click.Choice(WEEKDAYS, case_sensitive=False), multiple=True,
    help="Only on this day; may be given more than once.",
)  # fmt: skip
@click.option(
    "--avoid-dst/--no-avoid-dst", default=True, show_default=True,
    help="Avoid times that a change of the clock skips or repeats.",
)  # fmt: skip
@format_option
@fleet_options
@click.pass_context
def recommend(
    ctx: click.Context,
    /,
    task_type: str,
    duration_seconds: float,
    priority: str,
    business_hours_only: bool,
    not_before: datetime | None,
    not_after: datetime | None,
    days: tuple[str, ...],
    avoid_dst: bool,
    form: str,
    **options: Any,
) -> None:
    """Find the quietest time for a new schedule, and two others.

    TASK_TYPE is report, maintenance or critical; DURATION_SECONDS is what a run takes.

    \b
        idemwatch schedules recommend report 600
        idemwatch schedules recommend maintenance 3600 --not-after 05:00 --day sun
        idemwatch schedules recommend critical 30 --business-hours-only
    """
    fleet, on = read_fleet(ctx, **options), screen()
    times = {"not_before": not_before, "not_after": not_after}
    constraints = {
        "business_hours_only": business_hours_only, "days": days, "avoid_dst": avoid_dst,
        **{name: given.time() for name, given in times.items() if given is not None},
    }  # fmt: skip
    capacity, now = fleet.capacity.slots, fleet.now
    coordinator = ScheduleCoordinator(
        fleet.inventory.schedules, capacity=capacity, zone=fleet.zone, now=lambda: now
    )
    found = coordinator.recommend_schedule_time(task_type, duration_seconds, priority, constraints)
    show([as_json(found)] if form == "json" else recommendation_view(found, fleet.zone, on), on)
    tell_problems(ctx, fleet.inventory.problems, fleet.inventory.doubts)


@click.command(cls=Command)
@strategy_option
@all_option
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Also save the plan in this file, as JSON.",
)  # fmt: skip
@format_option
@fleet_options
@click.pass_context
def optimize(
    ctx: click.Context,
    /,
    strategy: str,
    whole: bool,
    output: Path | None,
    form: str,
    **options: Any,
) -> None:
    """Show what to move, and the day before and after. Writes nothing: see `apply`.

    A schedule stays within its window, and what is not movable stays where it is. The
    lower bound is the highest load that every plan has.

    \b
        idemwatch schedules optimize --source crontab --capacity 20
        idemwatch schedules optimize --strategy spread --output plan.json
    """
    fleet, on = read_fleet(ctx, **options), screen()
    found, advice = planned(fleet, strategy)
    if output is not None or form == "json":
        told = as_json(plan_answer(found, fleet.inventory.schedules, fleet.zone))
    if output is not None:
        _save(output, told)
    if form == "json":
        show([told], on)
    else:
        show(plan_view(found, advice, fleet.zone, on, whole=whole), on)
    tell_problems(ctx, fleet.inventory.problems, fleet.inventory.doubts)


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    click.echo(f"the plan is in {path}", err=True)
