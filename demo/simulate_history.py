"""What happened to each piece of work in one play: plain values, for the judge and the report.

Times are seconds since publishing began, by the clock of the ledger's PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

OK: Final = "ok"
"""The outcome of an execution whose body came to its end."""


class Kind(StrEnum):
    """How an effect is protected, beside the record of its key."""

    TRANSACTION = "transaction"
    """It commits in one PostgreSQL transaction with its record."""
    GUARDED = "guarded"
    """Its target refuses a second effect with the same key."""
    EXTERNAL = "external"
    """Nothing guards it: it may be repeated after an attempt that died."""
    YOURS = "yours"
    """A task of the user's, of which only the end of its body can be counted."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a pool; the worker's name is another after each restart."""

    worker: str
    pid: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that reached a worker's process."""

    work: str
    task_id: str
    process: Process
    at: float
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of a task's body. `ended`: of the body, None when it never did; `returned`: when the
    task's message was dealt with, the record included; `lease_lost`: it was no longer the holder.
    """

    number: int
    work: str
    task_id: str
    process: Process
    began: float
    ended: float | None = None
    returned: float | None = None
    outcome: str | None = None
    lease_lost: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect that happened, or (`refused`) that its target refused as a second one."""

    work: str
    execution: int
    at: float
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Killed:
    """A process (`pid` None: a whole worker) that was killed on purpose, and where it stood."""

    worker: str
    pid: int | None
    at: float
    point: str
    work: str | None = None

    def covers(self, process: Process) -> bool:
        """Whether that process died of it."""
        return self.worker == process.worker and self.pid in (None, process.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One play. `works`: the kind of each; `checks`: claims by their outcome, from the metrics;
    `settled`: whether the broker kept no message at the end; `vanished`: works of which a killed
    worker took a message along before the broker knew that it had it."""

    works: Mapping[str, Kind]
    deliveries: tuple[Delivery, ...] = ()
    executions: tuple[Execution, ...] = ()
    effects: tuple[Effect, ...] = ()
    killed: tuple[Killed, ...] = ()
    messages: int = 0
    seconds: float = 0.0
    checks: Mapping[str, int] = field(default_factory=dict)
    settled: bool = True
    vanished: frozenset[str] = frozenset()

    def death_of(self, execution: Execution) -> Killed | None:
        """What killed the process before the execution returned; None when nothing did."""
        if execution.returned is not None:
            return None
        found = (one for one in self.killed if one.covers(execution.process))
        return min(found, key=lambda one: one.at, default=None)


T = TypeVar("T", Delivery, Execution, Effect)


def by_work(events: Iterable[T]) -> dict[str, list[T]]:
    """The events of each piece of work, in their order."""
    grouped: dict[str, list[T]] = {}
    for event in events:
        grouped.setdefault(event.work, []).append(event)
    return grouped
