"""Records as an operator sees them: from PostgreSQL, and from Redis as decider or as cache."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from .errors import UnreadableRecord
from .postgres_link import PostgresLink
from .postgres_store import to_time
from .record import Record, State
from .redis_link import RedisLink
from .wire import decode

COLUMNS: Final = """
    key, state, authority, endpoint, scope, user_id, device_id, owner, task_id, attempt, crashes,
    fence, lease_until, created_at, completed_at, expires_at, hit_count, last_hit_at, result_type,
    length(result), request_hash, region
"""
SELECT: Final = f"SELECT {COLUMNS} FROM idempotency_record"  # noqa: S608  only constants
ONE: Final = f"{SELECT} WHERE key = %(key)s"
POISONED: Final = f"""
{SELECT} WHERE state = 'poisoned' AND starts_with(key, %(head)s)
   AND endpoint = coalesce(%(task)s, endpoint)
 ORDER BY created_at DESC LIMIT %(limit)s
"""
OF_TASK: Final = f"""
{SELECT} WHERE endpoint = %(task)s AND starts_with(key, %(head)s)
 ORDER BY created_at DESC LIMIT %(limit)s
"""
# No index has all records by date: the newest are among the newest of each task, and the names of
# the tasks are found by one step of an index each.
OF_ALL_TASKS: Final = f"""
WITH RECURSIVE task (name) AS (
    SELECT min(endpoint) FROM idempotency_record
    UNION ALL
    SELECT (SELECT min(endpoint) FROM idempotency_record WHERE endpoint > task.name)
      FROM task
     WHERE task.name IS NOT NULL)
SELECT newest.*
  FROM task
 CROSS JOIN LATERAL ({OF_TASK.replace("%(task)s", "task.name")}) AS newest
 ORDER BY created_at DESC LIMIT %(limit)s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, and where it stands. Times are UTC; None where the place does not keep it."""

    key: str
    state: str
    authority: str
    endpoint: str
    scope: str
    user_id: str | None
    device_id: str | None
    owner: str
    task_id: str
    attempt: int
    crashes: int
    fence: int
    lease_until: datetime | None
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    hit_count: int | None
    last_hit_at: datetime | None
    result_type: str | None
    result_bytes: int | None
    fingerprint: str
    region: str
    place: str = "postgres"

    def as_json(self) -> dict[str, Any]:
        """Plain values; times in ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }


class PostgresListing:
    """Records of one namespace in PostgreSQL."""

    def __init__(self, link: PostgresLink, namespace: str) -> None:
        self._link = link
        self._head = f"{namespace}:"

    def get(self, key: str) -> Entry | None:
        """One record."""
        row = self._link.run(lambda c: c.execute(ONE, {"key": self._head + key}).fetchone())
        return None if row is None else self._entry(row)

    def entries(self, *, state: str | None, task: str | None, limit: int) -> list[Entry]:
        """The newest records, of one state or task if given."""
        statement = OF_ALL_TASKS if task is None else OF_TASK
        if state == State.POISONED:  # which are few, and have an index
            statement = POISONED
        elif state is not None:
            statement = statement.replace(" ORDER BY", " AND state = %(state)s ORDER BY", 1)
        values = {"head": self._head, "task": task, "state": state, "limit": limit}
        rows = self._link.run(lambda c: c.execute(statement, values).fetchall())
        return [self._entry(row) for row in rows]

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        entry = Entry(row[0].removeprefix(self._head), *row[1:])
        held = entry.state in (State.RUNNING, State.WAITING)
        return entry if held else replace(entry, lease_until=None)


class RedisListing:
    """Records of one namespace in Redis: its own, and finished ones of PostgreSQL."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._head = f"{namespace}:{{"
        self._poisoned = f"{namespace}:poisoned"

    def get(self, key: str) -> Entry | None:
        """One record. Raises UnreadableRecord."""
        raw = self._link.call("GET", f"{self._head}{key}}}")
        return None if raw is None else _entry(key, decode(raw, "redis", key))

    def entries(self, *, state: str | None, task: str | None, limit: int) -> list[Entry]:
        """The newest records, of one state or task if given; unreadable ones are left out.

        Redis has no order of them: but for the poisoned ones, all keys are read.
        """
        keys = self._poisoned_keys() if state == State.POISONED else self._all_keys()
        fitting = (
            entry
            for batch in keys
            for entry in self._readable(batch)
            if state in (None, entry.state) and task in (None, entry.endpoint)
        )
        return heapq.nlargest(limit, fitting, key=created)

    def _readable(self, keys: Sequence[str]) -> Iterator[Entry]:
        """Those of `keys` that Redis decides about."""
        replies = self._link.call_many([("GET", f"{self._head}{key}}}") for key in keys])
        for key, raw in zip(keys, replies, strict=True):
            if not isinstance(raw, bytes):
                continue
            with suppress(UnreadableRecord):
                entry = _entry(key, decode(raw, "redis", key))
                if entry.authority == "redis":
                    yield entry

    def _poisoned_keys(self) -> Iterator[list[str]]:
        yield [name.decode() for name in self._link.call("SMEMBERS", self._poisoned)]

    def _all_keys(self) -> Iterator[list[str]]:
        pattern = self._head.replace("\\", "\\\\").replace("*", "\\*").replace("[", "\\[") + "*"
        for names in self._link.walk(pattern):
            texts = [name.decode(errors="replace") for name in names]
            # Not those that a lock's waiters block on.
            yield [text.removeprefix(self._head)[:-1] for text in texts if text.endswith("}")]


def created(entry: Entry) -> datetime:
    """By which entries are sorted."""
    return entry.created_at


def _entry(key: str, record: Record) -> Entry:
    due = to_time(record.due_us) if record.due_us else None
    expiring = record.state in (State.DONE, State.FORGOTTEN)
    return Entry(
        key=key,
        state=str(record.state),
        authority=record.authority,
        endpoint=record.endpoint,
        scope=record.scope,
        user_id=record.user_id,
        device_id=record.device_id,
        owner=record.owner,
        task_id=record.task_id,
        attempt=record.attempt,
        crashes=record.crashes,
        fence=record.fence,
        lease_until=None if expiring else due,
        created_at=to_time(record.created_us),
        completed_at=None,
        expires_at=due if expiring else None,
        hit_count=None,
        last_hit_at=None,
        result_type=record.result_type or None,
        result_bytes=None if record.result is None else len(record.result),
        fingerprint=record.fingerprint,
        region="",
        place="redis",
    )
