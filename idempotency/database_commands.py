"""`idemwatch db` and `idemwatch purge`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from .command_settings import Command, Group, database_option, settings_for
from .errors import ConfigurationError
from .postgres_link import PostgresLink
from .purge_store import BATCH_ROWS, expired
from .purge_store import purge as purge_batches
from .schema import REQUIRED_REVISION


def _database(ctx: click.Context, given: str | None) -> tuple[str, bool | None]:
    """Its URL, and whether a pooler shares its sessions, where that is told."""
    settings = settings_for(ctx, database_url=given)
    if settings.database_url is None:
        raise ConfigurationError(
            "idempotency_database_url", "is not set: say --database-url postgresql://user@host/db"
        )
    return settings.database_url, settings.database_pooled


def _revisions(url: str) -> str:
    """Where the database stands, each line of the history that it has."""
    from . import migrate

    found = (migrate.current(url, branch) for branch in (migrate.TRUNK, *migrate.BRANCHES))
    return " + ".join(one for one in found if one) or "empty"


@click.group(cls=Group)
def db() -> None:
    """Migrate the database that keeps the records."""


@db.command()
@click.argument("revision", default="head")
@database_option
@click.pass_context
def upgrade(ctx: click.Context, revision: str, database_url: str | None) -> None:
    """Bring the schema up to REVISION (default: the newest).

    Safe while workers run, and when two run it at once. Indexes are built concurrently. The tables
    of the demo's facility application are made by `facility` alone. Needs PostgreSQL itself, not a
    pooler before it that shares sessions.
    """
    from . import migrate

    url, pooled = _database(ctx, database_url)
    before = _revisions(url)
    migrate.upgrade(url, revision, pooled=pooled)
    after = _revisions(url)
    click.echo(f"already at {after}" if before == after else f"{before} -> {after}")


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_option
@click.pass_context
def downgrade(ctx: click.Context, revision: str, yes: bool, database_url: str | None) -> None:
    """Take the schema back to REVISION; "base" removes all tables, with their records.

    "facility@base" removes the tables of the demo's facility application.
    """
    from . import migrate

    url, pooled = _database(ctx, database_url)
    before = _revisions(url)
    if not yes:
        click.confirm(
            f"Going back from {before} to {revision} may delete records, and then "
            "finished work may be done again. Go on?",
            abort=True,
        )
    migrate.downgrade(url, revision, pooled=pooled)
    click.echo(f"{before} -> {_revisions(url)}")


@db.command()
@database_option
@click.pass_context
def current(ctx: click.Context, database_url: str | None) -> None:
    """Show the revision of the database; exit 1 unless it is the one this code needs."""
    from . import migrate

    found = migrate.current(_database(ctx, database_url)[0])
    click.echo(f"database: {found or 'not migrated'}, this code needs: {REQUIRED_REVISION}")
    if found != REQUIRED_REVISION:
        newer = found is not None and found > REQUIRED_REVISION
        click.echo("upgrade idemwatch here" if newer else "run `idemwatch db upgrade`", err=True)
        ctx.exit(1)


@db.command()
def history() -> None:
    """List all steps, the oldest first, and those of the branch `facility` after them."""
    from . import migrate

    for branch in (migrate.TRUNK, *migrate.BRANCHES):
        for step in migrate.history(branch):
            click.echo(f"{step.revision}  {step.summary}")


@db.command()
@click.argument("end", default="head")
@click.option("--from", "start", default="base", show_default=True, help="Revision to start at.")
def sql(end: str, start: str) -> None:
    """Print the SQL of the steps up to END, for review; nothing is run.

    With --from newer than END it is the SQL of the way back. With --from facility@base, `facility`
    is its branch alone.
    """
    from . import migrate

    click.echo(migrate.sql(start, end), nl=False)


@click.command(cls=Command)
@click.option(
    "--batch", "batch_rows", type=click.IntRange(1, 100_000), default=BATCH_ROWS, show_default=True,
    help="Rows of one transaction.",
)  # fmt: skip
@click.option("--max-seconds", type=click.FloatRange(min=0.1), help="Stop after this time.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@database_option
@click.pass_context
def purge(
    ctx: click.Context,
    batch_rows: int,
    max_seconds: float | None,
    dry_run: bool,
    database_url: str | None,
) -> None:
    """Delete expired records from PostgreSQL, and statistics and firings of more than 30 days.

    Runs beside working workers. Poisoned keys stay until `idemwatch keys forget`.
    """
    url, pooled = _database(ctx, database_url)
    link = PostgresLink(url, pooled=pooled)
    try:
        count = expired(link)
        if dry_run:
            click.echo(f"{count} expired records would be deleted")
            return
        deleted = _purge(link, count, batch_rows, max_seconds)
    finally:
        link.close()
    click.echo(f"{deleted} expired records deleted")


def _purge(link: PostgresLink, count: int, batch_rows: int, max_seconds: float | None) -> int:
    deadline = time.monotonic() + max_seconds if max_seconds else None
    deleted = 0
    with _progress(count) as bar:
        for rows in purge_batches(
            link,
            batch_rows=batch_rows,
            stop=lambda: deadline is not None and time.monotonic() > deadline,
        ):
            deleted += rows
            bar.update(rows)
    return deleted


def _progress(count: int) -> Any:
    hidden = not sys.stderr.isatty()
    return click.progressbar(length=count, label="purge", file=sys.stderr, hidden=hidden)
