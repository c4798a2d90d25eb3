"""What every command needs: the settings, and errors as one line without a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import click

from .errors import IdempotencyError
from .settings import Settings, load

LOG: Final = logging.getLogger("idemwatch")
F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose errors of ours are one line on stderr, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        LOG.addHandler(logging.NullHandler())  # what a failure logs, its error says once
        try:
            return super().invoke(ctx)
        except IdempotencyError as error:
            raise click.ClickException(str(error)) from error


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def app_of(ctx: click.Context) -> Any | None:
    """The user's app under `celery -A proj idemwatch`; None standalone.

    Without -A Celery hands over an app called "default", which is nobody's.
    """
    app = getattr(ctx.find_root().obj or ctx.obj, "app", None)
    return None if app is None or app.main == "default" else app


def settings_for(
    ctx: click.Context, *, redis_url: str | None = None, database_url: str | None = None
) -> Settings:
    """The app's settings if there is an app, else the environment's; options win."""
    app = app_of(ctx)
    if app is None:
        settings = load()
    else:
        from .app_settings import settings_of

        settings = settings_of(app)
    return replace(
        settings,
        redis_url=redis_url or settings.redis_url,
        database_url=database_url or settings.database_url,
    )


def database_option(command: F) -> F:
    """--database-url."""
    text = "PostgreSQL; default IDEMWATCH_DATABASE_URL, or the app's idempotency_database_url."
    return click.option("--database-url", metavar="URL", help=text)(command)


def redis_option(command: F) -> F:
    """--redis-url."""
    text = "Redis; default IDEMWATCH_REDIS_URL, or the app's idempotency_redis_url."
    return click.option("--redis-url", metavar="URL", help=text)(command)
