"""The plan of a simulation: which work comes when, and what is done to it.

Invariant: a pure function of the seed and the options, so that the same trouble is made for plain
Celery and for idemwatch, and can be made again. All times are seconds since publishing began.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

WORKS_PER_SECOND: Final = 6.0
VISIBILITY_SECONDS: Final = 2.0
"""How long the broker waits for a message to be acknowledged; an hour, in a time-lapse."""
LEASE_SECONDS: Final = 4.0
LONGEST_OUTAGE_SECONDS: Final = 2.5
"""Shorter than a lease, so that an outage alone takes no lease away."""
QUICK_SECONDS: Final = (0.02, 0.15)
SLOW_SECONDS: Final = (VISIBILITY_SECONDS + 1.0, VISIBILITY_SECONDS + 2.0)
COPY_DELAYS: Final = ((0.0, 0.0), (0.05, 0.3), (0.5, 2.0))
"""A second message comes at once, while the first is met, or when the work is done."""
STORES: Final = ("postgres", "redis")
POINTS: Final = ("before", "after")
"""Of a death: before the effect, or after it and before it is recorded."""
_WHOLE_WORKER: Final = 5
"""Of so many planned deaths one takes the whole worker along."""
_IDLE: Final = 4
"""For so many planned deaths in the middle of work, one process dies while it is idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for. Rates: duplicates, kills and redelivery of works, outages of time."""

    seconds: float = 15.0
    works: int = 90
    duplicates: float = 0.3
    kills: float = 0.1
    redelivery: float = 0.1
    outages: float = 0.2
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """A further message for the same work, so much later; with the first one's task id or not."""

    after: float
    same_id: bool


@dataclass(frozen=True, slots=True)
class Death:
    """SIGKILL in the first execution, at one of POINTS; `whole_worker`, or the process alone."""

    point: str
    whole_worker: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work. `lasts`: seconds of its first execution and of every other."""

    number: int
    at: float
    lasts: float
    copies: tuple[Copy, ...] = ()
    death: Death | None = None

    @property
    def slow(self) -> bool:
        """Whether it outlasts the broker's patience."""
        return self.lasts > VISIBILITY_SECONDS


@dataclass(frozen=True, slots=True)
class Outage:
    """A store that is away. `hangs`: connections stay and nothing answers; else they are reset."""

    store: str
    at: float
    lasts: float
    hangs: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All that will be done. `idle_kills`: when a process of the pool is killed that does nothing;
    the number chooses the worker."""

    seed: int
    options: Options
    works: tuple[Work, ...]
    outages: tuple[Outage, ...] = ()
    idle_kills: tuple[tuple[float, int], ...] = field(default=())

    @property
    def messages(self) -> int:
        """How many are published."""
        return sum(1 + len(work.copies) for work in self.works)

    @property
    def deaths(self) -> int:
        """How often something is killed on purpose."""
        return sum(work.death is not None for work in self.works) + len(self.idle_kills)

    @property
    def seconds(self) -> float:
        """When the last thing is done."""
        publishes = [work.at + copy.after for work in self.works for copy in work.copies]
        ends = [outage.at + outage.lasts for outage in self.outages]
        return max([*publishes, *ends, *(work.at for work in self.works), 0.0])


def plan(seed: int, options: Options) -> Plan:
    """The plan of a seed. The rates are kept exactly, as far as whole numbers can."""
    chooser = random.Random(seed)
    numbers = range(1, options.works + 1)
    slow = _some(chooser, numbers, options.redelivery)
    dying = _some(chooser, numbers, options.kills)
    doubled = _some(chooser, numbers, options.duplicates)
    whole = set(dying[::_WHOLE_WORKER] if len(dying) >= _WHOLE_WORKER else ())
    step = options.seconds / max(1, options.works)
    works = tuple(
        Work(
            number,
            at=round((number - 1 + chooser.random()) * step, 3),
            lasts=round(chooser.uniform(*(SLOW_SECONDS if number in slow else QUICK_SECONDS)), 3),
            copies=_copies(chooser) if number in doubled else (),
            death=Death(chooser.choice(POINTS), number in whole) if number in dying else None,
        )
        for number in numbers
    )
    return Plan(
        seed, options, works, _outages(chooser, options), _idle_kills(chooser, options, dying)
    )


def _some(chooser: random.Random, numbers: Sequence[int], rate: float) -> list[int]:
    """A sample of exactly this part, in the order of choice."""
    return chooser.sample(numbers, round(rate * len(numbers)))


def _copies(chooser: random.Random) -> tuple[Copy, ...]:
    """One further message, now and then two."""
    delays = chooser.sample(COPY_DELAYS, 1 if chooser.random() < 0.75 else 2)
    return tuple(
        Copy(round(chooser.uniform(*delay), 3), chooser.random() < 0.5) for delay in delays
    )


def _outages(chooser: random.Random, options: Options) -> tuple[Outage, ...]:
    """One after the other, never two at once; the stores take turns."""
    away = options.outages * options.seconds
    if not away:
        return ()
    count = max(1, round(away / 2))
    room = options.seconds / count
    lasts = min(away / count, LONGEST_OUTAGE_SECONDS, room)
    first = chooser.randrange(len(STORES))
    return tuple(
        Outage(
            STORES[(first + turn) % len(STORES)],
            at=round(turn * room + chooser.uniform(0, room - lasts), 3),
            lasts=round(lasts, 3),
            hangs=chooser.random() < 0.5,
        )
        for turn in range(count)
    )


def _idle_kills(
    chooser: random.Random, options: Options, dying: Sequence[int]
) -> tuple[tuple[float, int], ...]:
    kills = (
        (round(chooser.uniform(0, options.seconds), 3), chooser.randrange(options.workers))
        for _ in range(-(-len(dying) // _IDLE))
    )
    return tuple(sorted(kills))
