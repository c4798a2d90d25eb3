"""The cases: what is done to each system, and what is to be seen of one that stands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from . import deaths, duplicates, stores
from .seen import (
    Judge,
    Kind,
    Seen,
    both_done,
    done_once,
    given_up,
    parts_once,
    ran_once,
    ran_twice,
    second_refused,
)
from .sites import Site
from .systems import (
    HOLD_SECONDS,
    LEASE_SECONDS,
    ONCE,
    PLAIN,
    POWERTOOLS,
    REDIS,
    SHORT_HOLD_SECONDS,
    SINGLETON,
    System,
)


@dataclass(frozen=True)
class Case:
    """One row. `did`: what was done, for the page; `fast`: with two workers and quick redelivery;
    `limits`: where idemwatch itself is known to fail, by the system's name, and how; `unclaimed`:
    the systems that do not say that they would stand it."""

    title: str
    run: Callable[[Site], Seen]
    judge: Judge
    did: str
    fast: bool = False
    limits: Mapping[str, Kind] = field(default_factory=dict)
    unclaimed: frozenset[System] = frozenset({PLAIN})

    @property
    def name(self) -> str:
        """The name of the function that runs it."""
        return self.run.__name__


_AT_PUBLISH: Final = frozenset({ONCE, SINGLETON, PLAIN})
"""Do not claim to look at a message that comes, nor to remember what has ended."""
_ALL_PEERS: Final = _AT_PUBLISH | {POWERTOOLS}

_CASES: Final = (
    Case(
        "Called twice at once",
        duplicates.called_twice_at_once,
        done_once,
        "Two services call the task with the same arguments before either call has ended. The work"
        " is to be done once, and each caller is to get its result, or be told.",
    ),
    Case(
        "Called again after it ended",
        duplicates.called_again_later,
        done_once,
        "The same call comes again when the first has ended: a button that was pressed twice, a"
        " publisher that was restarted. Where a guard is meant to end with the task, that the work"
        " is done again is no fault, but a limit.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "Delivered again after it ended",
        duplicates.delivered_again_after_it_ended,
        done_once,
        "The message itself, with its id, comes again when the task has ended, as a broker delivers"
        " it when the acknowledgement was lost.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "Delivered again while it runs",
        duplicates.delivered_again_while_running,
        ran_once,
        "A task of 6 s under a visibility timeout of 2 s, with two workers: the broker believes"
        " that the message was lost, and delivers it again.",
        fast=True,
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "Published by name",
        duplicates.published_by_name,
        done_once,
        "While it runs, the same call comes from a service that knows only the task's name"
        " (`send_task`), and then once more from one that has its class.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "One call, written three ways",
        duplicates.one_call_written_three_ways,
        done_once,
        "`task(label, 7)`, `task(label, x=7)` and `task(label, 7, y=0)`, where 0 is the default of"
        " `y`, all at once: one piece of work.",
    ),
    Case(
        "Two calls that look alike",
        duplicates.calls_that_look_alike,
        both_done,
        '`task(label, 1)` and `task(label, "1")` at once: two pieces of work, and both are to be'
        " done.",
    ),
    Case(
        "One key, other arguments",
        duplicates.one_key_with_other_arguments,
        second_refused,
        "A key is one of the arguments. The same key comes again with another amount: somebody has"
        " made a mistake, and is to be told.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "One key, the same arguments",
        duplicates.one_key_with_the_same_arguments,
        done_once,
        "The same key comes again with the same amount, with the same settings as before: no"
        " mistake, and no second piece of work.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "A result of 0",
        duplicates.result_of_zero,
        done_once,
        "The task returns 0 and is called again: the second caller is to get 0 too.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "A result that cannot be stored",
        duplicates.result_that_cannot_be_stored,
        done_once,
        "A task whose result nobody wants (`ignore_result`) returns an object that JSON cannot"
        " hold, and is called again.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "A chord with a part delivered twice",
        duplicates.chord_with_a_part_delivered_twice,
        parts_once,
        "The message of one of three parts is delivered twice. Each part is to be done once, and"
        " what follows them once, with the right sum.",
        unclaimed=_AT_PUBLISH,
    ),
    Case(
        "A retry",
        deaths.retried,
        done_once,
        "The task calls `self.retry(countdown=1)`; its next attempt is to do the work.",
    ),
    Case(
        "The child is killed",
        deaths.child_killed,
        done_once,
        "SIGKILL to the process that runs the task, before its effect. The broker delivers the"
        " message again at once; that the work is done then is what a lock must not prevent.",
    ),
    Case(
        "The worker is killed",
        deaths.worker_killed,
        done_once,
        "SIGKILL to a worker with all its processes, before the effect; another worker gets the"
        " message after the visibility timeout.",
        fast=True,
    ),
    Case(
        "Killed between effect and record",
        deaths.child_killed_after_its_effect,
        done_once,
        "The effect is a row in PostgreSQL, and SIGKILL comes right after its commit. idemwatch"
        " makes the effect inside `transaction()`; the others have no such thing, and commit.",
        unclaimed=_ALL_PEERS,
    ),
    Case(
        "A message that kills its worker",
        deaths.message_that_kills,
        given_up,
        "Each execution of the message ends with SIGKILL (a segmentation fault, out of memory)."
        " It is to be given up and its caller told. Watched for"
        f" {deaths.POISON_SECONDS:.0f} s, or until it has killed {deaths.ENOUGH + 1}; the locks"
        f" last {SHORT_HOLD_SECONDS} s here.",
        unclaimed=_ALL_PEERS,
    ),
    Case(
        "Hard time limit",
        deaths.hard_time_limit,
        done_once,
        "A hard time limit ends the task; then the same call comes again, and is to be done.",
    ),
    Case(
        "Expired before it ran",
        deaths.expired_before_it_ran,
        done_once,
        "The message's `expires` has passed when a worker takes it, and it is discarded; then the"
        " same call comes again, and is to be done.",
    ),
    Case(
        "The task raises Ignore",
        deaths.ignored,
        done_once,
        "The first execution raises Celery's `Ignore`; then the same call comes again, and is to be"
        " done.",
    ),
    Case(
        "Publishing fails",
        deaths.publishing_failed,
        done_once,
        "The message cannot be encoded, and its caller is told; then the same call comes again,"
        " as it should be, and is to be done.",
    ),
    Case(
        "Longer than its lock",
        deaths.longer_than_its_lock,
        ran_once,
        f"A task of 6 s with a lock of {SHORT_HOLD_SECONDS} s (a lease of {LEASE_SECONDS} s in"
        " idemwatch), because it takes longer than was foreseen; its connections are reset once,"
        " and after 4 s the same call comes again. The peers can be given a longer lock; then the"
        " cases in which a lock is left over block for as long.",
    ),
    Case(
        "A holder that was frozen past its lock",
        deaths.frozen_past_its_lock,
        ran_twice,
        "The process of the task stands still for longer than its lock or lease, so that a second"
        " call is let in; then it goes on and fails while the second runs. It must not take the"
        " second one's lock away: a third call must not run beside it.",
    ),
    Case(
        "The reply to the claim is lost",
        stores.reply_to_the_claim_lost,
        done_once,
        "The store carries out the claim, or the lock, and the connection breaks before its reply"
        " comes. Who is refused then calls again until it is let in.",
    ),
    Case(
        "Redis is emptied while it runs",
        stores.redis_emptied_while_it_runs,
        ran_once,
        "FLUSHDB in the system's Redis (a restart without data, an eviction, a failover that lost"
        " the last writes), then the same call comes again.",
        limits={REDIS.name: Kind.REPEATED},
    ),
    Case(
        "Redis is away at the call",
        stores.redis_away_when_called,
        done_once,
        f"The system's Redis refuses connections for {stores.AWAY_SECONDS:.0f} s, in which the task"
        " is called; the broker is another Redis, and answers.",
    ),
    Case(
        "Redis is away at the end",
        stores.redis_away_when_it_ends,
        done_once,
        f"The system's Redis refuses connections for {stores.AWAY_SECONDS:.0f} s, in which the task"
        " ends; then the same call comes again. What is counted is the effect of the first message,"
        f" and whether the second call is shut out. The locks last {HOLD_SECONDS} s.",
    ),
)
CASES: Final = {case.name: case for case in _CASES}
