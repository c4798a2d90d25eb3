"""The tasks of all cases: what an execution does is a plan in the book, which no case harms.

A plan is a list: for the first execution of a label, for the second, and so on, the last for all
that follow; each is a list of steps. A label is among a task's arguments, and thus in its key; its
plan is not.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import psycopg
import redis
from celery import Celery
from celery.exceptions import Ignore
from idemwatch.idempotency import IdempotencyService

from .protection import Kind, conf, protect
from .systems import BY_NAME, HOLD_SECONDS, SHORT_HOLD_SECONDS

WORK: Final = Kind("case.work", HOLD_SECONDS)
SHORT: Final = Kind("case.short", SHORT_HOLD_SECONDS)
KEYED: Final = Kind("case.keyed", HOLD_SECONDS, key="label")
LIMITED: Final = Kind("case.limited", HOLD_SECONDS, celery={"time_limit": 1})
UNENCODABLE: Final = Kind("case.unencodable", SHORT_HOLD_SECONDS, celery={"ignore_result": True})
PART: Final = Kind("case.part", HOLD_SECONDS)
TOTAL: Final = Kind("case.total", HOLD_SECONDS)

GATE_SECONDS: Final = 60
EFFECTS_TABLE: Final = "CREATE TABLE effects (label text NOT NULL)"


@dataclass(frozen=True)
class Place:
    """What a system works with.

    book: a Redis that is never harmed, for what happened and for Celery's results; store: the
    Redis that is harmed; database: that of records, which may be cut off; effects: the same
    database, which then may not.
    """

    system: str
    broker: str
    book: str
    store: str
    database: str
    effects: str
    redelivery: dict[str, int]


@dataclass(frozen=True)
class Sheet:
    """The app of a place, for its workers and for its publisher, with its tasks."""

    app: Celery
    tasks: dict[str, Any]


def build(place: Place) -> Sheet:
    """The app of a place, its tasks protected by the place's system."""
    app = Celery("case", broker=place.broker, backend=place.book, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options=place.redelivery,
        worker_prefetch_multiplier=1,
        case_place=asdict(place),
        **conf(place.system, place.store, place.database),
    )
    bodies: dict[Callable[..., Any], tuple[Kind, ...]] = {
        work: (WORK, SHORT, KEYED, LIMITED),
        unencodable: (UNENCODABLE,),
        part: (PART,),
        total: (TOTAL,),
    }
    made = [
        protect(place.system, app, place.store, kind, body)
        for body, kinds in bodies.items()
        for kind in kinds
    ]
    return Sheet(app, {task.name: task for task in made})


def work(self: Any, label: str, x: Any = 1, y: int = 0) -> Any:
    """Returns the number of the execution, if its plan says nothing else."""
    return Execution(self, label).play()


def unencodable(self: Any, label: str) -> Any:
    """Returns what no JSON can hold."""
    Execution(self, label).play()
    return {object()}


def part(self: Any, label: str, x: int) -> list[int]:
    """One of a chord. Its result tells which execution made it, as one with a time in it would."""
    return [x, Execution(self, f"{label}/{x}").play()]


def total(self: Any, parts: list[list[int]], label: str) -> int:
    """What comes after the parts."""
    Execution(self, label).play()
    return sum(x for x, _ in parts)


class Execution:
    """One run of a task, written down from its beginning."""

    def __init__(self, task: Any, label: str) -> None:
        self._task, self._label = task, label
        self._place = Place(**task.app.conf["case_place"])
        self._book = book(self._place.book, os.getpid())
        self.number = int(self._book.incr(f"executions:{label}"))
        self._result: Any = self.number
        self._write("start")

    def play(self) -> Any:
        """Do what the plan says; the result."""
        try:
            for step in self._steps():
                name, _, argument = step.partition(" ")
                getattr(self, f"_{name}")(argument)
            return self._result
        finally:
            self._write("end")

    def _steps(self) -> Sequence[str]:
        plan = json.loads(self._book.get(f"plan:{self._label}") or b'[["effect"]]')
        steps: list[str] = plan[min(self.number, len(plan)) - 1]
        return steps

    def _write(self, event: str) -> None:
        told = {
            "event": event,
            "number": self.number,
            "task_id": self._task.request.id,
            "pid": os.getpid(),
            "at": time.monotonic(),
        }
        self._book.rpush(f"events:{self._label}", json.dumps(told))

    def _effect(self, _: str) -> None:
        self._write("effect")

    def _gate(self, _: str) -> None:
        """Wait until the case opens it; it then stays open."""
        gate = f"gate:{self._label}/{self.number}"
        if self._book.blmove(gate, gate, GATE_SECONDS) is None:
            raise TimeoutError(f"{gate} was not opened")

    def _sleep(self, seconds: str) -> None:
        """Work for so long, or until the case is over."""
        over = f"over:{self._label}"
        self._book.blmove(over, over, int(seconds))

    def _kill(self, _: str) -> None:
        """SIGKILL, unless the case is over."""
        if not self._book.exists(f"over:{self._label}"):
            self._write("end")
            os.kill(os.getpid(), signal.SIGKILL)

    def _killworker(self, _: str) -> None:
        self._write("end")
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def _fail(self, _: str) -> None:
        raise ValueError("as the case has it")

    def _ignore(self, _: str) -> None:
        raise Ignore

    def _retry(self, _: str) -> None:
        raise self._task.retry(countdown=1)

    def _return(self, value: str) -> None:
        self._result = json.loads(value)

    def _commit(self, _: str) -> None:
        """An effect in PostgreSQL, in the one way that the system has for it."""
        if BY_NAME[self._place.system].ours:
            service = IdempotencyService.from_app(self._task.app)
            with service.transaction(f"effect/{self._label}") as tx:
                if not tx.duplicate:
                    tx.connection.execute(_INSERT, (self._label,))
        else:
            with psycopg.connect(self._place.effects) as connection:
                connection.execute(_INSERT, (self._label,))


_INSERT: Final = "INSERT INTO effects (label) VALUES (%s)"


@cache
def book(url: str, _pid: int) -> redis.Redis:
    """A client of the book for a process of its own."""
    return redis.Redis.from_url(url, socket_timeout=GATE_SECONDS + 10)
