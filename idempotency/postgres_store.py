"""The store of authority `postgres`: one statement to claim, one to complete."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, cast

import psycopg

from . import postgres_sql as sql
from .errors import StoreUnavailable, UnreadableRecord
from .postgres_link import Connection, PostgresLink
from .record import RETENTION_US, Claim, Completion, Record, State, is_gone
from .redis_store import LOCK
from .store import ATTEMPTS, Found, Held, Result, SwapStore, done, unclaimed, waiting
from .wire import pack_waiters, unpack_waiters

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LATEST_US: Final = 253_402_300_799_000_000
"""The end of 9999: a record that a stranger wrote may say more."""
_RETENTION: Final = timedelta(microseconds=RETENTION_US)
CHANNEL: Final = "idemwatch_released"
LISTENERS: Final = 4
"""How many waiters of a process listen at once; the rest look again after LOOK_AGAIN_SECONDS."""
LOOK_AGAIN_SECONDS: Final = 0.5
FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""When a poisoned record expires: it waits for an operator."""


def to_time(us: int) -> datetime:
    """Microseconds since the epoch as an aware datetime, exactly."""
    return EPOCH + timedelta(microseconds=min(max(us, 0), _LATEST_US))


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since the epoch, exactly."""
    return (moment - EPOCH) // _MICROSECOND


class PostgresStore(SwapStore):
    """Records as rows of idempotency_record; keys are prefixed with the namespace."""

    name = "postgres"

    def __init__(self, link: PostgresLink, namespace: str, region: str = "") -> None:
        self._link = link
        self._head = f"{namespace}:"
        self._places = threading.BoundedSemaphore(LISTENERS)
        self._region = region

    def row_key(self, key: str) -> str:
        """The primary key of the record of `key`."""
        return self._head + key

    def _insert(self, claim: Claim) -> int | Found | None:
        values = self.claim_values(claim)
        return self._link.run(lambda connection: insert(connection, values, claim.key))

    def claim_values(self, claim: Claim) -> dict[str, Any]:
        """The parameters of the CLAIM statement."""
        lease = timedelta(microseconds=claim.lease_us)
        return {
            "key": self._head + claim.key,
            "owner": claim.owner,
            "lease": lease,
            "kept": lease + _RETENTION,
            "attempt": claim.attempt,
            "authority": claim.authority,
            "fingerprint": claim.fingerprint,
            "task_id": claim.task_id,
            "endpoint": claim.endpoint,
            "scope": claim.scope,
            "user_id": claim.user_id,
            "device_id": claim.device_id,
            "region": self._region,
        }

    def _swap(self, key: str, found: Found, new: Record) -> bool:
        values = swap_values(self._head + key, found, new)
        return self._link.run(lambda c: c.execute(sql.SWAP, values).rowcount) == 1

    def complete(self, held: Held, result: Result) -> Completion:
        ttl = timedelta(microseconds=result.ttl_us)
        values = {
            **self._owned(held),
            "ttl": ttl,
            "result_type": result.content_type or None,
            "result": result.data,
        }
        if self._link.run(lambda c: c.execute(sql.COMPLETE, values).rowcount) == 1:
            return Completion.STORED
        record = done(held, result, 0)
        if self._restore(held, record, kept=ttl, open_after=timedelta(0)):
            return Completion.STORED
        found = self.find(held.key)
        if found is None:
            return Completion.STALE
        if _is_of(held, found.record):  # written again, and the reply to that was lost
            return Completion.STORED
        forgotten = found.record.state is State.FORGOTTEN
        return Completion.FORGOTTEN if forgotten else Completion.STALE

    def _owned(self, held: Held) -> dict[str, Any]:
        return {
            "key": self._head + held.key,
            "owner": held.claim.owner,
            "fence": held.fence,
        }

    def park(self, held: Held, *, fingerprint: str, open_after_us: int) -> bool:
        open_after = timedelta(microseconds=open_after_us)
        record = waiting(held, fingerprint=fingerprint, due_us=0)
        values = {
            **self._owned(held),
            "open_after": open_after,
            "kept": _RETENTION,
            "attempt": record.attempt,
            "fingerprint": fingerprint,
        }
        if self._link.run(lambda c: c.execute(sql.PARK, values).rowcount) == 1:
            return True
        kept = open_after + _RETENTION
        if self._restore(held, record, kept=kept, open_after=open_after):
            return True
        found = self.find(held.key)
        return found is not None and _is_of(held, found.record) and found.record.state in _OPEN

    def _restore(
        self, held: Held, record: Record, *, kept: timedelta, open_after: timedelta
    ) -> bool:
        """Write a record that vanished; False if another stands there."""
        values = {
            **self.claim_values(held.claim),
            "state": str(record.state),
            "fence": record.fence or None,
            "open_after": open_after,
            "created_at": to_time(record.created_us) if record.created_us else None,
            "kept": kept,
            "attempt": record.attempt,
            "fingerprint": record.fingerprint,
            "result_type": record.result_type or None,
            "result": record.result,
        }
        return self._link.run(lambda c: c.execute(sql.RESTORE, values).rowcount) == 1

    def release(self, held: Held) -> bool:
        statement = sql.RELEASE_LOCK if held.claim.endpoint == LOCK else sql.RELEASE
        return self._release(statement, self._owned(held))

    def abandon(self, key: str, owner: str) -> bool:
        values = {"key": self._head + key, "owner": owner, "fence": None}
        return self._release(sql.RELEASE_LOCK, values)

    def _release(self, statement: str, values: dict[str, Any]) -> bool:
        def work(connection: Connection) -> bool:
            if connection.execute(statement, values).rowcount >= 1:
                return True
            return connection.execute(sql.EXISTS, (values["key"],)).fetchone() is None

        return self._link.run(work)

    def renew(self, held: Sequence[Held]) -> set[str]:
        leases = [timedelta(microseconds=one.claim.lease_us) for one in held]
        values = {
            "keys": [self._head + one.key for one in held],
            "owners": [one.claim.owner for one in held],
            "fences": [one.fence for one in held],
            "leases": leases,
            "kept": [lease + _RETENTION for lease in leases],
        }
        rows = self._link.run(lambda c: c.execute(sql.RENEW, values).fetchall())
        return {owner for (owner,) in rows}

    def find(self, key: str) -> Found | None:
        row = self._link.run(lambda c: c.execute(sql.FIND, (self._head + key,)).fetchone())
        return None if row is None else found_in(row, key)

    def put_done(self, held: Held, result: Result) -> bool:
        ttl = timedelta(microseconds=result.ttl_us)
        for _ in range(ATTEMPTS):
            found = self.find(held.key)
            if found is None:
                record = done(held, result, 0)
                if self._restore(held, record, kept=ttl, open_after=timedelta(0)):
                    return True
            elif not is_gone(found.record, found.now_us):
                return found.record.owner == held.claim.owner  # ours, whose reply was lost
            else:
                own = unclaimed(held, found, found.now_us)
                if self._swap(held.key, found, done(own, result, found.now_us)):
                    return True
        raise StoreUnavailable(self.name, f"{held.key} changed {ATTEMPTS} times while it was read")

    def wait_released(self, key: str, timeout_seconds: float) -> None:
        channel_key = hashlib.md5(self.row_key(key).encode(), usedforsecurity=False).hexdigest()
        deadline = time.monotonic() + timeout_seconds
        # Who shares a session hears no notice in it; and others need the pool's connections too.
        if self._link.pooled or not self._places.acquire(blocking=False):
            threading.Event().wait(min(timeout_seconds, LOOK_AGAIN_SECONDS))
            return
        try:
            self._listen(key, channel_key, deadline)
        finally:
            self._places.release()

    def _listen(self, key: str, channel_key: str, deadline: float) -> None:
        with self._listening() as connection:
            if connection.execute(sql.EXISTS, (self.row_key(key),)).fetchone() is None:
                return
            for notice in connection.notifies(timeout=max(0.01, deadline - time.monotonic())):
                if notice.payload == channel_key:
                    return

    @contextmanager
    def _listening(self) -> Iterator[Connection]:
        try:
            with self._link.connection() as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                try:
                    yield connection
                finally:
                    connection.execute(f"UNLISTEN {CHANNEL}")
        except psycopg.Error as error:
            raise StoreUnavailable(self.name, f"{type(error).__name__} while waiting") from error

    def ping(self) -> None:
        self._link.run(lambda c: c.execute("SELECT 1").fetchone())

    def poisoned(self) -> Iterable[str]:
        rows = self._link.run(lambda c: c.execute(sql.POISONED).fetchall())
        head = len(self._head)
        return [key[head:] for (key,) in rows if key.startswith(self._head)]

    def close(self) -> None:
        self._link.close()


def _is_of(held: Held, record: Record) -> bool:
    return (record.owner, record.fence) == (held.claim.owner, held.fence)


class Row(NamedTuple):
    """The columns of READ_COLUMNS, in their order."""

    state: str
    owner: str
    fence: int
    lease_until: datetime
    created_at: datetime
    expires_at: datetime
    attempt: int
    crashes: int
    authority: str
    request_hash: str
    task_id: str
    endpoint: str
    scope: str
    user_id: str | None
    device_id: str | None
    waiters: str
    result_type: str | None
    result: bytes | None
    now: datetime


def insert(
    connection: Connection | psycopg.Cursor[Any], values: dict[str, Any], key: str
) -> int | Found | None:
    """The fence of a new record, the record met, or None when that vanished: claim again."""
    row = connection.execute(sql.CLAIM, values).fetchone()
    if row is not None:
        return int(row[0])
    met = connection.execute(sql.FIND, (values["key"],)).fetchone()
    return None if met is None else found_in(met, key)


def found_in(values: tuple[Any, ...], key: str) -> Found:
    """The record in a row of READ_COLUMNS; its version is the lease_until and waiters read."""
    row = Row._make(values)
    try:
        record = Record(
            state=State(row.state),
            owner=row.owner,
            fence=row.fence,
            due_us=to_us(row.expires_at if row.state in _EXPIRING else row.lease_until),
            created_us=to_us(row.created_at),
            attempt=row.attempt,
            crashes=row.crashes,
            authority=row.authority,
            fingerprint=row.request_hash,
            task_id=row.task_id,
            endpoint=row.endpoint,
            scope=row.scope,
            user_id=row.user_id,
            device_id=row.device_id,
            waiters=unpack_waiters(row.waiters),
            result_type=row.result_type or "",
            result=None if row.result is None else bytes(row.result),
        )
    except ValueError as error:
        raise UnreadableRecord(
            "postgres", f"the record of {key} cannot be read ({error}): upgrade this worker"
        ) from error
    return Found(record, to_us(row.now), (row.lease_until, row.waiters))


_EXPIRING: Final = ("done", "forgotten")
_OPEN: Final = (State.RUNNING, State.WAITING)


def swap_values(row_key: str, found: Found, new: Record) -> dict[str, Any]:
    """The parameters of the SWAP statement."""
    lease_until, waiters = cast(tuple[datetime, str], found.version)
    now = to_time(found.now_us)
    due = to_time(new.due_us)
    expiring = new.state in _EXPIRING
    return {
        "key": row_key,
        "seen_owner": found.record.owner,
        "seen_fence": found.record.fence,
        "seen_state": str(found.record.state),
        "seen_lease_until": lease_until,
        "seen_waiters": waiters,
        "state": str(new.state),
        "owner": new.owner,
        "fence": new.fence,
        "lease_until": now if expiring or new.state is State.POISONED else due,
        "created_at": to_time(new.created_us),
        "expires_at": _expires(new, due),
        "completed_at": now if new.state is State.DONE else None,
        "attempt": new.attempt,
        "crashes": new.crashes,
        "authority": new.authority,
        "request_hash": new.fingerprint,
        "task_id": new.task_id,
        "endpoint": new.endpoint,
        "scope": new.scope,
        "user_id": new.user_id,
        "device_id": new.device_id,
        "waiters": pack_waiters(new.waiters) if new.waiters else "",
        "result_type": new.result_type or None,
        "result": new.result,
    }


def _expires(new: Record, due: datetime) -> datetime:
    if new.state is State.POISONED:
        return FAR
    return due if new.state in _EXPIRING else due + _RETENTION
