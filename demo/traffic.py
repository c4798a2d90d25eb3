"""The traffic: pieces of work with the duplicates and the trouble that real systems make.

Invariants: the ledger holds a piece of work before its first message is published, so none can be
missing in the count at the end; what it works on (a job, a ticket) is there before it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Final, Protocol
from uuid import uuid4

from celery import Celery

from . import facility_store as store
from . import trouble
from .facility_settings import SMTP
from .ledger import Ledger
from .works import (
    CONTACT,
    LANE,
    Kind,
    Work,
    client_of,
    close,
    dispatch,
    dispatch_safely,
    escalate,
    letter,
    notify,
    outlast,
    read,
)

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
RELAYED: Final = 4
"""Mails of the outbox that are published at once."""


class Pattern(Protocol):
    """Which pieces of work come next; one in `letter_twice_in` mails is published twice."""

    letter_twice_in: int

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """Those of one tick. `unsettled`: what was published and has not had its effect."""


class _Numbered:
    """Numbers its works, each kind by itself, from the first of a lane on."""

    letter_twice_in = 8

    def __init__(self, lane: int) -> None:
        self._first = lane * LANE
        self._numbers: dict[Kind, Iterator[int]] = {}

    def work(self, kind: Kind) -> Work:
        """The next one of a kind."""
        numbers = self._numbers.setdefault(kind, count(self._first + 1))
        return kind(next(numbers))


class Mixed(_Numbered):
    """Every kind of duplicate, all the time."""

    ALONE: Final = (outlast, dispatch)
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
    letter_twice_in = ONE_IN

    def __init__(self, lane: int) -> None:
        super().__init__(lane)
        self._turns = count()

    def next(self, unsettled: set[str]) -> Iterator[Work]:
        """One, unless too many wait."""
        if len(unsettled) < CALM_WINDOW:
            turn = next(self._turns)
            work = self.work(self.KINDS[turn % len(self.KINDS)])
            copies = 1 + (turn % ONE_IN == ONE_IN // 10)
            yield replace(work, messages=copies, same_id=False, trouble="")


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

    def __init__(self, app: Celery, ledger: Ledger, pattern: str, facility: store.Connection):
        self._app, self._ledger, self._facility = app, ledger, facility
        self._pattern = PATTERNS[pattern](ledger.new_lane())
        self._unsettled: set[str] = set()

    def tick(self) -> None:
        """Publish what comes next."""
        self._unsettled -= self._ledger.happened(self._unsettled)
        self._publish(list(self._pattern.next(self._unsettled)))
        self._relay()

    def _relay(self) -> None:
        """Publish mail of the outbox. Whoever dies in between publishes it again.

        Where no mail server is told of, as in a container, it stays there; and while much is
        unsettled.
        """
        if not os.environ.get(SMTP) or len(self._unsettled) >= WINDOW:
            return
        with self._facility.transaction():
            waiting = store.waiting_mail(self._facility, RELAYED)
            twice_in = self._pattern.letter_twice_in
            works = [
                replace(letter(row), messages=1 + (not row["id"] % twice_in)) for row in waiting
            ]
            self._publish(works)
            for row in waiting:
                store.mail_published(self._facility, row["id"])

    def _publish(self, works: Sequence[Work]) -> None:
        self._ledger.expect([(work.name, work.messages) for work in works])
        self._unsettled |= {work.name for work in works}
        for work in works:
            self._prepare(work)
            self._send(work)

    def _prepare(self, work: Work) -> None:
        if work.needs is not None:
            contact = CONTACT.format(work.number)
            given = {"number": work.number, "client": client_of(work.number), "contact": contact}
            self._facility.execute(work.needs, given)

    def _send(self, work: Work) -> None:
        task_id = str(uuid4())
        headers = {trouble.HEADER: work.trouble} if work.trouble else None
        for message in range(work.messages):
            its_id = task_id if work.same_id or not message else str(uuid4())
            self._app.send_task(work.task, work.args, task_id=its_id, headers=headers)
