"""`idemwatch simulate`: its options, and an exit code for every end."""

from __future__ import annotations

import random
import shlex
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from idemwatch.idempotency.command_settings import app_of
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError
from idemwatch.scheduler.command_options import Number

from .interrupts import Interrupted, Interrupts
from .json_file import json_option, write_json
from .simulate_plan import WORKS_PER_SECOND, Options

if TYPE_CHECKING:
    from .simulate_report import Report
    from .simulate_run import UsersApp

F = TypeVar("F", bound=Callable[..., Any])
FAILED: Final = 1
COULD_NOT_RUN: Final = 3
MAX_WORKS: Final = 20_000
DEFAULT: Final = Options()
HELP: Final = """Make trouble for tasks, and tell what ran twice with and without idemwatch.

The same plan (messages published twice, processes and workers killed, tasks that outlast the
broker's patience, stores that are away) is played under plain Celery with its safest settings, and
then under idemwatch, on servers of its own. By default the tasks are samples whose effects are rows
of a ledger: some commit with their record, some have a target that refuses a second one, some have
no guard at all. Such an effect may be repeated after an attempt that died; that has a row of its
own. It takes about a minute.

With an app, your own tasks run, for real: each with --call, in which {n} is another number for each
piece of work. Broker, results and records are those of the simulation, but what your tasks connect
to themselves is yours. Under plain Celery they run with idempotency_enabled=False.

\b
Examples:
  idemwatch simulate --seed 1 --json out.json
  idemwatch simulate --works 40 --duplicates 1 --kills 0 --redelivery 0 --outages 0
  celery -A proj idemwatch simulate --works 20 \\
      --call 'proj.close_job:[{n}, "2026-03-01"]' --call 'proj.report:{"year": {n}}' \\
      --yes-run-my-tasks

\b
Exit codes: 0 idemwatch doubled and lost nothing, 1 it did (or plain Celery lost work), 2 wrong
usage, 3 it could not run, 130 Ctrl-C. What your task fails at on both sides is told, and is no 1.
"""


def rate_option(name: str, text: str, most: float = 1.0) -> Callable[[F], F]:
    """An option for a rate."""
    return click.option(
        f"--{name}",
        type=Number(0, most),
        default=getattr(DEFAULT, name),
        show_default=True,
        metavar="RATE",
        help=text,
    )


@click.command("simulate", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seed", type=click.IntRange(0, 2**31), help="Of the plan. Default: another each time."
)
@click.option(
    "--seconds",
    type=Number(1, 3600),
    metavar="SECONDS",
    help=f"Publish for so long, {WORKS_PER_SECOND:g} pieces of work a second. "
    f"Default: {DEFAULT.seconds:g}.",
)
@click.option(
    "--works", type=click.IntRange(1, MAX_WORKS),
    help=f"Or so many pieces of work. Default: {DEFAULT.works}.",
)  # fmt: skip
@rate_option("duplicates", "Works that are published more than once.")
@rate_option("kills", "Works whose process, or whole worker, is killed in the middle.")
@rate_option("redelivery", "Works that take longer than the broker waits.")
@rate_option("outages", "Part of the time in which a store is away, at most 0.5.", 0.5)
@click.option(
    "--workers", type=click.IntRange(1, 16), default=DEFAULT.workers, show_default=True,
    help="Workers on each side, with 4 processes each.",
)  # fmt: skip
@click.option("--app", "spec", metavar="APP", help="Your app, as for celery -A.")
@click.option(
    "--call", "given", multiple=True, metavar="TASK:JSON",
    help="A task of the app, and its arguments: a list or an object. May be repeated.",
)  # fmt: skip
@click.option(
    "--yes-run-my-tasks", "consent", is_flag=True,
    help="Really run them: what they do elsewhere happens, and more than once.",
)  # fmt: skip
@json_option("report")
@click.option(
    "--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True,
    help="What is printed.",
)  # fmt: skip
@click.pass_context
def simulate(ctx: click.Context, /, **given: Any) -> None:
    # Its help is HELP.
    options, seed = _options(given), given["seed"]
    seed = random.randrange(10_000) if seed is None else seed
    interrupts = Interrupts()
    with interrupts.handled(), _told_as_exit_codes(ctx):
        report = _report(ctx, seed, options, given)
    click.echo(report.as_json() if given["form"] == "json" else report.as_text(), nl=False)
    with _told_as_exit_codes(ctx):
        write_json(given["json_file"], report.as_json())
    ctx.exit(FAILED if report.failures else 0)


@contextmanager
def _told_as_exit_codes(ctx: click.Context) -> Iterator[None]:
    """What kept it from a verdict; 1 would say that there was one."""
    try:
        yield
    except Interrupted as signal:
        click.echo("interrupted; nothing was counted", err=True)
        ctx.exit(signal.exit_code)
    except (click.exceptions.Exit, click.ClickException):
        raise
    except (IdempotencyError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        ctx.exit(COULD_NOT_RUN)
    except Exception as error:  # nobody foresaw it, so all of it is told
        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
        ctx.exit(COULD_NOT_RUN)


def _options(given: dict[str, Any]) -> Options:
    seconds, works = given["seconds"], given["works"]
    if seconds is not None and works is not None:
        raise click.UsageError("--seconds and --works say the same: give one of them")
    if works is not None:
        seconds = max(1.0, works / WORKS_PER_SECOND)
    elif seconds is not None:
        works = max(1, round(seconds * WORKS_PER_SECOND))
    chosen = {"seconds": seconds, "works": works} if works is not None else {}
    rates = ("duplicates", "kills", "redelivery", "outages", "workers")
    return Options(**chosen, **{name: given[name] for name in rates})


def _report(ctx: click.Context, seed: int, options: Options, given: dict[str, Any]) -> Report:
    from .simulate_extra import require_extra

    require_extra()
    from .simulate_progress import bars
    from .simulate_run import prepared, simulate

    users = _users(ctx, given)
    try:
        made, calls = prepared(seed, options, users)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    if users is not None:
        _require_consent(users, [call.task for call in calls], given["consent"])
    spec = None if users is None else users.spec
    with bars() as progress:
        return simulate(made, calls, spec, _command(seed, given, users), progress)


def _users(ctx: click.Context, given: dict[str, Any]) -> UsersApp | None:
    """The user's app, if there is one. Raises click.UsageError."""
    from .simulate_users import templates_of, users_app

    app = None if given["spec"] else app_of(ctx)
    spec = given["spec"] or (ctx.find_root().params.get("app") if app is not None else None)
    if spec is None:
        if given["given"]:
            raise click.UsageError("--call needs your app: --app, or celery -A proj idemwatch")
        return None
    return users_app(str(spec), app, templates_of(given["given"]))


def _require_consent(users: UsersApp, tasks: list[str], consent: bool) -> None:
    counted = ", ".join(f"{name} ({tasks.count(name)} calls)" for name in sorted(set(tasks)))
    told = (
        f"this runs tasks of {users.spec} for real: {counted}. Broker, results and records are the "
        "simulation's own, but what the tasks connect to themselves (databases, mail, HTTP) is "
        "not: it really happens, and more than once."
    )
    if not consent:
        raise click.UsageError(f"{told} Where that is harmless, add --yes-run-my-tasks")
    click.echo(told, err=True)


def _command(seed: int, given: dict[str, Any], users: UsersApp | None) -> str:
    """How to have the same again."""
    words = ["idemwatch", "simulate", "--seed", str(seed)]
    for name in (field.name for field in fields(Options)):
        value = given[name]
        if value not in (None, getattr(DEFAULT, name)):
            words += [f"--{name}", str(value)]
    if users is not None:
        words += ["--app", users.spec]
        words += [word for call in given["given"] for word in ("--call", call)]
        words.append("--yes-run-my-tasks")
    return shlex.join(words)
