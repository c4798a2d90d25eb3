"""The copies of one message that another holder turns away: one waits, and none is lost.

A copy is taken from the broker, noted in the record, published again, and acknowledged. Between any
two of these its worker may die, the broker may deliver it once more, or it may come too early by a
wrong clock: `troubles`, as many as the bounds allow. A surplus copy that comes only when the noted
one is due, and before it, goes on beside it: they are as many as there were troubles, never more.

The record's answer is that of `judge`, as in the stores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from idemwatch.idempotency.record import Claim, Record, State, Wait, Waiter, judge

RULES: Final = (
    "publish_first",  # the next copy is published before this one is acknowledged
    "one_waits",  # a copy that finds another one noted is acknowledged
    "token",  # ... unless it is the one that is noted
    "redelivered",  # ... or may have died after it was noted, before it was published
)
FOREVER: Final = 1000


class Step(StrEnum):
    """Where a copy is."""

    QUEUED = "queued"
    TAKEN = "taken"
    NOTED = "noted"
    OWED = "owed"  # acknowledged, to be published: only without publish_first
    SENT = "sent"
    SURPLUS = "surplus"


class Copy(NamedTuple):
    """`turn`: how often it waited, which its token tells. `eta`: when it may be looked at."""

    turn: int = 0
    eta: int = 0
    step: Step = Step.QUEUED
    redelivered: bool = False


class World(NamedTuple):
    """`noted`: the turn of the copy that the record knows, and when it is due."""

    copies: tuple[Copy, ...] = (Copy(),)
    now: int = 0
    noted: tuple[int, int] | None = None
    troubles: int = 0
    breach: str = ""

    def __str__(self) -> str:
        copies = ", ".join(f"{one.step} {one.turn} (at {one.eta})" for one in self.copies)
        return f"at {self.now}: {copies or 'no copy'}; noted {self.noted or '-'}"


class Waiting:
    """The steps from one world to the next ones, under all rules but those left out."""

    def __init__(self, without: frozenset[str] = frozenset(), ticks: int = 2, troubles: int = 2):
        self._without = without
        self._ticks = ticks
        self._troubles = troubles

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """Every step that could come next."""
        calm = world.troubles == self._troubles
        if world.now < self._ticks:
            yield "tick", world._replace(now=world.now + 1)
        for copy in set(world.copies):
            rest = list(world.copies)
            rest.remove(copy)
            for name, after in self._of(world._replace(copies=tuple(rest)), copy):
                yield f"{name} {copy.turn}", after._replace(copies=tuple(sorted(after.copies)))
            if not calm:
                yield from self._trouble(world._replace(copies=tuple(rest)), copy)

    def _of(self, rest: World, copy: Copy) -> Iterator[tuple[str, World]]:
        if copy.step is Step.QUEUED and copy.eta <= rest.now:
            yield "take", _with(rest, copy._replace(step=Step.TAKEN))
        elif copy.step is Step.TAKEN:
            yield "look", self._look(rest, copy)
        elif copy.step is Step.NOTED and "publish_first" in self._without:
            yield "acknowledge", _with(rest, copy._replace(step=Step.OWED))
        elif copy.step is Step.OWED:
            yield "publish", _with(rest, _following(copy, rest.now))
        elif copy.step is Step.NOTED:
            sent = copy._replace(step=Step.SENT)
            yield "publish", _with(rest, sent, _following(copy, rest.now))
        elif copy.step in (Step.SENT, Step.SURPLUS):
            yield "acknowledge", rest

    def _look(self, rest: World, copy: Copy) -> World:
        following = copy.turn + 1
        presented = str(copy.turn) if "token" not in self._without else "?"
        redelivered = copy.redelivered and "redelivered" not in self._without
        wait = Wait(str(following), presented, redelivered, max_delay_us=1)
        claim = Claim("key", "another", "postgres", task_id="id", wait=wait)
        verdict = judge(self._record(rest), claim, rest.now)
        if verdict.answer.delay_us is None:
            return _with(rest, copy._replace(step=Step.SURPLUS))
        noted = rest._replace(noted=(following, rest.now + 1))
        if self._is_surplus(rest, copy):
            noted = noted._replace(breach="a second copy is published while one waits")
        return _with(noted, copy._replace(step=Step.NOTED))

    def _is_surplus(self, rest: World, copy: Copy) -> bool:
        """Neither the copy that is noted, nor a redelivery that may never have been published."""
        if rest.noted is None or rest.noted[1] <= rest.now:
            return False
        return not copy.redelivered and rest.noted[0] != copy.turn

    def _record(self, world: World) -> Record:
        known = {"id": Waiter(str(world.noted[0]), world.noted[1])} if world.noted else {}
        waiters = {} if "one_waits" in self._without else known
        return Record(State.RUNNING, "holder", 1, FOREVER, 0, 0, 0, "postgres", "", "other",
                      "task", "global", waiters=waiters)  # fmt: skip

    def _trouble(self, rest: World, copy: Copy) -> Iterator[tuple[str, World]]:
        rest = rest._replace(troubles=rest.troubles + 1)
        again = copy._replace(step=Step.QUEUED, redelivered=True)
        if copy.step is Step.OWED:
            yield f"die {copy.turn}", rest
        elif copy.step is not Step.QUEUED:
            yield f"die {copy.turn}", _with(rest, again)
            yield f"deliver {copy.turn} again", _with(rest, copy, again)
        elif copy.eta > rest.now:
            yield f"too early: take {copy.turn}", _with(rest, copy._replace(step=Step.TAKEN))


def _following(copy: Copy, now: int) -> Copy:
    return Copy(copy.turn + 1, now + 1)


def _with(world: World, *copies: Copy) -> World:
    return world._replace(copies=tuple(sorted((*world.copies, *copies))))


def breach(world: World) -> str:
    """What is wrong here, "" if nothing."""
    if not world.copies:
        return "the message is lost: no copy of it is left"
    waiting = [one for one in world.copies if one.step is Step.QUEUED]
    if len(waiting) > 1 + world.troubles:
        return f"{len(waiting)} copies wait: they multiply"
    return world.breach


def explore(without: frozenset[str] = frozenset()) -> tuple[int, str]:
    """How many worlds there are; the story of the shortest way to a breach, "" if there is none."""
    machine, first = Waiting(without), World()
    stories: dict[World, tuple[World, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        if wrong := breach(world):
            return len(stories), f"{_story(stories, world)}\n     so {wrong}"
        for name, after in machine.steps(world):
            if after not in stories:
                stories[after] = (world, name)
                queue.append(after)
    return len(stories), ""


def _story(stories: dict[World, tuple[World, str] | None], world: World) -> str:
    lines: list[str] = []
    while (found := stories[world]) is not None:
        lines.append(f"{found[1]:20} {world}")
        world = found[0]
    return "\n".join(f"{n:3}. {line}" for n, line in enumerate(reversed(lines), 1))
