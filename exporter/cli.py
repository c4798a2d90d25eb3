"""The command `idemwatch`, also as `celery -A proj idemwatch`.

Celery loads this module at every worker start, so the commands are imported when they are called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from .worker import install_signals

COMMANDS = {
    "boards": (
        "dashboards.boards_command", "boards", "Build Grafana's boards, and push them there.",
    ),
    "db": ("idempotency.database_commands", "db", "Migrate the database that keeps the records."),
    "doctor": (
        "exporter.doctor_command", "doctor",
        "Check versions, servers, tasks, clocks and metrics, and say what to change.",
    ),
    "exporter": (
        "exporter.exporter_command", "exporter",
        "Serve /metrics: stores, records, schedules, beats, workers, queues.",
    ),
    "keys": ("idempotency.key_commands", "keys", "Look at keys, and forget one that is stuck."),
    "migrate-tasks": (
        "idempotency.migrate_tasks_command", "migrate_tasks",
        "Find plain tasks in your code, say how to protect each, and change the source.",
    ),
    "purge": ("idempotency.database_commands", "purge", "Delete expired records."),
    "rules": ("alerts.rules_command", "rules", "Build Prometheus' recording and alert rules."),
    "schedules": (
        "scheduler.schedule_commands", "schedules",
        "Look at schedules, and move them out of crowded times.",
    ),
    "simulate": (
        "demo.simulate_command", "simulate",
        "Make trouble for tasks, and tell what ran twice with and without idemwatch.",
    ),
    "validate-schedules": (
        "scheduler.validate_command", "validate_schedules",
        "Check schedules, for people and for CI: exit 0, 1 (warnings), 2 (errors) or 3.",
    ),
}  # fmt: skip
EXTRAS = {"numpy": "schedules", "yaml": "web", "grafanalib": "server", "libcst": "server"}
"""Which extra brings a package that a command may lack."""
SERVERS = ("boards", "exporter", "migrate-tasks", "rules")
"""Commands of a monitoring host: what they need is in one extra, `server`."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(_imported(cmd_name, module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


def _imported(command: str, module: str) -> Any:
    try:
        return import_module(f"idemwatch.{module}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = "server" if command in SERVERS else EXTRAS[error.name]
        raise click.ClickException(
            f'{command} needs {error.name}: pip install "idemwatch[{extra}]"'
        ) from error


def _version() -> str:
    from importlib.metadata import version

    return version("idemwatch")


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"idemwatch {_version()}")
        ctx.exit()


@click.group("idemwatch", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
def cli() -> None:
    """Celery tasks that do their work once, and the metrics that show it.

    Settings come from IDEMWATCH_REDIS_URL, IDEMWATCH_DATABASE_URL and others, or from your app:
    celery -A proj idemwatch COMMAND.
    """


def main() -> None:
    """Run the command. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(_run())


def _run() -> int:
    try:
        code: Any = cli.main(prog_name="idemwatch", standalone_mode=False)
    except click.exceptions.Abort as abort:
        # Ctrl-C; at a question it is only the context.
        interrupted = isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt)
        click.echo("interrupted" if interrupted else "nothing was changed", err=True)
        return 130 if interrupted else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0


install_signals()
