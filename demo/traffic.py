"""The traffic: pieces of work with the duplicates that real systems make.

Invariant: `expected` holds a piece of work before its first message is published, so none can be
missing in the count at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from uuid import uuid4

from celery import Celery

from .app import CLOSE, DISPATCH, ESCALATE, REPORT

WINDOW: Final = 12
"""How many pieces of work may be unsettled at once: a slow machine gets fewer, not a backlog."""
AT_ONCE: Final = 6
DAY: Final = "2026-03-01"


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work, named as its effect is, and how many messages are sent for it."""

    name: str
    task: str
    args: tuple[Any, ...]
    messages: int = 1
    same_id: bool = False


def close(number: int) -> Work:
    """Published twice: in turn by two publishers, and by one that lost the broker's reply."""
    return Work(f"{CLOSE}:{number}", CLOSE, (number, DAY), messages=2, same_id=number % 2 == 0)


def escalate(number: int) -> Work:
    """Published once, and twice every other time."""
    name = f"{ESCALATE}:{number}"
    return Work(name, ESCALATE, (number, 1, DAY), messages=1 + number % 2)


def report(number: int) -> Work:
    """Longer than the visibility timeout: the broker makes the duplicates."""
    return Work(f"{REPORT}:{number}", REPORT, (number, 7))


def dispatch(number: int) -> Work:
    """Its process is killed, in turn before and after its effect is committed."""
    dies = "before" if number % 2 else "after"
    return Work(f"{DISPATCH}:{number}", DISPATCH, (number, DAY, dies))


ALONE: Final = (report, dispatch)
"""Of each of these one at a time: they hold a process, or kill it."""
MANY: Final = (close, escalate)


class Traffic:
    """Publishes pieces of work, and knows which of them have not had their effect."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._numbers: dict[Callable[[int], Work], Iterator[int]] = {
            kind: count(1) for kind in (*ALONE, *MANY)
        }
        self._alone: dict[Callable[[int], Work], str] = {}
        self.expected: set[str] = set()
        self.messages = 0

    def publish_some(self, happened: set[str]) -> None:
        """Publish new pieces of work, as many as the effects that `happened` leave room for."""
        for work in self._next(room=WINDOW - len(self.expected - happened), happened=happened):
            self._publish(work)

    def _next(self, room: int, happened: set[str]) -> Iterator[Work]:
        for kind in ALONE:
            if kind not in self._alone or self._alone[kind] in happened:
                work = kind(next(self._numbers[kind]))
                self._alone[kind] = work.name
                yield work
        for turn in range(min(room, AT_ONCE)):
            kind = MANY[turn % len(MANY)]
            yield kind(next(self._numbers[kind]))

    def _publish(self, work: Work) -> None:
        self.expected.add(work.name)
        task_id = str(uuid4())
        for message in range(work.messages):
            its_id = task_id if work.same_id or not message else str(uuid4())
            self._app.send_task(work.task, work.args, task_id=its_id)
            self.messages += 1
