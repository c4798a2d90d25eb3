"""Due times in PostgreSQL: who claims them, and the outbox of their messages.

A claimed message is published by whoever locks its row, and is marked in the transaction that holds
the lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from idemwatch.idempotency.postgres_link import Connection, PostgresLink

from . import firing_sql as sql
from .firing import Counts, Firing, Mark, Step, task_id_of
from .model import CatchUp, Overlap
from .table_store import fetch_rows, transaction

FROZEN_SECONDS: Final = 5
"""How long a beat may be silent within a transaction: then its rows are another's."""
PREVIOUS: Final = 10
"""Firings before, whose runs may still hold a lease."""


class FiringStore:
    """The due times in one database, for the beat of this name. May raise StoreUnavailable."""

    def __init__(self, link: PostgresLink, beat: str) -> None:
        self._link, self._beat = link, beat
        self._owed: Mapping[int, Counts] = {}
        """What could not be counted yet, since the schedule was locked."""

    def due(self, most: int) -> list[dict[str, Any]]:
        """Rows of schedules that are due or were never planned, with `now` by the database."""
        return self._link.run(lambda connection: fetch_rows(connection, sql.DUE, {"most": most}))

    def advance(self, steps: Sequence[Step]) -> dict[int, int]:
        """Claim what is due; the schedules that are ours, with how many of theirs were missed."""
        given = _steps(steps) | {"beat": self._beat}
        rows = self._link.run(lambda connection: connection.execute(sql.ADVANCE, given).fetchall())
        return {int(one): int(missed) for one, missed in rows}

    @contextmanager
    def outbox(self, most: int) -> Iterator[Outbox]:
        """Messages that are locked for us while the block runs; none for long."""
        with transaction(self._link) as connection:
            connection.execute(sql.FREEZE.format(seconds=FROZEN_SECONDS))
            rows = fetch_rows(connection, sql.OUTBOX, {"most": most})
            outbox = Outbox(connection, self._beat, [_firing(row) for row in rows], self._owed)
            yield outbox
        self._owed = outbox.owed

    def wake_seconds(self) -> float | None:
        """Seconds until something is due; None if nothing ever is."""
        row = self._link.run(lambda connection: connection.execute(sql.WAKE).fetchone())
        return None if row is None or row[0] is None else float(row[0])

    def tick(self) -> None:
        """Note that this beat is alive."""
        self._execute(sql.TICK)

    def forget_beats(self) -> None:
        """Remove beats that have not been seen for a day."""
        self._execute(sql.FORGET_BEATS)

    def leave(self) -> None:
        """Note that this beat ends in order."""
        self._execute(sql.LEAVE)

    def _execute(self, statement: str) -> None:
        self._link.run(lambda connection: connection.execute(statement, {"beat": self._beat}))


class Outbox:
    """Locked firings, and what became of them. `owed`: what is to be counted with a later mark."""

    def __init__(
        self,
        connection: Connection,
        beat: str,
        firings: list[Firing],
        owed: Mapping[int, Counts],
    ) -> None:
        self._connection, self._beat, self.firings, self.owed = connection, beat, firings, owed

    def runs_before(self, firing: Firing) -> list[str]:
        """The keys of the records of the runs before, the latest first."""
        asked = {"id": firing.schedule_id, "most": PREVIOUS}
        return [row[0] for row in self._connection.execute(sql.RUNS_BEFORE, asked)]

    def mark(self, marks: Sequence[Mark]) -> int:
        """Write it down; how many were still ours to mark."""
        counts = _counts(self.owed, marks)
        given = _marks(marks) | _columns(counts) | {"beat": self._beat}
        row = self._connection.execute(sql.MARK, given).fetchone()
        done, locked = row or (0, [])
        self.owed = {one: counts[one] for one in locked}
        return int(done)


def _counts(owed: Mapping[int, Counts], marks: Sequence[Mark]) -> dict[int, Counts]:
    found = dict(owed)
    for mark in marks:
        if mark.outcome != "pending":
            schedule = mark.firing.schedule_id
            found[schedule] = found.get(schedule, Counts()).plus(mark.outcome)
    return found


def _columns(counts: Mapping[int, Counts]) -> dict[str, Any]:
    values = counts.values()
    each = {name: [getattr(one, name) for one in values] for name in Counts._fields}
    return {"counted": list(counts), **each}


def _marks(marks: Sequence[Mark]) -> dict[str, Any]:
    return {
        "places": [one.firing.place for one in marks],
        "outcomes": [one.outcome for one in marks],
        "keys": [one.record_key for one in marks],
        "after": [one.after_seconds for one in marks],
        "endless": [one.endless for one in marks],
    }


def _steps(steps: Sequence[Step]) -> dict[str, Any]:
    due = [
        (s.row["id"], one, task)
        for s in steps
        for one, task in zip(s.advance.due, s.task_ids, strict=True)
    ]
    return {
        "ids": [s.row["id"] for s in steps],
        "versions": [s.row["updated_at"] for s in steps],
        "planned": [s.row["next_due_at"] for s in steps],
        "next": [_text(s.advance.next_at) for s in steps],
        "messages": [s.message or None for s in steps],
        "of": [schedule for schedule, _, _ in due],
        "due": [one.at for _, one, _ in due],
        "outcomes": ["missed" if one.missed else "pending" for _, one, _ in due],
        "late": [one.late for _, one, _ in due],
        "task_ids": [task for _, _, task in due],
        "until": [one.until for _, one, _ in due],
    }


def _text(moment: datetime | None) -> str:
    return "infinity" if moment is None else moment.isoformat()


def _firing(row: dict[str, Any]) -> Firing:
    return Firing(
        place=row["place"],
        schedule_id=row["schedule_id"],
        due_at=row["due_at"],
        late=row["late"],
        message=row["message"],
        task_id=row["task_id"] or task_id_of(row["schedule_id"], row["due_at"]),
        until=row["publish_until"],
        identifier=row["identifier"],
        catch_up=CatchUp(row["catch_up"]),
        overlap=Overlap(row["overlap"]),
        active=row["status"] in ("PENDING", "IN_PROGRESS"),
        superseded=row["superseded"],
        now=row["now"],
    )
