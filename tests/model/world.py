"""What the model's world consists of: workers with a delivery each, a record, a cache, a target."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple, cast

from idemwatch.idempotency.record import Claim, Record, State, Waiter, is_gone

NOBODY: Final = cast(Mapping[str, Waiter], ())
"""No waiters, as a value that can be hashed on Python 3.11 too."""
FOREVER: Final = 1000
"""A time that is never reached."""


class Phase(StrEnum):
    """Where one delivery of a message is."""

    WAITS = "waits"  # in the broker
    ASKED = "asked"  # the cache had no answer
    JUDGED = "judged"  # read, not written: only without atomic_claim
    UNSURE = "unsure"  # its claim got through, and it was never told so
    HOLDS = "holds"
    CHECKED = "checked"  # claim.check() has passed
    WORKS = "works"  # its effect has begun
    ENDED = "ended"  # its effect is done
    CACHED = "cached"  # only without cache_after_commit
    TOLD = "told"  # completed, the cache does not know yet
    OVER = "over"  # acknowledged


HOLDING: Final = (Phase.HOLDS, Phase.CHECKED, Phase.WORKS, Phase.ENDED, Phase.CACHED)


class Worker(NamedTuple):
    """One worker, with the delivery in its hands."""

    phase: Phase = Phase.WAITS
    owner: str = ""
    attempt: int = 0
    fence: int = 0
    lease_until: int = -1
    turn: int = 0
    judged: Record | None = None
    errand: str = ""
    """The owner whose claim is to be given back, in the background."""


class World(NamedTuple):
    """All that there is. `target_fence`: the newest that a target which checks fences has seen."""

    workers: tuple[Worker, ...]
    now: int = 1
    record: Record | None = None
    cache: Record | None = None
    target_fence: int = 0
    target_turn: int = 0
    turns: int = 0
    """How often the key was granted; what the target must not see go back."""
    done_since: str = ""
    """The owner whose work counts as done, "" once it was forgotten or has expired."""
    forgotten: bool = False
    deaths: int = 0
    retries: int = 0
    lost_replies: int = 0
    losses: int = 0
    """How often the store has lost the record: who held it, and what was done, is known to none."""
    breach: str = ""

    def __str__(self) -> str:
        record, cache = (_shown(one) for one in (self.record, self.cache))
        phases = ", ".join(str(one.phase) for one in self.workers)
        return f"at {self.now}: {phases}; record {record}; cache {cache}"


def _shown(record: Record | None) -> str:
    if record is None:
        return "-"
    until = "" if record.due_us >= FOREVER else f" until {record.due_us}"
    return f"{record.state} of {record.owner.split('.')[0]} (fence {record.fence}){until}"


class Bounds(NamedTuple):
    """How far to go: ticks of the clock, and how often each trouble comes in all.

    `well`: no worker is late with its heartbeat. `ids`: of how many messages the deliveries are.
    `cache`: whether there is one.
    """

    ticks: int = 2
    deaths: int = 0
    retries: int = 0
    forget: bool = False
    lost_replies: int = 0
    losses: int = 0
    well: bool = False
    ids: int = 3
    cache: bool = True


Step = tuple[str, World]


def new_owner(world: World, number: int) -> str:
    return f"{number}.{world.deaths}.{world.retries}.{world.lost_replies}"


def over(world: World, number: int) -> World:
    """Acknowledged, and forgotten."""
    errand = world.workers[number].errand
    return with_worker(world, number, Worker(Phase.OVER, errand=errand))


def changed(world: World, number: int, **new: object) -> World:
    return with_worker(world, number, world.workers[number]._replace(**new))  # type: ignore[arg-type]


def with_worker(world: World, number: int, worker: Worker) -> World:
    workers = (*world.workers[:number], worker, *world.workers[number + 1 :])
    return watched(world._replace(workers=workers))


def watched(world: World) -> World:
    """At most one live lease holder."""
    holders = [
        number
        for number, one in enumerate(world.workers)
        if one.phase in HOLDING and one.lease_until > world.now
    ]
    forgotten = world.record is not None and world.record.state is State.FORGOTTEN
    if len(holders) > 1 and not (world.forgotten or forgotten or world.losses):
        return breach(world, f"workers {holders} hold the key at once")
    return world


def breach(world: World, what: str) -> World:
    return world if world.breach else world._replace(breach=what)


def expired(world: World) -> World:
    """A result whose time is over counts as done no more."""
    record = world.record
    if record is not None and record.state is State.DONE and is_gone(record, world.now):
        return world._replace(done_since="")
    return world


def first(claim: Claim, now: int, fence: int) -> Record:
    return Record(State.RUNNING, claim.owner, fence, now + claim.lease_us, 0, claim.attempt, 0,
                  "postgres", "", claim.task_id, "service", "global", waiters=NOBODY)  # fmt: skip


def done(worker: Worker, due: int) -> Record:
    result = worker.owner.encode()
    return Record(State.DONE, worker.owner, worker.fence, due, 0, worker.attempt, 0, "postgres",
                  "", "", "service", "global", waiters=NOBODY, result=result)  # fmt: skip
