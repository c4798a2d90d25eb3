"""Hand-made histories, for the checker's own tests: a right one, that a test then spoils."""

from __future__ import annotations

import itertools
from typing import Any, Final

from .history import Answered, History, Left, Span
from .ledger import Event
from .plan import Message, Round, When

KEY: Final = "k"
LEASE: Final = 1.5


class Story:
    """Events of one key, written down as they would have been."""

    def __init__(self, task: str = "postgres.plain") -> None:
        self.task = task
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.answers: dict[str, Answered] = {}
        self.also: dict[str, Any] = {}
        self._serials = itertools.count()

    def publish(self, task_id: str, answer: Any = None, **spec: Any) -> None:
        """A message; its answer is the result of `token`, unless it is given."""
        spec = {"seconds": 1.0, **spec}
        self.messages.append(Message(When(), self.task, KEY, task_id, spec))
        if answer is not None:
            self.answers[task_id] = answer

    def tell(self, mono: float, kind: str, owner: str, task_id: str = "", **data: Any) -> None:
        """One event of the worker w<owner>, whose pid is the number of its owner's letter."""
        worker = f"w{owner}"
        event = Event(next(self._serials), mono, kind, KEY, owner, worker, pid_of(owner),
                      task_id or f"t{owner}", data)  # fmt: skip
        self.events.append(event)

    def claim(self, mono: float, owner: str, outcome: str = "granted", **data: Any) -> None:
        """A claim that is answered at `mono`."""
        told = {"began": mono - 0.001, "outcome": outcome, "attempt": 0, "lease": LEASE, **data}
        told["authority"] = self.task.partition(".")[0]
        if outcome in ("granted", "taken_over"):
            told = {"granted": mono - 0.001, "fence": int(mono * 1000), **told}
        self.tell(mono, "claim", owner, **told)

    def end(self, mono: float, owner: str, what: str = "complete", said: str = "stored") -> None:
        """An ending that is sent at `mono` and answered a little later; said "": never answered."""
        result = token(owner) if what == "complete" else None
        self.tell(mono, "ending", owner, what=what, began=mono, result=result)
        if said:
            self.tell(mono + 0.01, "ended", owner, what=what, began=mono, said=said, result=result)

    def history(self, **also: Any) -> History:
        """As the checker gets it."""
        plan = Round(1, 0, "told", "single", "prefork", tuple(self.messages), ())
        events = sorted(self.events, key=lambda event: event.mono)
        return History(plan=plan, events=events, answers=self.answers, **{**self.also, **also})


def pid_of(owner: str) -> int:
    """The process of an owner."""
    return 1000 + ord(owner[0])


def token(owner: str) -> dict[str, Any]:
    """The result of an owner's work."""
    return {"key": KEY, "owner": owner}


def success(owner: str) -> Answered:
    """An answer with that result."""
    return Answered("SUCCESS", token(owner))


def failure(kind: str) -> Answered:
    """An answer with an error."""
    return Answered("FAILURE", {"exc_type": kind})


def forgotten(began: float) -> Span:
    """A forget that was carried out."""
    return Span(began, began + 0.01, "forget", KEY)


def record(state: str, owner: str, due_in: float) -> Left:
    """A record at the end."""
    return Left(KEY, state, owner, due_in)


def done_once(task: str = "postgres.plain") -> Story:
    """A does the work, two messages are answered with it."""
    story = Story(task)
    story.publish("ta", success("a"))
    story.publish("tb", success("a"))
    story.claim(1.0, "a")
    story.tell(1.1, "check", "a", began=1.05)
    story.tell(1.2, "begin", "a")
    story.tell(1.5, "renewed", "a", began=1.49, lease=LEASE)
    story.claim(1.6, "b", "running", met="a")
    story.tell(2.1, "end", "a")
    story.end(2.2, "a")
    story.claim(2.5, "b", "duplicate", met="a", result=token("a"))
    story.also["records"] = [record("done", "a", 0.0)]
    return story


def taken_over() -> Story:
    """A is frozen past its lease; B takes over and completes; A is refused, and is told so."""
    story = Story()
    story.publish("ta", success("b"))
    story.publish("tb", success("b"))
    story.claim(1.0, "a")
    story.tell(1.2, "begin", "a")
    story.claim(3.0, "b", "taken_over")
    story.tell(3.1, "begin", "b")
    story.end(3.5, "a", said="stale")
    story.claim(3.6, "a", "running", met="b")
    story.end(4.0, "b")
    story.claim(4.2, "c", "duplicate", met="b", result=token("b"))
    story.also["faults"] = [Span(1.3, 3.4, "freeze_holder", str(pid_of("a")))]
    story.also["records"] = [record("done", "b", 0.0)]
    return story
