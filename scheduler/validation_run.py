"""One run of `idemwatch validate-schedules`: read, ask, judge, mend if told to, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
from idemwatch.idempotency.command_settings import app_of, settings_for
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.report_file import require_folder
from idemwatch.idempotency.settings import Settings

from .changes import Change
from .check_command import CouldNotRun
from .command_options import Fleet, read_fleet
from .command_steps import open_table, operator
from .findings import CHECKS, Severity
from .idempotency_checks import Evidence
from .patch import patch_of
from .remedy import remedies
from .report import Report
from .report_output import Output
from .terminal import explained
from .validation import validate

TABLE: Final = "table"
NO_DATABASE: Final = "duplicates of the last hour: no database is named (--database-url)"
NO_APP: Final = (
    "tasks and their keys: no app is given (celery -A proj idemwatch validate-schedules)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The command's options. `chosen`: the checks that were asked for alone; empty for all."""

    verbose: bool = False
    form: str = "text"
    output: Path | None = None
    schedule_id: str | None = None
    chosen: tuple[str, ...] = ()
    fix: bool = False
    dry_run: bool = False
    fail_on: str = "warning"

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks to make."""
        return self.chosen or tuple(CHECKS)

    @property
    def file(self) -> Path | None:
        """Where the report goes; None for standard output."""
        return None if self.output is None or str(self.output) == "-" else self.output

    @property
    def mends(self) -> bool:
        """Whether changes are worked out."""
        return self.fix or self.dry_run


def run(ctx: click.Context, wanted: Wanted, options: Mapping[str, Any]) -> int:
    """The exit code. Raises CouldNotRun, ConfigurationError and what reading the fleet raises."""
    if wanted.mends and wanted.schedule_id is not None:
        raise CouldNotRun("--fix mends the whole fleet: leave --schedule-id out")
    if wanted.file is not None:
        require_folder(wanted.file)
    out = Output(wanted.form, wanted.file, verbose=wanted.verbose)
    fleet = read_fleet(ctx, **options)
    report = _judged(ctx, wanted, options, fleet)
    if wanted.mends:
        report = _mended(ctx, wanted, options, fleet, report, out)
    else:
        out.report(report)
    return report.exit_code(Severity(wanted.fail_on))


def _judged(ctx: click.Context, wanted: Wanted, options: Mapping[str, Any], fleet: Fleet) -> Report:
    evidence = Evidence()
    if "idempotency" in wanted.checks:
        evidence = _evidence(ctx, options, fleet)
    if "idempotency" in wanted.chosen and {NO_DATABASE, NO_APP} <= {*evidence.unasked}:
        raise ConfigurationError(
            "--check-idempotency", f"there is nobody to ask. {NO_DATABASE}; {NO_APP}"
        )
    with explained("validating", len(fleet.inventory.schedules)):
        return validate(
            fleet.inventory,
            fleet.now,
            fleet.capacity,
            zone=fleet.zone,
            checks=wanted.checks,
            evidence=evidence,
            only=wanted.schedule_id,
        )


def _evidence(ctx: click.Context, options: Mapping[str, Any], fleet: Fleet) -> Evidence:
    """What the database and the app tell, where they are named."""
    settings = settings_for(
        ctx, redis_url=options["redis_url"], database_url=options["database_url"]
    )
    duplicates, app = _duplicates(settings), app_of(ctx)
    calls = None
    if app is not None:
        from .task_checks import call_facts

        calls = call_facts(app, fleet.inventory)
    missing = ((NO_DATABASE, duplicates), (NO_APP, calls))
    return Evidence(duplicates, calls, tuple(told for told, found in missing if found is None))


def _duplicates(settings: Settings) -> dict[str, int] | None:
    if settings.database_url is None:
        return None
    from idemwatch.idempotency.postgres_link import PostgresLink
    from idemwatch.idempotency.statistics_store import duplicates_last_hour

    link = PostgresLink(settings.database_url, pooled=settings.database_pooled)
    try:
        return duplicates_last_hour(link)
    finally:
        link.close()


def _mended(
    ctx: click.Context,
    wanted: Wanted,
    options: Mapping[str, Any],
    fleet: Fleet,
    report: Report,
    out: Output,
) -> Report:
    """The report after the changes; as it was where none may be made."""
    changes = tuple(_remedies(wanted, fleet))
    told = replace(report, changes=changes)
    if wanted.dry_run or not changes:
        out.report(told)
        _propose(changes, report.source, out)
        return told
    if report.source != TABLE:
        out.report(told)
        _propose(changes, report.source, out)
        raise CouldNotRun(
            f"nothing was changed: --fix changes the table only, and these schedules are in "
            f"{report.source}; make the changes above by hand, or say --dry-run to look at them"
        )
    return _applied(ctx, wanted, options, changes, out)


def _remedies(wanted: Wanted, fleet: Fleet) -> list[Change]:
    schedules = fleet.inventory.schedules
    with explained("planning", len(schedules)):
        return remedies(
            schedules,
            fleet.now,
            capacity=fleet.capacity.slots,
            checks=wanted.checks,
            zone=fleet.zone,
        )


def _propose(changes: Sequence[Change], source: str, out: Output) -> None:
    """What would be changed: of files a patch, else a list."""
    if not changes:
        out.say(["Nothing to fix."])
        return
    patch, rest = patch_of(changes, _text) if source != TABLE else ("", changes)
    if patch:
        out.say(["", "A patch to make by hand (patch -p1):"])
        out.raw(patch)
    if rest:
        out.say(["", f"{len(rest):,} changes:" if len(rest) > 1 else "1 change:"])
        out.changes(rest)


def _text(path: str) -> str:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return file.read()


def _applied(
    ctx: click.Context,
    wanted: Wanted,
    options: Mapping[str, Any],
    changes: tuple[Change, ...],
    out: Output,
) -> Report:
    """Shown, made in one transaction, and judged again."""
    out.say([f"{len(changes):,} changes:" if len(changes) > 1 else "1 change:"])
    out.changes(changes)
    with open_table(ctx, options["database_url"]) as table:
        change_id = table.apply(changes, f"{operator()}, validate-schedules --fix")
    out.say([f"Made as change {change_id}; to undo it: idemwatch schedules revert {change_id}", ""])
    again = _judged(ctx, wanted, options, read_fleet(ctx, **options))
    report = replace(again, changes=changes, change_id=change_id)
    out.report(report)
    return report
