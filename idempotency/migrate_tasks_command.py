"""`idemwatch migrate-tasks`: its options, and an exit code for every end."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from .errors import ConfigurationError
from .policies import POLICIES
from .printing import print_text, printable
from .report_file import require_folder, write_report
from .task_files import Trouble, is_there, python_files
from .task_migration import Change, migrate, told
from .task_model import Action
from .task_progress import progress
from .task_report import json_report, text_report
from .task_sarif import sarif_report
from .task_tree import Analysis, analyse, names_of_task, narrowed, unknown_tasks
from .whole_file import replace_whole

DONE: Final = 0
LEFT: Final = 1
FAILED: Final = 3
NEXT: Final = (
    "next: give the app idempotency_database_url and idempotency_redis_url, run `celery -A proj "
    "idemwatch db upgrade`, and restart the workers"
)


class _FailedError(click.ClickException):
    """The report could not be written."""

    exit_code = FAILED


@dataclass(slots=True)
class Run:
    """What the options ask for, and what was done."""

    analyze: bool
    dry_run: bool
    backup: bool
    form: str
    output: Path | None
    changes: list[Change] = field(default_factory=list)

    def say(self, lines: Sequence[str], *, err: bool = False) -> None:
        """Lines for whoever runs the command; standard output keeps the report alone."""
        aside = err or self.dry_run or self.form != "text" or self.output is not None
        print_text("".join(f"{printable(line)}\n" for line in lines), err=aside)

    def done(self, change: Change) -> None:
        self.changes.append(change)
        if not self.dry_run:
            self.say(told(change))


@click.command("migrate-tasks")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path())
@click.option("--analyze", is_flag=True, help="Say what is recommended and why; change nothing.")
@click.option(
    "--category", "categories", multiple=True, type=click.Choice([*POLICIES], case_sensitive=False),
    help="Only tasks that this category is recommended for. May be given more than once.",
)  # fmt: skip
@click.option(
    "--task", "tasks", metavar="NAME", multiple=True,
    help="Only this task: its name, its function's, or FILE:FUNCTION. May be given more than once.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the changes as a diff; change nothing.")
@click.option("--backup", is_flag=True, help="Keep the old content in FILE.orig.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text",
    show_default=True, help="sarif is for code scanning and for editors.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the report, or the diff, there: whole or not at all.",
)  # fmt: skip
@click.pass_context
def migrate_tasks(
    ctx: click.Context, /, paths: tuple[str, ...], categories: tuple[str, ...],
    tasks: tuple[str, ...], **given: Any,
) -> None:  # fmt: skip
    """Make plain Celery tasks idempotent: find them in the files and folders PATH (here, if none
    is named), recommend how each is protected, and change the source.

    Nothing of the code is run or imported. A task's own options stay; where two calls with the
    same arguments may be two pieces of work, only redeliveries of a message are turned away, and
    the report says what to change to have more. Look at --analyze first.

    \b
    What is there, and what is recommended for each task and why:
        idemwatch migrate-tasks --analyze
    Look at the changes of one task, make them, and keep the old files:
        idemwatch migrate-tasks proj/ --task auto_close_jobs --dry-run
        idemwatch migrate-tasks proj/ --task auto_close_jobs --backup
    All tasks of a category:
        idemwatch migrate-tasks proj/ --category critical
    In CI, beside the lines:
        idemwatch migrate-tasks proj/ --analyze --format sarif --output t.sarif

    \b
    Exit codes:
      0    done, or nothing to do
      1    something is left to do: with --analyze and --dry-run tasks to
           migrate or findings above a note, else tasks to migrate by hand
      2    wrong usage: an unknown option, path or task; nothing was changed
      3    a file could not be read, parsed or written; the others were done
      130  interrupted: each file is as it was, or wholly migrated
    """
    run = Run(**given)
    _check(run, paths)
    found = _read(run, paths)
    _check_names(found, tasks)
    analysis = narrowed(found, categories, tasks)
    if not run.analyze:
        _migrate(run, analysis)
    ctx.exit(_report(run, analysis))


def _read(run: Run, paths: Sequence[str]) -> Analysis:
    files = list(python_files(paths or (".",)))
    _check_output(run, files)
    with progress("Reading", files) as step:
        return analyse(files, step)


def _check(run: Run, paths: Sequence[str]) -> None:
    if run.analyze and (run.dry_run or run.backup):
        raise click.UsageError("--analyze changes nothing: leave --dry-run and --backup away")
    if run.dry_run and run.backup:
        raise click.UsageError("--dry-run changes nothing, so there is nothing to --backup")
    for path in paths:
        if not is_there(path):
            raise click.UsageError(f"no file or folder {path!r}")
    if run.output is not None:
        try:
            require_folder(run.output)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error


def _check_output(run: Run, files: Sequence[str | Trouble]) -> None:
    """A report must not take the place of what it is about."""
    if run.output is None or not run.output.exists():
        return
    if any(isinstance(one, str) and _same(run.output, one) for one in files):
        raise click.UsageError(f"--output {str(run.output)!r} is one of the files to read")


def _same(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _check_names(analysis: Analysis, tasks: Sequence[str]) -> None:
    for name in unknown_tasks(analysis, tasks):
        known = sorted({one for report in analysis.reports for one in names_of_task(report)})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; --analyze lists them"
        raise click.UsageError(f"no task {name!r} was found{hint}")


def _migrate(run: Run, analysis: Analysis) -> None:
    try:
        analysis.troubles += migrate(
            analysis, backup=run.backup, dry_run=run.dry_run, done=run.done
        )
    except KeyboardInterrupt:
        if not run.dry_run:
            told_so_far = f"{len(run.changes)} files were migrated, the others are as they were"
            run.say([told_so_far], err=True)
        raise


def _exit_code(run: Run, analysis: Analysis) -> int:
    if analysis.failed:
        return FAILED
    if run.analyze:
        return LEFT if analysis.open else DONE
    by_hand = analysis.count(Action.BY_HAND) or analysis.dynamic
    return LEFT if by_hand or (run.dry_run and run.changes) else DONE


def _report(run: Run, analysis: Analysis) -> int:
    code = _exit_code(run, analysis)
    if run.form == "text" and not run.analyze:
        if run.dry_run:
            _diff(run)
        run.say(_summary(run, analysis), err=bool(analysis.failed))
        return code
    text = _rendered(run, analysis, code)
    if run.output is None:
        print_text(text)
        return code
    _written(run.output, text)
    run.say([f"{run.output}: {len(analysis.reports)} tasks"], err=True)
    return code


def _rendered(run: Run, analysis: Analysis, code: int) -> str:
    match run.form:
        case "json":
            return json_report(analysis, code, changes=[_as_json(one) for one in run.changes])
        case "sarif":
            return sarif_report(analysis, code, metadata.version("idemwatch"), Path.cwd())
        case _:
            return text_report(analysis)


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "file": change.path, "tasks": change.tasks, "backup": change.backup or None,
        "diff": change.diff.decode("utf-8", "replace") or None,
    }  # fmt: skip


def _written(path: Path, text: str) -> None:
    try:
        write_report(path, text)
    except ConfigurationError as error:
        raise _FailedError(str(error)) from error


def _diff(run: Run) -> None:
    """The diff has the bytes of the files, whatever their encodings are."""
    diff = b"".join(one.diff for one in run.changes)
    if run.output is None:
        click.echo(diff, nl=False)
        return
    try:
        replace_whole(run.output.resolve(), diff)
    except OSError as error:
        raise _FailedError(f"cannot write {str(run.output)!r}: {error.strerror}") from error


def _summary(run: Run, analysis: Analysis) -> list[str]:
    lines = [f"by hand: {one.path}:{one.line}: {one.name}: {one.why}"
             for one in analysis.reports if one.action is Action.BY_HAND]  # fmt: skip
    lines += [f"by hand: {path}:{one.line}: {one.what} makes tasks that the source does not tell"
              for path, one in analysis.dynamic]  # fmt: skip
    lines += [_trouble(one) for one in analysis.troubles]
    tasks = sum(len(one.tasks) for one in run.changes)
    verb = "would be migrated" if run.dry_run else "migrated"
    already = analysis.count(Action.ALREADY)
    files = f"{len(run.changes)} file{'' if len(run.changes) == 1 else 's'}"
    if tasks and not run.dry_run:
        lines.append(NEXT)
    return [*lines, f"{tasks} of {len(analysis.reports)} tasks {verb} in {files}"
                    + (f"; {already} are idempotent already" if already else "")]  # fmt: skip


def _trouble(one: Trouble) -> str:
    where = f"{one.path}:{one.line}" if one.line else one.path
    return f"{'left out' if one.skipped else 'failed'}: {where}: {one.problem}"
