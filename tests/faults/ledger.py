"""The ledger: all that workers did, in a PostgreSQL that is never harmed.

Invariant: `mono` is CLOCK_MONOTONIC, which all processes of this machine share and which no faked
clock touches, so events of different workers can be compared. The serial only breaks ties.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import tuple_row

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS event (
    serial bigserial PRIMARY KEY, round text NOT NULL, mono double precision NOT NULL,
    kind text NOT NULL, key text NOT NULL, owner text NOT NULL, worker text NOT NULL,
    pid integer NOT NULL, task_id text NOT NULL, data text NOT NULL);
CREATE INDEX IF NOT EXISTS event_round ON event (round, kind);
CREATE TABLE IF NOT EXISTS target (
    key text PRIMARY KEY, fence bigint NOT NULL, owner text NOT NULL);
CREATE TABLE IF NOT EXISTS target_write (
    serial bigserial PRIMARY KEY, round text NOT NULL, key text NOT NULL, owner text NOT NULL,
    fence bigint NOT NULL);
CREATE TABLE IF NOT EXISTS target_once (key text PRIMARY KEY, owner text NOT NULL);
"""
EFFECTS: Final = """
CREATE TABLE IF NOT EXISTS faults_effect (key text NOT NULL, token text NOT NULL)
"""
"""Stands in the PostgreSQL that decides, for effects that commit with their record."""
_WRITE: Final = """
INSERT INTO event (round, mono, kind, key, owner, worker, pid, task_id, data)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_READ: Final = """
SELECT serial, mono, kind, key, owner, worker, pid, task_id, data FROM event
 WHERE round = %s ORDER BY mono, serial
"""
_HAPPENED: Final = """
SELECT count(*) FROM event WHERE round = %s AND key = %s AND kind = ANY(%s) AND data LIKE %s
"""
WHAT: Final = {
    "begin": (["begin"], "%"),
    "stored": (["ended"], '%"said": "stored"%'),
    "parked": (["ended"], '%"what": "park"%'),
    "over": (["ended"], "%"),
    "forgotten": (["forgotten"], "%"),
}
"""What a When may wait for: kinds of events, and what stands in them."""
_WORKING: Final = """
SELECT pid, kind FROM event WHERE round = %s AND key = %s AND kind IN ('begin', 'end', 'over')
 ORDER BY mono DESC LIMIT 1
"""
# The row's lock makes writers queue, and the serial is drawn behind it: they are in order.
_FENCED: Final = """
WITH kept AS (
    INSERT INTO target AS t (key, fence, owner) VALUES (%(key)s, %(fence)s, %(owner)s)
    ON CONFLICT (key) DO UPDATE SET fence = excluded.fence, owner = excluded.owner
     WHERE t.fence <= excluded.fence
    RETURNING t.key)
INSERT INTO target_write (round, key, owner, fence)
SELECT %(round)s, key, %(owner)s, %(fence)s FROM kept
"""
_ONCE: Final = "INSERT INTO target_once (key, owner) VALUES (%s, %s) ON CONFLICT DO NOTHING"


class Event(NamedTuple):
    """One thing that a worker did. `data` depends on the kind, see faults.witness."""

    serial: int
    mono: float
    kind: str
    key: str
    owner: str
    worker: str
    pid: int
    task_id: str
    data: dict[str, Any]


class Ledger:
    """Connections to the ledger: one per process and thread, made when first needed."""

    def __init__(self, url: str, round_name: str, worker: str = "harness") -> None:
        self._url, self._round, self._worker = url, round_name, worker
        self._local = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []

    def write(
        self, kind: str, key: str, owner: str = "", task_id: str = "",
        mono: float | None = None, **data: Any,
    ) -> None:  # fmt: skip
        """One event, now or at `mono`; it is there when this returns."""
        moment = time.monotonic() if mono is None else mono
        told = json.dumps(data)
        row = (self._round, moment, kind, key, owner, self._worker, os.getpid(), task_id, told)
        self._connection().execute(_WRITE, row)

    def write_fenced(self, key: str, owner: str, fence: int) -> bool:
        """An effect on a target that keeps the newest fence; False if it was refused."""
        values = {"round": self._round, "key": key, "owner": owner, "fence": fence}
        return self._connection().execute(_FENCED, values).rowcount == 1

    def write_once(self, key: str, owner: str) -> bool:
        """An effect on a target that refuses a second one with the same key."""
        return self._connection().execute(_ONCE, (key, owner)).rowcount == 1

    def events(self) -> list[Event]:
        """All of this round, in order."""
        rows = self._connection().execute(_READ, (self._round,)).fetchall()
        return [Event._make((*row[:-1], json.loads(row[-1]))) for row in rows]

    def happened(self, what: str, key: str) -> bool:
        """Whether it has happened to the key; one of WHAT."""
        values = (self._round, key, *WHAT[what])
        row = self._connection().execute(_HAPPENED, values).fetchone()
        return row is not None and row[0] > 0

    def working(self, key: str) -> int | None:
        """The process in which the newest effect of the key has begun and not ended."""
        rows = self._connection().execute(_WORKING, (self._round, key)).fetchall()
        return int(rows[0][0]) if rows and rows[0][1] == "begin" else None

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the ledger."""
        return self._connection().execute(statement, values).fetchall()

    def close(self) -> None:
        """Close what this process opened."""
        while self._opened:
            self._opened.pop().close()

    def _connection(self) -> psycopg.Connection[Any]:
        if getattr(self._local, "pid", None) != os.getpid():
            made = psycopg.connect(self._url, autocommit=True, row_factory=tuple_row)
            self._local.connection, self._local.pid = made, os.getpid()
            self._opened.append(made)
        connection: psycopg.Connection[Any] = self._local.connection
        return connection
