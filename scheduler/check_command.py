"""Commands that check something end with 3 when they could not, so that 1 and 2 tell findings."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import click
from idemwatch.idempotency.command_settings import LOG
from idemwatch.idempotency.errors import IdempotencyError

from .exit_codes import COULD_NOT_RUN, INTERRUPTED


class CouldNotRun(click.ClickException):
    """Nothing was checked."""

    exit_code = COULD_NOT_RUN


class WrongUsage(click.UsageError):
    """Nothing was checked, as an option is wrong."""

    exit_code = COULD_NOT_RUN


class CheckCommand(click.Command):
    """A command that ends with 3 whenever it could not run, also for a wrong option or a crash."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            raise WrongUsage(error.format_message(), error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        LOG.addHandler(logging.NullHandler())  # what a failure logs, its error says once
        try:
            ctx.exit(super().invoke(ctx))
        except (click.exceptions.Exit, click.Abort):
            raise
        except click.ClickException as error:
            raise CouldNotRun(error.format_message()) from error
        except KeyboardInterrupt:  # under celery too, which would make a 1 of it
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except IdempotencyError as error:
            raise CouldNotRun(str(error)) from error
        except Exception as error:
            raise CouldNotRun(self.unforeseen(error)) from error

    def unforeseen(self, error: Exception) -> str:
        """What is told of an error that nobody foresaw."""
        return "".join(traceback.format_exception(error)).rstrip()
