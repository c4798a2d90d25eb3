"""PostgreSQL's part of `idemwatch doctor`: version, schema, rights, records, beats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idemwatch.idempotency.errors import StoreUnavailable

from . import doctor_postgres_store as store
from .doctor_clock import clock_finding, looks, skew
from .doctor_findings import Finding, error, info, listed, ok, warning
from .doctor_postgres_store import BEAT_RIGHTS, LATE_HOURS, MOST_LATE, WORKER_RIGHTS, Role
from .doctor_versions import postgres_finding

STATISTICS: Final = ("endpoint_stats", "endpoint_bucket")
LIVE_SECONDS: Final = 30
"""As scheduler/gauges.py has it, which needs numpy: a worker's host has none."""


class Postgres:
    """The checks on one database."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url, self._namespace = url, namespace

    def answers(self) -> Iterator[Finding]:
        """Does it answer, and is it migrated."""
        with store.connected(self._url) as connection:
            number, mismatch = store.server(connection)
        yield postgres_finding(number)
        yield schema_finding(mismatch)

    def rights(self) -> Iterator[Finding]:
        """May the role do what a worker must, and no more."""
        with store.connected(self._url) as connection:
            role = store.role(connection)
        yield from role_findings(role)

    def clock(self) -> Iterator[Finding]:
        """Its clock beside that of this host."""
        with store.connected(self._url) as connection:
            found = skew(looks(lambda: store.clock(connection)))
        yield clock_finding("PostgreSQL", found)

    def records(self) -> Iterator[Finding]:
        """Poisoned keys, and records that nobody purges."""
        with store.connected(self._url) as connection:
            poisoned, late = store.records(connection, self._namespace)
        yield poisoned_finding("PostgreSQL", poisoned)
        yield late_finding(late)

    def beats(self) -> Iterator[Finding]:
        """Does a beat live where there are schedules."""
        try:
            with store.connected(self._url) as connection:
                active, live, overdue = store.schedules(connection, LIVE_SECONDS)
        except StoreUnavailable as problem:
            if not store.is_refused(problem):
                raise
            yield info("beats", "not looked at: this role may not read the tables of schedules")
            return
        yield from beat_findings(active, live, overdue)


def schema_finding(mismatch: str) -> Finding:
    """`mismatch`: what is wrong, "" if nothing."""
    if not mismatch:
        return ok("migrations", "the schema is that of this code")
    told, _, change = mismatch.rpartition(": ")
    return error("migrations", told, change)


def role_findings(role: Role) -> Iterator[Finding]:
    """What a role lacks, and what it has too much."""
    if role.standby:
        told = "PostgreSQL is a standby: no claim can be written"
        yield error("rights", told, "give the address of the primary")
    elif role.read_only:
        told = "transactions are read-only (default_transaction_read_only): no claim can be written"
        change = (
            f"ALTER ROLE {role.name} SET default_transaction_read_only = off, if it is no standby"
        )
        yield error("rights", told, change)
    if role.superuser:
        yield warning(
            "rights", f"role {role.name} is a superuser",
            "let workers use a role that owns nothing and has SELECT, INSERT, UPDATE and DELETE on "
            "idemwatch's tables",
        )  # fmt: skip
    elif role.powerful:
        told = f"role {role.name} may create roles or databases, replicate or pass row security"
        less = "NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
        yield warning("rights", told, f"ALTER ROLE {role.name} {less}")
    if role.migrated:
        yield from _table_findings(role)


def _table_findings(role: Role) -> Iterator[Finding]:
    if role.owned and not role.superuser:
        told = f"role {role.name} owns {listed(role.owned)}, so it could drop its records"
        yield info("rights", told, "let a role of its own run `idemwatch db upgrade`")
    lacking = [table for table in WORKER_RIGHTS if table in role.missing]
    for table in lacking:
        rights = ", ".join(role.missing[table])
        told = f"role {role.name} lacks {rights} on {table}"
        grant = f"GRANT {rights} ON {table} TO {role.name}; and USAGE on its schema"
        if table in STATISTICS:
            yield warning("rights", f"{told}: hits are not counted", grant)
        else:
            yield error("rights", f"{told}: a worker with this role fails", grant)
    beats = [table for table in BEAT_RIGHTS if table in role.missing]
    if beats:
        told = f"role {role.name} lacks rights on {listed(beats)}: enough for workers, not for beat"
        yield info("rights", told)
    if not lacking:
        yield ok("rights", f"role {role.name} may do all that a worker does")


def poisoned_finding(place: str, number: int) -> Finding:
    """Keys that wait for an operator."""
    if not number:
        return ok("records", f"no poisoned key in {place}")
    told = f"{number} poisoned {'key' if number == 1 else 'keys'} in {place}: nothing runs for them"
    change = (
        "`idemwatch keys list --state poisoned`, `idemwatch keys why KEY`; find the cause, then "
        "`idemwatch keys forget KEY`"
    )
    return warning("records", told, change)


def late_finding(late: int) -> Finding:
    """Expired records that are still there."""
    if late < MOST_LATE:
        return ok("records", f"expired records are purged ({late} older than {LATE_HOURS} h)")
    told = f"{MOST_LATE:,} records or more expired over {LATE_HOURS} h ago and are still there"
    return warning("records", told, "run `idemwatch purge` each hour, by cron or as a task of beat")


def beat_findings(active: int, live: int, overdue: int) -> Iterator[Finding]:
    """Beats, where the table has schedules."""
    if not active:
        yield ok("beats", "no active schedule in the table, so no beat is needed")
        return
    if not live:
        told = (
            f"{active} active schedules in the table, and no beat has ticked for {LIVE_SECONDS} s"
        )
        yield error("beats", told, "start `celery -A proj beat` with idemwatch's scheduler")
    else:
        yield ok("beats", f"{live} live, for {active} active schedules")
    if overdue:
        told = f"{overdue} schedules are overdue beyond their grace"
        yield warning(
            "beats", told, "see the log of the beats, and whether the broker takes messages"
        )
