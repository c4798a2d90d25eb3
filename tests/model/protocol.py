"""The claim protocol as a machine of states: three workers, one key, a record, a cache, a target.

Claims are judged by the very function that all stores ask (`judge`); the conditional writes of a
store are one line each, as its SQL and its scripts have them. Time is a small number: a lease, a
result and a retry last one tick each, and `tick` is anybody's clock going on while all others
stand still. A step is what happens at once; between two steps anything else may happen, so that a
worker that is frozen, late or dead is one whose next step comes late or never.

Every rule of RULES can be left out, to see what it is there for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, cast

from idemwatch.idempotency.record import Claim, Outcome, Record, State, Waiter, is_gone, judge

RULES: Final = (
    "owner_check",  # complete, renew, release and park name owner and fence
    "lease",  # a key is taken over only after its lease has run out
    "fence",  # the fence grows with every holder
    "atomic_claim",  # what was judged is written only if it is still there
    "check",  # an effect begins only under a lease that has not run out
    "result_kept",  # a result stays for its time, not until the holder is done
    "cache_after_commit",  # the cache is told of a result that is stored
    "cache_tombstone",  # forget leaves a mark in the cache that late writers respect
)
NOBODY: Final = cast(Mapping[str, Waiter], ())
"""No waiters, as a value that can be hashed on Python 3.11 too."""
FOREVER: Final = 1000
"""A time that is never reached."""


class Phase(StrEnum):
    """Where one delivery of a message is."""

    WAITS = "waits"  # in the broker
    ASKED = "asked"  # the cache had no answer
    JUDGED = "judged"  # read, not written: only without atomic_claim
    HOLDS = "holds"
    CHECKED = "checked"  # claim.check() has passed
    WORKS = "works"  # its effect has begun
    ENDED = "ended"  # its effect is done
    CACHED = "cached"  # only without cache_after_commit
    TOLD = "told"  # completed, the cache does not know yet
    OVER = "over"  # acknowledged


class Worker(NamedTuple):
    """One worker, with the delivery in its hands."""

    phase: Phase = Phase.WAITS
    owner: str = ""
    attempt: int = 0
    fence: int = 0
    lease_until: int = -1
    turn: int = 0
    judged: Record | None = None


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
    breach: str = ""


class Bounds(NamedTuple):
    """How far to go: ticks of the clock, deaths and retries in all, one forget or none."""

    ticks: int = 2
    deaths: int = 1
    retries: int = 1
    forget: bool = True


Step = tuple[str, World]


class Protocol:
    """The steps from one world to the next ones, under all rules but those left out."""

    def __init__(self, bounds: Bounds, without: frozenset[str] = frozenset()) -> None:
        unknown = without - set(RULES)
        if unknown:
            raise ValueError(f"no such rule: {', '.join(sorted(unknown))}")
        self._bounds = bounds
        self._without = without

    def steps(self, world: World) -> Iterator[Step]:
        """Every step that could come next, with its name."""
        if world.now < 1 + self._bounds.ticks:
            yield "tick", _expired(world._replace(now=world.now + 1))
        if self._bounds.forget and not world.forgotten and world.record is not None:
            yield "forget: cache", self._bury(world)
        if world.forgotten and world.record and world.record.state is State.DONE:
            yield "forget: record", self._forget(world)
        for number in range(len(world.workers)):
            for name, after in self._of_worker(world, number):
                yield f"{name} {number}", after

    def is_stuck(self, world: World) -> bool:
        """Whether a delivery waits for ever: also when every lease and retry has run out."""
        later = world if world.record is None else world._replace(now=world.record.due_us)
        waits = any(one.phase is not Phase.OVER for one in world.workers)
        return waits and not any(
            any(self._of_worker(one, n))
            for one in (world, later)
            for n in range(len(world.workers))
        )

    def _rule(self, name: str) -> bool:
        return name not in self._without

    # -- forget: an operator, in two writes --------------------------------------------------

    def _bury(self, world: World) -> World:
        record = world.record
        assert record is not None
        stone = record._replace(state=State.FORGOTTEN, due_us=FOREVER)
        cache = stone if self._rule("cache_tombstone") else None
        world = world._replace(cache=cache, forgotten=True)
        # A holder's record is forgotten at once here; that of a finished one in a second write.
        return world if record.state is State.DONE else self._forget(world)

    def _forget(self, world: World) -> World:
        assert world.record is not None
        stone = world.record._replace(state=State.FORGOTTEN, due_us=FOREVER)
        return world._replace(record=stone, done_since="")

    # -- a worker ----------------------------------------------------------------------------

    def _of_worker(self, world: World, number: int) -> Iterator[Step]:
        worker = world.workers[number]
        if worker.phase is Phase.WAITS:
            yield from self._ask(world, number)
        elif worker.phase is Phase.ASKED:
            yield from self._claim(world, number)
        elif worker.phase is Phase.JUDGED:
            yield "write", self._granted(world, number, worker.judged)
        elif worker.phase is Phase.TOLD:
            yield "cache", _over(self._cached(world, number), number)
        elif worker.phase is not Phase.OVER:
            yield from self._of_holder(world, number)
        if worker.phase not in (Phase.WAITS, Phase.OVER):
            yield from self._die(world, number)

    def _ask(self, world: World, number: int) -> Iterator[Step]:
        """The cache first: what is finished needs no claim."""
        cached = world.cache
        if cached is not None and cached.state is State.DONE and not is_gone(cached, world.now):
            yield "cache answers", self._answered(world, number, cached)
        else:
            owner = f"{number}.{world.deaths}.{world.retries}"
            yield "ask", _with(world, number, phase=Phase.ASKED, owner=owner)

    def _claim(self, world: World, number: int) -> Iterator[Step]:
        worker, record, now = world.workers[number], world.record, world.now
        claim = Claim("key", worker.owner, "postgres", task_id=str(number), attempt=worker.attempt,
                      lease_us=1, max_crashes=99)  # fmt: skip
        if record is None:
            held = _first(claim, now, fence=1 if not self._rule("fence") else now)
        else:
            seen = record if self._rule("lease") else _run_out(record, now)
            verdict = judge(seen, claim, now)
            if verdict.answer.outcome is Outcome.DUPLICATE:
                yield "duplicate", self._answered(world, number, record)
                return
            if not verdict.answer.granted or verdict.write is None:
                return  # it waits, and asks again
            held = verdict.write
            if not self._rule("fence"):
                held = held._replace(fence=record.fence)
        held = held._replace(waiters=NOBODY, created_us=0)
        if self._rule("atomic_claim"):
            yield "claim", self._granted(world, number, held)
        else:
            yield "judge", _with(world, number, phase=Phase.JUDGED, judged=held)

    def _granted(self, world: World, number: int, held: Record | None) -> World:
        assert held is not None
        if world.done_since:
            world = _breach(world, f"worker {number} is let do again what {world.done_since} did")
        turn = world.turns + 1
        world = world._replace(record=held, turns=turn)
        until = held.due_us
        return _with(world, number, phase=Phase.HOLDS, fence=held.fence, lease_until=until,
                     turn=turn, judged=None)  # fmt: skip

    def _answered(self, world: World, number: int, record: Record) -> World:
        """A caller gets a stored result: it must be that of work which counts as done."""
        result = (record.result or b"").decode()
        if not world.done_since:
            world = _breach(world, f"worker {number} is answered with a result that was forgotten")
        elif result != world.done_since:
            world = _breach(world, f"worker {number} is answered with a result of {result}")
        return _over(world, number)

    def _of_holder(self, world: World, number: int) -> Iterator[Step]:
        worker = world.workers[number]
        yield from self._renew(world, number)
        if worker.phase is Phase.HOLDS:
            if worker.lease_until > world.now or not self._rule("check"):
                yield "check", self._checked(world, number)
            elif not self._owned(world, worker):
                yield "lease lost", _over(world, number)
            yield from self._retry(world, number)
        elif worker.phase is Phase.CHECKED:
            yield "begin", _with(world, number, phase=Phase.WORKS)
        elif worker.phase is Phase.WORKS:
            yield "end", self._end(world, number)
        elif worker.phase is Phase.ENDED and not self._rule("cache_after_commit"):
            early = _with(world, number, lease_until=world.now + 1)
            yield "cache", _with(self._cached(early, number), number, phase=Phase.CACHED)
        else:
            yield "complete", self._complete(world, number)

    def _owned(self, world: World, worker: Worker) -> bool:
        """Whether a conditional write of the worker finds its record."""
        record = world.record
        if record is None:
            return False
        mine = (record.owner, record.fence) == (worker.owner, worker.fence)
        return record.state is State.RUNNING and (mine or not self._rule("owner_check"))

    def _renew(self, world: World, number: int) -> Iterator[Step]:
        worker, record = world.workers[number], world.record
        if record is not None and self._owned(world, worker) and record.due_us <= world.now:
            due = world.now + 1
            world = world._replace(record=record._replace(due_us=due))
            yield "renew", _with(world, number, lease_until=due)

    def _retry(self, world: World, number: int) -> Iterator[Step]:
        worker, record = world.workers[number], world.record
        if world.retries >= self._bounds.retries or not self._owned(world, worker):
            return
        assert record is not None
        attempt = worker.attempt + 1
        parked = record._replace(state=State.WAITING, due_us=world.now + 1, attempt=attempt)
        world = world._replace(retries=world.retries + 1, record=parked)
        yield "park", _with_worker(world, number, Worker(attempt=attempt))

    def _checked(self, world: World, number: int) -> World:
        # One whose record was forgotten under it learns of it at its next renewal.
        if world.done_since and not world.forgotten:
            world = _breach(world, f"worker {number} may go on with what {world.done_since} did")
        return _with(world, number, phase=Phase.CHECKED)

    def _end(self, world: World, number: int) -> World:
        """A target that keeps the newest fence takes no write of an older holder."""
        worker = world.workers[number]
        if worker.fence >= world.target_fence:
            if worker.turn < world.target_turn:
                world = _breach(world, f"the target takes the late write of worker {number}")
            world = world._replace(target_fence=worker.fence, target_turn=worker.turn)
        return _with(world, number, phase=Phase.ENDED)

    def _complete(self, world: World, number: int) -> World:
        worker, record = world.workers[number], world.record
        lost = record is None or is_gone(record, world.now)
        if lost and record is not None and record.state is State.FORGOTTEN:
            return _over(world, number)
        if not self._owned(world, worker) and record is not None and not lost:
            return self._late(world, number, record)
        if record is not None and record.state is State.RUNNING and record.owner != worker.owner:
            world = _breach(world, f"worker {number} completes what {record.owner} holds")
        due = world.now + 1 if self._rule("result_kept") else world.now
        stored = _done(worker, due)
        world = world._replace(record=stored, done_since=worker.owner)
        return _with(world, number, phase=Phase.TOLD, lease_until=due)

    def _late(self, world: World, number: int, record: Record) -> World:
        """A late holder behaves as a duplicate: the successor's result, or it waits for it."""
        if record.state is State.DONE:
            return self._answered(world, number, record)
        return _with_worker(world, number, Worker(attempt=world.workers[number].attempt))

    def _cached(self, world: World, number: int) -> World:
        """Never over another entry or a tombstone; it expires there as in the store."""
        worker = world.workers[number]
        taken = world.cache is not None and world.cache.due_us > world.now
        if taken or worker.lease_until <= world.now:
            return world
        return world._replace(cache=_done(worker, worker.lease_until))

    def _die(self, world: World, number: int) -> Iterator[Step]:
        worker = world.workers[number]
        if world.deaths < self._bounds.deaths:
            world = world._replace(deaths=world.deaths + 1)
            yield "die", _with_worker(world, number, Worker(attempt=worker.attempt))


def _over(world: World, number: int) -> World:
    """Acknowledged, and forgotten."""
    return _with_worker(world, number, Worker(Phase.OVER))


def _with(world: World, number: int, **changed: object) -> World:
    return _with_worker(world, number, world.workers[number]._replace(**changed))  # type: ignore[arg-type]


def _with_worker(world: World, number: int, worker: Worker) -> World:
    workers = (*world.workers[:number], worker, *world.workers[number + 1 :])
    return _watched(world._replace(workers=workers))


def _watched(world: World) -> World:
    """At most one live lease holder."""
    holders = [
        number
        for number, one in enumerate(world.workers)
        if one.phase in (Phase.HOLDS, Phase.CHECKED, Phase.WORKS, Phase.ENDED, Phase.CACHED)
        and one.lease_until > world.now
    ]
    forgotten = world.record is not None and world.record.state is State.FORGOTTEN
    if len(holders) > 1 and not world.forgotten and not forgotten:
        return _breach(world, f"workers {holders} hold the key at once")
    return world


def _breach(world: World, what: str) -> World:
    return world if world.breach else world._replace(breach=what)


def _expired(world: World) -> World:
    """A result whose time is over counts as done no more."""
    record = world.record
    if record is not None and record.state is State.DONE and is_gone(record, world.now):
        return world._replace(done_since="")
    return world


def _first(claim: Claim, now: int, fence: int) -> Record:
    return Record(State.RUNNING, claim.owner, fence, now + claim.lease_us, 0, claim.attempt, 0,
                  "postgres", "", claim.task_id, "service", "global", waiters=NOBODY)  # fmt: skip


def _run_out(record: Record, now: int) -> Record:
    return record._replace(due_us=now) if record.state is State.RUNNING else record


def _done(worker: Worker, due: int) -> Record:
    result = worker.owner.encode()
    return Record(State.DONE, worker.owner, worker.fence, due, 0, worker.attempt, 0, "postgres",
                  "", "", "service", "global", waiters=NOBODY, result=result)  # fmt: skip
