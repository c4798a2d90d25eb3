"""Claims with authority `postgres`, against the bare statements that do the same.

Both sides write rows of one table with its indexes, and wait for the same flush at COMMIT.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, LiteralString

from .lab import Lab
from .measure import Measured, against, names
from .work import FINGERPRINT, TASK, TASK_ID, Work

CALLS: Final = 20
TURNS: Final = 150
INSERT: Final[LiteralString] = """
INSERT INTO idempotency_record (
    key, state, owner, fence, lease_until, created_at, expires_at, attempt, authority, request_hash,
    task_id, endpoint, scope, region)
VALUES (%s, 'running', %s, 1, clock_timestamp() + %s, clock_timestamp(), clock_timestamp() + %s, 0,
    'postgres', %s, %s, %s, 'global', '')
"""
UPDATE: Final[LiteralString] = """
UPDATE idempotency_record SET state = 'done', completed_at = clock_timestamp(), result = %s,
       result_type = 'application/json', expires_at = clock_timestamp() + %s
 WHERE key = %s
"""
LEASE: Final = timedelta(seconds=30)
DAY: Final = timedelta(hours=24)
RESULT: Final = b'{"sent": 3}'
OWNER: Final = "0" * 32


def postgres_claim(lab: Lab) -> Measured:
    """One new claim, without Redis."""
    work, bare = Work(lab.engine(database=True), "postgres"), _Bare(lab)
    return against(work.claim_new, bare.insert, calls=CALLS, turns=lab.turns(TURNS))


def postgres_cycle(lab: Lab) -> Measured:
    """Redis read, claim, complete, cache write."""
    work, bare = Work(lab.engine(redis_too=True, database=True), "postgres"), _Bare(lab)
    return against(work.claim_complete, bare.cycle, calls=CALLS, turns=lab.turns(TURNS))


def postgres_duplicate(lab: Lab) -> Measured:
    """A claim of finished work: one read in Redis. The baseline reads the same record."""
    engine = lab.engine(redis_too=True, database=True)
    work = Work(engine, "postgres")
    key = work.claim_complete()
    client, name = lab.client, f"{engine.settings.namespace}:{{{key}}}"
    assert client.get(name), "the finished record is in Redis"
    return against(
        lambda: work.duplicate(key), lambda: client.get(name), calls=100, turns=lab.turns(TURNS)
    )


class _Bare:
    """redis-py and psycopg without anything of ours."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._connection = lab, lab.connection
        self._keys = names("bench:bare-row")

    def insert(self) -> str:
        key = next(self._keys)
        values = (key, OWNER, LEASE, DAY, FINGERPRINT, TASK_ID, TASK)
        self._connection.execute(INSERT, values, prepare=True)
        return key

    def cycle(self) -> None:
        client = self._lab.client
        client.get("bench:missing")
        key = self.insert()
        self._connection.execute(UPDATE, (RESULT, DAY, key), prepare=True)
        client.set(key, RESULT, nx=True, px=86_400_000)
