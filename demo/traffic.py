"""The traffic: pieces of work with the duplicates that real systems make.

Invariant: the ledger holds a piece of work before its first message is published, so none can be
missing in the count at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Protocol
from uuid import uuid4

from celery import Celery

from .app import CLOSE, DISPATCH, ESCALATE, METER, NOTIFY, REPORT
from .ledger import Ledger

TICK_SECONDS: Final = 0.25
WINDOW: Final = 12
"""How many pieces of work may be unsettled at once: a slow machine gets fewer, not a backlog."""
AT_ONCE: Final = 6
CALM_WINDOW: Final = 100
"""The same of calm traffic, some of which waits while Redis is away."""
ONE_IN: Final = 100
"""Calm is not without duplicates: of so many pieces of work one is published twice."""
COPIES: Final = 4
"""Messages for each piece of work in a storm of duplicates."""
LANE: Final = 1_000_000
"""Numbers of works that one process of traffic has for itself."""
DAY: Final = "2026-03-01"


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work, named as its effect is, and how many messages are sent for it."""

    name: str
    task: str
    args: tuple[Any, ...]
    messages: int = 1
    same_id: bool = False


Kind = Callable[[int], Work]


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


def dispatch_safely(number: int) -> Work:
    """Its process lives."""
    return Work(f"{DISPATCH}:{number}", DISPATCH, (number, DAY, "never"))


def notify(number: int) -> Work:
    """For one of a few users; published twice now and then."""
    return Work(f"{NOTIFY}:{number}", NOTIFY, (number % 5, number), messages=1 + (number % 4 == 0))


def read(number: int) -> Work:
    """Of one of a few meters; published twice now and then."""
    device = f"meter-{number % 8}"
    return Work(f"{METER}:{number}", METER, (device, number), messages=1 + (number % 4 == 0))


class Pattern(Protocol):
    """Which pieces of work come next."""

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """Those of one tick. `unsettled`: what was published and has not had its effect."""


class _Numbered:
    """Numbers its works, each kind by itself, from the first of a lane on."""

    def __init__(self, lane: int) -> None:
        self._first = lane * LANE
        self._numbers: dict[Kind, Iterator[int]] = {}

    def work(self, kind: Kind) -> Work:
        """The next one of a kind."""
        numbers = self._numbers.setdefault(kind, count(self._first + 1))
        return kind(next(numbers))


class Mixed(_Numbered):
    """Every kind of duplicate, all the time."""

    ALONE: Final = (report, dispatch)
    """Of each of these one at a time: they hold a process, or kill it."""
    MANY: Final = (close, escalate, notify, close, escalate, read)

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        self._alone: dict[Kind, str] = {}

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """As many as what is unsettled leaves room for."""
        room = WINDOW - len(unsettled)
        for kind in self.ALONE:
            if self._alone.get(kind) not in unsettled:
                work = self.work(kind)
                self._alone[kind] = work.name
                yield work
        for turn in range(min(room, AT_ONCE)):
            yield self.work(self.MANY[turn])


class Calm(_Numbered):
    """A steady stream, four each second, of which one in a hundred is published twice."""

    KINDS: Final = (close, escalate, notify, read, dispatch_safely)

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        self._turns = count()

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """One, unless too many wait."""
        if len(unsettled) < CALM_WINDOW:
            turn = next(self._turns)
            work = self.work(self.KINDS[turn % len(self.KINDS)])
            yield replace(work, messages=1 + (turn % ONE_IN == ONE_IN // 10), same_id=False)


class Duplicates(_Numbered):
    """A publisher gone wild: each piece of work in several messages."""

    KINDS: Final = (close, notify)

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """One of each, unless too many wait."""
        for kind in self.KINDS if len(unsettled) < WINDOW else ():
            yield replace(self.work(kind), messages=COPIES)


PATTERNS: Final[Mapping[str, Callable[[int], Pattern]]] = {
    "mixed": Mixed,
    "calm": Calm,
    "duplicates": Duplicates,
}


class Traffic:
    """Publishes pieces of work, and knows which of them have not had their effect."""

    def __init__(self, app: Celery, ledger: Ledger, pattern: str) -> None:
        self._app, self._ledger = app, ledger
        self._pattern = PATTERNS[pattern](ledger.new_lane())
        self._unsettled: set[str] = set()

    def tick(self) -> None:
        """Publish what comes next."""
        self._unsettled -= self._ledger.happened(self._unsettled)
        works = list(self._pattern.next(self._unsettled))
        self._ledger.expect([(work.name, work.messages) for work in works])
        self._unsettled |= {work.name for work in works}
        self._publish(works)

    def _publish(self, works: Sequence[Work]) -> None:
        for work in works:
            task_id = str(uuid4())
            for message in range(work.messages):
                its_id = task_id if work.same_id or not message else str(uuid4())
                self._app.send_task(work.task, work.args, task_id=its_id)
