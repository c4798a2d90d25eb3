"""The table of records when it is large: a duplicate found among ten million, and a purge.

Tables are filled by one statement, before their indexes are built: row by row it would take hours.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Final, LiteralString

import psycopg
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.purge_store import BATCH_ROWS
from idemwatch.idempotency.purge_store import purge as purge_batches
from idemwatch.idempotency.settings import Settings
from psycopg import sql

from .lab import Lab
from .measure import Measured, against
from .work import FINGERPRINT, TASK, claim_of

FEW: Final = 10_000
MANY: Final = 10_000_000
EXPIRED: Final = 1_000_000
SEED: Final = 20261125
TURNS: Final = 150
CALLS: Final = 50
NAMESPACE: Final = Settings().namespace
_INDEXES: Final[LiteralString] = """
SELECT i.indexname, pg_get_indexdef(i.indexname::regclass)
  FROM pg_indexes AS i LEFT JOIN pg_constraint AS c ON c.conname = i.indexname
 WHERE i.tablename = 'idempotency_record' AND c.conname IS NULL
"""
_FILL: Final[LiteralString] = """
INSERT INTO idempotency_record
      (key, endpoint, scope, request_hash, authority, state, owner, task_id, attempt, fence,
       lease_until, result, result_type, created_at, completed_at, expires_at)
SELECT %(head)s || md5(n::text), %(task)s, 'global', %(fingerprint)s, 'postgres',
       'done', md5(n::text), md5(n::text)::uuid::text, 0, n, now(), '{"sent": 3}',
       'application/json', now(), now(), now() + %(ttl)s::interval + n * interval '1 millisecond'
  FROM generate_series(1, %(records)s::int) AS n
"""
_STATISTICS: Final[LiteralString] = """
INSERT INTO endpoint_stats (endpoint, scope, records) VALUES (%s, 'global', %s)
"""
_CTID: Final = "by ctid"
# A purge without its promises: it waits for rows in use, and keeps no statistics.
_BARE_DELETE: Final[LiteralString] = """
DELETE FROM idempotency_record WHERE {column} = ANY (ARRAY(
    SELECT {column} FROM idempotency_record WHERE expires_at <= statement_timestamp()
     ORDER BY expires_at LIMIT %s))
"""


def check_at_10m(lab: Lab) -> Measured:
    """A claim of finished work that PostgreSQL answers; each of any record of the table."""
    few, many = (_checks(lab, records) for records in (FEW, MANY))
    return against(many, few, calls=CALLS, turns=lab.turns(TURNS))


def _checks(lab: Lab, records: int) -> Callable[[], None]:
    url = lab.new_database(f"checked_{records}")
    # Nothing is written when it is measured, so the log would only make the filling slow.
    fill(url, records, ttl="1 day", logged=False)
    engine = Engine(Settings(database_url=url))
    lab.stack.callback(engine.close)
    store, keys = engine.stores.get("postgres"), _some_keys(records)

    def check() -> None:
        answer = engine.claim(store, claim_of(next(keys), "postgres"))
        assert answer.record is not None and answer.outcome == "duplicate", answer

    return check


def _some_keys(records: int) -> Iterator[str]:
    chance = random.Random(SEED)
    while True:
        yield key_of(chance.randint(1, records))


def key_of(number: int) -> str:
    """The key of the record of a number; keys lie in the index in no order."""
    return f"{TASK}:{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()}"


def fill(url: str, records: int, *, ttl: str, logged: bool = True) -> None:
    """Put finished records, numbered from 1, into an empty table."""
    values = {
        "head": f"{NAMESPACE}:{TASK}:",
        "task": TASK,
        "fingerprint": FINGERPRINT,
        "ttl": ttl,
        "records": records,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        if not logged:
            connection.execute("ALTER TABLE idempotency_record SET UNLOGGED")
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        connection.execute(_FILL, values)
        for _, definition in indexes:
            connection.execute(sql.SQL(definition))
        connection.execute("VACUUM (ANALYZE, FREEZE) idempotency_record")
        connection.execute("CHECKPOINT")


def purge(lab: Lab) -> Measured:
    """Batches of one table in turn, ours and bare ones by the key: rows a second.

    A bare one by ctid is told as well. It is the quicker one, and ours goes by ctid too; what it
    does not do is to lock each row first, by which ours passes by rows in use.
    """
    url = lab.new_database("purged")
    fill(url, EXPIRED, ttl="-1 day")
    link = PostgresLink(url)
    lab.stack.callback(link.close)
    bare = psycopg.connect(url, autocommit=True)
    bare.execute(_STATISTICS, (TASK, EXPIRED))
    lab.stack.callback(bare.close)
    batches = purge_batches(link)

    def ours() -> None:
        assert next(batches) == BATCH_ROWS

    def delete(column: str) -> None:
        statement = sql.SQL(_BARE_DELETE).format(column=sql.SQL(column))
        assert bare.execute(statement, (BATCH_ROWS,), prepare=True).rowcount == BATCH_ROWS

    by_ctid = {_CTID: lambda: delete("ctid")}
    measured = against(ours, lambda: delete("key"), by_ctid, calls=1, turns=lab.turns(200))
    beside = measured.peers[_CTID] / measured.value
    return Measured(1 / measured.value, {}, f"{measured.baseline}; of one by ctid {beside:.2f}")
