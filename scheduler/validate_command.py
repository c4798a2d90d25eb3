"""`idemwatch validate-schedules`: its options, and an exit code for every end.

What needs numpy is imported when the command runs, so that its absence can be told with exit code
3: any other code would tell CI that something was validated.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .check_command import CheckCommand
from .command_options import fleet_options

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS: Final = ("text", "json", "sarif", "junit")
EXTRA: Final = 'pip install "idemwatch[schedules]"'
CHOSEN: Final = {
    "check_duplicates": "duplicates",
    "check_hotspots": "hotspots",
    "check_idempotency": "idempotency",
}
"""The check of each option that asks for one alone."""


class _Command(CheckCommand):
    def unforeseen(self, error: Exception) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name == "numpy":
            return f"validate-schedules needs {error.name}: {EXTRA}"
        return super().unforeseen(error)


@click.command("validate-schedules", cls=_Command)
@click.option("--verbose", is_flag=True, help="Tell of each check, and show the day's load.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
    help="json has a published schema, sarif is for code scanning, junit for GitLab and Jenkins.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the report there, whole or not at all.",
)  # fmt: skip
@click.option(
    "--schedule-id", metavar="ID",
    help="Tell only of the schedule of this id or name, as one of its fleet.",
)  # fmt: skip
@click.option("--check-duplicates", is_flag=True, help="Check only for schedules that mean one.")
@click.option("--check-hotspots", is_flag=True, help="Check only for half hours over 70% load.")
@click.option(
    "--check-idempotency", is_flag=True,
    help="Check only duplicates of the last hour, tasks and keys. The three go together.",
)  # fmt: skip
@click.option(
    "--fix", is_flag=True,
    help="Cancel duplicates and move schedules out of hotspots, in one transaction; only in the "
    "table. Of another source the changes are printed as a patch, and the exit code is 3.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what --fix would do, and change nothing.")
@click.option(
    "--fail-on", type=click.Choice(["warning", "error"]), default="warning", show_default=True,
    help="With error, warnings alone are exit code 0.",
)  # fmt: skip
@fleet_options
@click.pass_context
def validate_schedules(ctx: click.Context, /, **given: Any) -> int:
    """Check schedules for duplicates, hotspots, overlaps, wrong expressions and tasks that would
    not be safe to run twice.

    \b
    All checks, on the table, or on a file of your repository:
        idemwatch validate-schedules --verbose
        idemwatch validate-schedules --source deploy/crontab --capacity 20
    With what only your app knows, its beat_schedule, tasks and keys:
        celery -A proj idemwatch validate-schedules
    In CI, where the exit code decides and the report is kept:
        idemwatch validate-schedules --source cron.csv --format sarif \\
            --output schedules.sarif --fail-on error
    Look at what would be changed, change it, and take it back:
        idemwatch validate-schedules --fix --dry-run
        idemwatch validate-schedules --fix
        idemwatch schedules revert 7

    \b
    Exit codes:
      0    all checks passed
      1    warnings (0 with --fail-on error)
      2    errors: rows that cannot be read, duplicates, tasks with more than
           10 duplicates in the last hour, keys that would swallow firings, a
           health score below 60
      3    it could not run: a wrong option, a source or server that cannot be
           read, --fix on anything but the table
      130  interrupted
    """
    from .validation_run import Wanted, run

    wanted, options = _wanted(given)
    return run(ctx, Wanted(**wanted), options)


_OF_RUN: Final = (
    "verbose", "form", "output", "schedule_id", "fix", "dry_run", "fail_on",
)  # fmt: skip


def _wanted(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to do, and which fleet to do it with."""
    checks = tuple(check for option, check in CHOSEN.items() if given[option])
    wanted = {name: given[name] for name in _OF_RUN}
    own = {*_OF_RUN, *CHOSEN}
    options = {name: value for name, value in given.items() if name not in own}
    return {**wanted, "chosen": checks}, options
