"""What one round does, as plain values: a pure function of the seed and the round's number.

Invariant: nothing here reads a clock, a server or the environment, so a seed tells the same plan
on every machine. What differs between two runs of one seed is only the timing of the machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

LEASE_SECONDS: Final = 1.5
WORKERS: Final = 2
CONCURRENCY: Final = 4
TOPOLOGIES: Final = ("single", "sentinel", "cluster")
POOLS: Final = ("prefork", "threads")
AUTHORITIES: Final = ("postgres", "redis")


@dataclass(frozen=True)
class When:
    """A moment of the round: `at` seconds after its begin, and then not before something happened.

    what: "begin" (an effect of `key` has begun), "stored" (its result is), "forgotten", "parked"
    or "over" (an attempt has ended, however), "" for nothing. `then`: seconds after that.
    """

    at: float = 0.0
    what: str = ""
    key: str = ""
    then: float = 0.0


@dataclass(frozen=True)
class Message:
    """One publication. `task` is the task's short name, with its authority before it."""

    when: When
    task: str
    key: str
    task_id: str
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name of the task without its authority."""
        return self.task.rpartition(".")[2]

    @property
    def authority(self) -> str:
        """Who decides about its key: "" for a transaction."""
        return self.task.partition(".")[0] if "." in self.task else ""


@dataclass(frozen=True)
class Fault:
    """What is broken, from `when` on for `seconds`. See faults.harm for the kinds.

    worker: its number; key: of which the holder is meant, or which is forgotten; store: postgres
    or redis; mode: how a connection is cut.
    """

    kind: str
    when: When
    seconds: float = 0.0
    worker: int = 0
    key: str = ""
    store: str = ""
    mode: str = ""


@dataclass(frozen=True)
class Round:
    """One round: what it runs on, what is published and what is broken."""

    seed: int
    number: int
    scene: str
    topology: str
    pool: str
    messages: tuple[Message, ...]
    faults: tuple[Fault, ...]
    forced: bool = False
    """Whether the scene was asked for, and not drawn."""
    clock: str = ""
    """What libfaketime adds to the workers' clocks, such as +1h; "" for nothing."""

    @property
    def namespace(self) -> str:
        """Where its records stand."""
        return f"r{self.seed}.{self.number}"

    @property
    def title(self) -> str:
        """One line that tells what is played."""
        clock = f", clocks {self.clock}" if self.clock else ""
        return (
            f"round {self.number}: {self.scene} on {self.topology} redis, {self.pool} pool{clock}, "
            f"{len(self.messages)} messages, {len(self.faults)} faults"
        )


class Draft:
    """A round that is being written: the scene adds messages and faults to it."""

    def __init__(self, dice: random.Random, prefix: str) -> None:
        self.dice = dice
        self._prefix = prefix
        self._ids = 0
        self.messages: list[Message] = []
        self.faults: list[Fault] = []

    def key(self, name: str) -> str:
        """A key of this round."""
        return f"{self._prefix}:{name}"

    def publish(
        self, task: str, key: str, when: When | float, spec: dict[str, Any], task_id: str = ""
    ) -> str:
        """One message; returns its task id, which is a new one unless it is given."""
        self._ids += 1
        chosen = task_id or f"{self._prefix}-{self._ids}"
        moment = when if isinstance(when, When) else When(when)
        self.messages.append(Message(moment, task, key, chosen, spec))
        return chosen

    def burst(self, task: str, key: str, at: float, spec: dict[str, Any], spread: float) -> None:
        """A message of a key, the same once more, and others of the same key."""
        first = self.publish(task, key, at, spec)
        self.publish(task, key, at + self.dice.uniform(0.0, spread), spec, first)
        for _ in range(self.dice.randint(1, 2)):
            self.publish(task, key, at + self.dice.uniform(0.0, spread), spec)

    def harm(self, kind: str, when: When | float, seconds: float = 0.0, **about: Any) -> None:
        """One fault."""
        moment = when if isinstance(when, When) else When(when)
        self.faults.append(Fault(kind, moment, seconds, **about))
