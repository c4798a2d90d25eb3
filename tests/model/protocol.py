"""The claim protocol as a machine of states: three workers, one key, a record, a cache, a target.

Claims are judged by the very function that all stores ask (`judge`); the conditional writes of a
store are one line each, as its SQL and its scripts have them. Time is a small number: a lease, a
result and a retry last one tick each, and `tick` is anybody's clock going on while all others
stand still. A step is what happens at once; between two steps anything else may happen, so that a
worker that is frozen, late or dead is one whose next step comes late or never.

Every rule of RULES can be left out, to see what it is there for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idemwatch.idempotency.record import Claim, Outcome, Record, State, is_gone, judge

from .world import (
    FOREVER,
    HOLDING,
    NOBODY,
    Bounds,
    Phase,
    Step,
    Worker,
    World,
    breach,
    changed,
    done,
    expired,
    first,
    new_owner,
    over,
    with_worker,
)

RULES: Final = (
    "owner_check",  # complete, renew, release and park name owner and fence
    "lease",  # a key is taken over only after its lease has run out
    "fence",  # the fence grows with every holder
    "atomic_claim",  # what was judged is written only if it is still there
    "check",  # an effect begins only under a lease that has not run out
    "result_kept",  # a result stays for its time, not until the holder is done
    "cache_after_commit",  # the cache is told of a result that is stored
    "cache_tombstone",  # forget leaves a mark in the cache that late writers respect
    "clock_fence",  # a fence is no lower than the clock, also where no record is known
    "heartbeat",  # a lease is renewed before it has run out
    "same_owner",  # a claim whose reply was lost is asked again as the same owner
    "abandon",  # what a claim got whose reply never came is given back
    "attempt",  # a parked key opens to its task's next attempt, and to all when that is late
)


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
            yield "tick", self._tick(world)
        if world.record is not None and world.losses < self._bounds.losses:
            yield "lose", world._replace(record=None, done_since="", losses=world.losses + 1)
        if self._bounds.forget and not world.forgotten and world.record is not None:
            yield "forget: cache", self._bury(world)
        if world.forgotten and world.record and world.record.state is State.DONE:
            yield "forget: record", self._forget(world)
        for number in range(len(world.workers)):
            for name, after in self._of_worker(world, number):
                yield f"{name} {number}", after

    def is_stuck(self, world: World) -> bool:
        """Whether a delivery waits for ever: also when every lease and retry has run out."""
        later = world
        if world.record is not None and self._bounds.ticks:
            later = world._replace(now=world.record.due_us)
        waits = any(one.phase is not Phase.OVER for one in world.workers)
        return waits and not any(
            any(self._of_worker(one, n))
            for one in (world, later)
            for n in range(len(world.workers))
        )

    def _rule(self, name: str) -> bool:
        return name not in self._without

    def _tick(self, world: World) -> World:
        world = world._replace(now=world.now + 1)
        if self._bounds.well and self._rule("heartbeat"):
            for number, worker in enumerate(world.workers):
                if worker.phase in HOLDING and self._owned(world, worker):
                    world = self._renewed(world, number)
        return expired(world)

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
        elif worker.phase is Phase.UNSURE:
            yield from self._unsure(world, number)
        elif worker.phase is Phase.JUDGED:
            yield "write", self._granted(world, number, worker.judged)
        elif worker.phase is Phase.TOLD:
            yield "cache", over(self._cached(world, number), number)
        elif worker.phase is not Phase.OVER:
            yield from self._of_holder(world, number)
        if worker.errand:
            yield "abandon", changed(self._abandoned(world, worker.errand), number, errand="")
        if worker.phase not in (Phase.WAITS, Phase.OVER):
            yield from self._die(world, number)

    def _ask(self, world: World, number: int) -> Iterator[Step]:
        """The cache first: what is finished needs no claim."""
        cached = world.cache if self._bounds.cache else None
        if cached is not None and cached.state is State.DONE and not is_gone(cached, world.now):
            yield "cache answers", self._answered(world, number, cached)
        else:
            yield "ask", changed(world, number, phase=Phase.ASKED, owner=new_owner(world, number))

    def _claim(self, world: World, number: int) -> Iterator[Step]:
        worker, record, now = world.workers[number], world.record, world.now
        claim = Claim("key", worker.owner, "postgres", task_id=self._id(number),
                      attempt=worker.attempt, lease_us=1, max_crashes=99, grace_us=0)  # fmt: skip
        if record is None:
            clock = self._rule("fence") and self._rule("clock_fence")
            held = first(claim, now, fence=world.turns + 1 if clock else 1)
        else:
            verdict = judge(self._seen(record, claim, now), claim, now)
            if verdict.answer.outcome is Outcome.DUPLICATE:
                yield "duplicate", self._answered(world, number, record)
                return
            if not verdict.answer.granted or verdict.write is None:
                return  # it waits, and asks again
            held = verdict.write
            if not self._rule("fence"):
                held = held._replace(fence=record.fence)
            world = self._taken(world, number, verdict.answer.outcome)
        held = held._replace(waiters=NOBODY, created_us=0)
        if not self._rule("atomic_claim"):
            yield "judge", changed(world, number, phase=Phase.JUDGED, judged=held)
            return
        yield "claim", self._granted(world, number, held)
        if world.lost_replies < self._bounds.lost_replies:
            granted = self._granted(world, number, held)
            granted = granted._replace(lost_replies=world.lost_replies + 1)
            yield "claim, reply lost", changed(granted, number, phase=Phase.UNSURE)

    def _id(self, number: int) -> str:
        return str(min(number, self._bounds.ids - 1))

    def _seen(self, record: Record, claim: Claim, now: int) -> Record:
        """The record as a claim sees it that does not know all the rules."""
        if record.state is State.RUNNING and not self._rule("lease"):
            return record._replace(due_us=now)
        if record.state is State.WAITING and not self._rule("attempt"):
            return record._replace(task_id=claim.task_id, attempt=0)
        return record

    def _taken(self, world: World, number: int, outcome: Outcome) -> World:
        """What others are entitled to, when a claim is let in over a record."""
        record = world.record
        assert record is not None
        if outcome is Outcome.TAKEN_OVER and self._bounds.well and not self._bounds.lost_replies:
            world = breach(world, f"worker {number} takes over from a holder that is well")
        if record.state is not State.WAITING or record.due_us <= world.now:
            return world
        worker = world.workers[number]
        if self._id(number) != record.task_id or worker.attempt < record.attempt:
            world = breach(world, f"worker {number} takes the key that was kept for a retry")
        return world

    def _unsure(self, world: World, number: int) -> Iterator[Step]:
        """The link asks once more; if there is no reply either, the message comes again."""
        worker, record = world.workers[number], world.record
        owner = worker.owner if self._rule("same_owner") else f"{worker.owner} again"
        again = changed(world, number, phase=Phase.ASKED, owner=owner)
        own = record is not None and record.owner == worker.owner and record.due_us > world.now
        if own and not any(self._claim(again, number)):
            again = breach(again, f"worker {number} is locked out by its own claim")
        yield "ask again", again
        errand = worker.owner if self._rule("abandon") else ""
        yield "give up", with_worker(world, number, Worker(attempt=worker.attempt, errand=errand))

    def _abandoned(self, world: World, owner: str) -> World:
        record = world.record
        open_ = record is not None and record.state in (State.RUNNING, State.WAITING)
        gone = record is not None and open_ and record.owner == owner
        return world._replace(record=None) if gone else world

    def _granted(self, world: World, number: int, held: Record | None) -> World:
        assert held is not None
        if world.done_since:
            world = breach(world, f"worker {number} is let do again what {world.done_since} did")
        again = world.record is not None and world.record.owner == held.owner
        turn = world.turns if again else world.turns + 1
        world = world._replace(record=held, turns=turn)
        until = held.due_us
        return changed(world, number, phase=Phase.HOLDS, fence=held.fence, lease_until=until,
                     turn=turn, judged=None)  # fmt: skip

    def _answered(self, world: World, number: int, record: Record) -> World:
        """A caller gets a stored result: it must be that of work which counts as done."""
        result = (record.result or b"").decode()
        if not world.done_since:
            world = breach(world, f"worker {number} is answered with a result that was forgotten")
        elif result != world.done_since:
            world = breach(world, f"worker {number} is answered with a result of {result}")
        return over(world, number)

    def _of_holder(self, world: World, number: int) -> Iterator[Step]:
        worker = world.workers[number]
        yield from self._renew(world, number)
        if worker.phase is Phase.HOLDS:
            if worker.lease_until > world.now or not self._rule("check"):
                yield "check", self._checked(world, number)
            elif not self._owned(world, worker):
                yield "lease lost", over(world, number)
            yield from self._retry(world, number)
        elif worker.phase is Phase.CHECKED:
            yield "begin", changed(world, number, phase=Phase.WORKS)
        elif worker.phase is Phase.WORKS:
            yield "end", self._end(world, number)
        elif worker.phase is Phase.ENDED and not self._rule("cache_after_commit"):
            early = changed(world, number, lease_until=world.now + 1)
            yield "cache", changed(self._cached(early, number), number, phase=Phase.CACHED)
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
        record = world.record
        due = record is not None and record.due_us <= world.now
        if due and self._owned(world, world.workers[number]):
            yield "renew", self._renewed(world, number)

    def _renewed(self, world: World, number: int) -> World:
        assert world.record is not None
        due = world.now + 1
        world = world._replace(record=world.record._replace(due_us=due))
        return changed(world, number, lease_until=due)

    def _retry(self, world: World, number: int) -> Iterator[Step]:
        worker, record = world.workers[number], world.record
        if world.retries >= self._bounds.retries or not self._owned(world, worker):
            return
        assert record is not None
        attempt = worker.attempt + 1
        parked = record._replace(state=State.WAITING, due_us=world.now + 1, attempt=attempt)
        world = world._replace(retries=world.retries + 1, record=parked)
        yield "park", with_worker(world, number, Worker(attempt=attempt))

    def _checked(self, world: World, number: int) -> World:
        # One whose record was forgotten under it learns of it at its next renewal.
        if world.done_since and not world.forgotten and not world.losses:
            world = breach(world, f"worker {number} may go on with what {world.done_since} did")
        return changed(world, number, phase=Phase.CHECKED)

    def _end(self, world: World, number: int) -> World:
        """A target that keeps the newest fence takes no write of an older holder."""
        worker = world.workers[number]
        if worker.fence >= world.target_fence:
            if worker.turn < world.target_turn:
                world = breach(world, f"the target takes the late write of worker {number}")
            world = world._replace(target_fence=worker.fence, target_turn=worker.turn)
        return changed(world, number, phase=Phase.ENDED)

    def _complete(self, world: World, number: int) -> World:
        worker, record = world.workers[number], world.record
        lost = record is None or is_gone(record, world.now)
        if lost and record is not None and record.state is State.FORGOTTEN:
            return over(world, number)
        if not self._owned(world, worker) and record is not None and not lost:
            return self._late(world, number, record)
        if record is not None and record.state is State.RUNNING and record.owner != worker.owner:
            world = breach(world, f"worker {number} completes what {record.owner} holds")
        due = world.now + 1 if self._rule("result_kept") else world.now
        stored = done(worker, due)
        world = world._replace(record=stored, done_since=worker.owner)
        told = Phase.TOLD if self._bounds.cache else Phase.OVER
        return changed(world, number, phase=told, lease_until=due)

    def _late(self, world: World, number: int, record: Record) -> World:
        """A late holder behaves as a duplicate: the successor's result, or it waits for it."""
        if record.state is State.DONE:
            return self._answered(world, number, record)
        return with_worker(world, number, Worker(attempt=world.workers[number].attempt))

    def _cached(self, world: World, number: int) -> World:
        """Never over another entry or a tombstone; it expires there as in the store."""
        worker = world.workers[number]
        taken = world.cache is not None and world.cache.due_us > world.now
        if taken or worker.lease_until <= world.now:
            return world
        return world._replace(cache=done(worker, worker.lease_until))

    def _die(self, world: World, number: int) -> Iterator[Step]:
        worker = world.workers[number]
        if world.deaths < self._bounds.deaths:
            world = world._replace(deaths=world.deaths + 1)
            yield "die", with_worker(world, number, Worker(attempt=worker.attempt))
