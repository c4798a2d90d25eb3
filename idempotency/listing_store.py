"""Records as an operator sees them: from PostgreSQL, and from Redis as decider or as cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from .errors import UnreadableRecord
from .postgres_link import PostgresLink
from .postgres_store import to_time
from .record import Record, State
from .redis_link import RedisLink
from .wire import decode

SELECT: Final = """
SELECT key, state, authority, endpoint, scope, user_id, device_id, owner, task_id, attempt,
       crashes, fence, lease_until, created_at, completed_at, expires_at, hit_count, last_hit_at,
       result_type, length(result), request_hash, region
  FROM idempotency_record
"""
ONE: Final = SELECT + " WHERE key = %(key)s"
# One statement for each filter, since each has an index of its own.
BY_STATE: Final = {
    None: " WHERE starts_with(key, %(head)s) ORDER BY created_at DESC LIMIT %(limit)s",
    "task": (
        " WHERE endpoint = %(task)s AND starts_with(key, %(head)s)"
        " ORDER BY created_at DESC LIMIT %(limit)s"
    ),
    "poisoned": (
        " WHERE state = 'poisoned' AND starts_with(key, %(head)s) ORDER BY key LIMIT %(limit)s"
    ),
}


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
        chosen = BY_STATE["task" if task else state if state == "poisoned" else None]
        # Other states have no index: they are sifted out of the newest records.
        sifted = state is not None and (task is not None or state != "poisoned")
        condition = f" AND state = '{State(state)}' ORDER" if state and sifted else " ORDER"
        statement = SELECT + chosen.replace(" ORDER", condition, 1)
        values = {"head": self._head, "task": task, "limit": limit}
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
        """Records in no order, of one state or task if given; unreadable ones are left out."""
        found: list[Entry] = []
        for key in self._poisoned_keys() if state == "poisoned" else self._keys():
            entry = self._readable(key)
            if entry is None or entry.authority != "redis":
                continue
            if state in (None, entry.state) and task in (None, entry.endpoint):
                found.append(entry)
            if len(found) >= limit:
                break
        return found

    def _readable(self, key: str) -> Entry | None:
        try:
            return self.get(key)
        except UnreadableRecord:
            return None

    def _poisoned_keys(self) -> Iterator[str]:
        for name in sorted(self._link.call("SMEMBERS", self._poisoned)):
            yield name.decode()

    def _keys(self) -> Iterator[str]:
        cursor = b"0"
        pattern = self._head.replace("\\", "\\\\").replace("*", "\\*").replace("[", "\\[") + "*"
        while True:
            cursor, names = self._link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 500)
            for name in names:
                text = name.decode()
                if text.endswith("}"):  # not the list that a lock's waiters block on
                    yield text.removeprefix(self._head)[:-1]
            if cursor == b"0":
                return


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
