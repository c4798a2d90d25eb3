"""Histories of simulations, written by hand: what a judge must see in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from idemwatch.demo.simulate_history import (
    OK,
    Delivery,
    Effect,
    Execution,
    History,
    Killed,
    Kind,
    Process,
)

WORK = "send(1)"


@dataclass
class Past:
    """A history of one piece of work that is written down bit by bit."""

    kind: Kind = Kind.EXTERNAL
    executions: list[Execution] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    killed: list[Killed] = field(default_factory=list)

    def run(
        self,
        began: float,
        ended: float | None = None,
        *,
        effect: float | None = None,
        refused: bool = False,
        outcome: str = OK,
        lease_lost: bool = False,
        worker: str = "w1.1",
    ) -> Execution:
        """An execution in a process of its own; `ended` None: it never did."""
        number = len(self.executions) + 1
        run = Execution(
            number, WORK, f"id-{number}", Process(worker, 100 + number), began, ended, ended,
            None if ended is None else outcome, lease_lost,
        )  # fmt: skip
        self.executions.append(run)
        if effect is not None:
            self.effects.append(Effect(WORK, number, effect, refused))
        return run

    def kill(self, run: Execution, at: float, *, whole_worker: bool = False) -> None:
        """The process of a run dies, or its worker."""
        pid = None if whole_worker else run.process.pid
        self.killed.append(Killed(run.process.worker, pid, at, "after", WORK))

    def history(self) -> History:
        """What was written down."""
        return History(
            works={WORK: self.kind},
            deliveries=tuple(
                Delivery(WORK, run.task_id, run.process, run.began) for run in self.executions
            ),
            executions=tuple(self.executions),
            effects=tuple(self.effects),
            killed=tuple(self.killed),
            messages=1,
            seconds=9.0,
            checks={"granted": 1, "duplicate": 2, "running": 3, "taken_over": 4, "unavailable": 5},
        )


def once() -> History:
    """As it should be."""
    past = Past()
    past.run(0.0, 1.0, effect=0.5)
    return past.history()


def doubled() -> History:
    """A second execution after the first one's end."""
    past = Past()
    past.run(0.0, 1.0, effect=0.5)
    past.run(2.0, 3.0, effect=2.5)
    return past.history()


def repeated_after_death(kind: Kind = Kind.EXTERNAL) -> History:
    """The first execution was killed between its effect and its record."""
    past = Past(kind)
    past.kill(past.run(0.0, effect=0.5), 0.6)
    past.run(4.6, 5.0, effect=4.8)
    return past.history()


def lost() -> History:
    """No execution made the effect."""
    past = Past()
    past.run(0.0, 1.0, outcome="ValueError")
    return past.history()


def unsettled() -> History:
    """Done, and yet messages were left."""
    return replace(once(), settled=False)
