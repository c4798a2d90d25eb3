"""`idemwatch keys`: what stands in the way of a piece of work, and how to let it be done again."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from .command_settings import Group, database_option, redis_option, settings_for
from .errors import ConfigurationError, UnreadableRecord
from .keys import readable
from .listing_store import Entry, PostgresListing, RedisListing, created
from .record import State
from .redis_link import RedisLink
from .settings import Settings
from .store import Store
from .stores import Stores
from .why_command import why

FORMATS = click.Choice(["table", "json"])


class Places:
    """Where keys may stand, as far as the settings name it."""

    def __init__(self, settings: Settings) -> None:
        self._stores = Stores(settings, answer_seconds=None)
        database = self._stores.database()
        if database is None and settings.redis_url is None:
            raise ConfigurationError(
                "idempotency_database_url", "is not set, nor is idempotency_redis_url: say "
                "--database-url or --redis-url",
            )  # fmt: skip
        self.listings: list[PostgresListing | RedisListing] = []
        self.authorities: list[str] = []
        if database is not None:
            self.listings.append(PostgresListing(database, settings.namespace))
            self.authorities.append("postgres")
        if settings.redis_url is not None:
            link = RedisLink.from_url(settings.redis_url)
            self.listings.append(RedisListing(link, settings.namespace))
            self.authorities.append("redis")

    def entries(self, key: str) -> list[Entry]:
        """What the places hold of a key."""
        found = (listing.get(key) for listing in self.listings)
        return [entry for entry in found if entry is not None]

    def store(self, authority: str) -> Store:
        """The store that decides."""
        return self._stores.get(authority)

    def close(self) -> None:
        """Give back all connections."""
        self._stores.close()


@contextmanager
def _places(
    ctx: click.Context, redis_url: str | None, database_url: str | None
) -> Iterator[Places]:
    places = Places(settings_for(ctx, redis_url=redis_url, database_url=database_url))
    try:
        yield places
    finally:
        places.close()


@click.group(cls=Group)
def keys() -> None:
    """Look at keys, and forget one that is stuck or poisoned."""


keys.add_command(why)


@keys.command()
@click.argument("key")
@click.option("--format", "form", type=FORMATS, default="table", show_default=True)
@redis_option
@database_option
@click.pass_context
def show(
    ctx: click.Context, key: str, form: str, redis_url: str | None, database_url: str | None
) -> None:
    """Show the record of KEY, in PostgreSQL and in Redis. Exit 1 if there is none."""
    key = readable(key)
    with _places(ctx, redis_url, database_url) as places:
        entries = places.entries(key)
    if not entries:
        raise click.ClickException(f"no record of {key}: its work may be done")
    if form == "json":
        click.echo(json.dumps([entry.as_json() for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(_described(entry, datetime.now(UTC)))


@keys.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]))
@click.option("--task", metavar="NAME", help="Only keys of this task.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--format", "form", type=FORMATS, default="table", show_default=True)
@redis_option
@database_option
@click.pass_context
def list_keys(
    ctx: click.Context,
    state: str | None,
    task: str | None,
    limit: int,
    form: str,
    redis_url: str | None,
    database_url: str | None,
) -> None:
    """List keys, the newest first; --state poisoned lists those that wait for you.

    Poisoned keys and those of a --task are found by an index. Another --state reads on until it
    has found enough, and Redis is read as a whole: with millions of keys that takes minutes.
    """
    with _places(ctx, redis_url, database_url) as places:
        entries = heapq.nlargest(
            limit,
            itertools.chain.from_iterable(
                listing.entries(state=state, task=task, limit=limit) for listing in places.listings
            ),
            key=created,
        )
    if form == "json":
        click.echo(json.dumps([entry.as_json() for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(f"{entry.state:<9}  {entry.created_at:%Y-%m-%d %H:%M:%S}  {entry.key}")
    if not entries:
        click.echo("no such keys", err=True)


@keys.command()
@click.argument("key_names", metavar="KEY...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@redis_option
@database_option
@click.pass_context
def forget(
    ctx: click.Context,
    key_names: tuple[str, ...],
    yes: bool,
    redis_url: str | None,
    database_url: str | None,
) -> None:
    """Forget KEY..., so that the work may be done again. Asks first.

    A holder that still runs cannot bring the record back. Name both servers, as the workers have
    them: a cache that is not asked goes on answering. Exit 1 if a key is not there.
    """
    missing = 0
    with _places(ctx, redis_url, database_url) as places:
        for key in key_names:
            missing += not _forget(places, readable(key), yes=yes)
    if missing:
        ctx.exit(1)


def _forget(places: Places, key: str, *, yes: bool) -> bool:
    try:
        entries = places.entries(key)
        authorities = list(dict.fromkeys(entry.authority for entry in entries))
        for entry in entries:
            click.echo(_described(entry, datetime.now(UTC)))
    except UnreadableRecord as error:
        click.echo(str(error), err=True)
        authorities = places.authorities
    if not authorities:
        click.echo(f"no record of {key}", err=True)
        return False
    if not yes:
        click.confirm(f"Forget {key}? Its work may then be done again.", abort=True)
    deciders = dict.fromkeys("redis" if one == "redis" else "postgres" for one in authorities)
    for authority in deciders:
        places.store(authority).forget(key)
    click.echo(f"forgotten: {key}")
    return True


def _described(entry: Entry, now: datetime) -> str:
    lines: list[tuple[str, Any]] = [
        ("key", entry.key),
        ("in", entry.place),
        ("state", entry.state),
        ("authority", entry.authority),
        ("task", entry.endpoint),
        ("task id", entry.task_id or None),
        ("scope", entry.scope),
        ("attempt", entry.attempt),
        ("crashes", entry.crashes),
        ("fence", entry.fence),
        ("lease until", _moment(entry.lease_until, now)),
        ("created", _moment(entry.created_at, now)),
        ("completed", _moment(entry.completed_at, now)),
        ("expires", _moment(entry.expires_at, now)),
        ("hits", entry.hit_count),
        ("result", _size(entry)),
    ]
    return "".join(f"{name:>12}  {value}\n" for name, value in lines if value is not None)


def _moment(moment: datetime | None, now: datetime) -> str | None:
    if moment is None or moment.year > 9000:
        return None
    seconds = (moment - now).total_seconds()
    distance = f"in {seconds:.0f} s" if seconds > 0 else f"{-seconds:.0f} s ago"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({distance})"


def _size(entry: Entry) -> str | None:
    if entry.result_bytes is None:
        return "not kept" if entry.state == "done" else None
    return f"{entry.result_bytes} bytes of {entry.result_type}"
