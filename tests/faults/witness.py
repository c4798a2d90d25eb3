"""What a worker of the fault machine tells the ledger: each claim, renewal and end of a lease.

Kinds of events, with what stands in `data`:
    claim    began, outcome, fence, granted (mono), lease, met (an owner), result, attempt, error
    renewed  began, lease
    ending   what (complete, park, release, abandon), result      before it is sent
    ended    what, began, said                                    after the store has answered
    counted  task, outcome                                        before the metric counts it
    stall    seconds                                              this process did not run
The tasks write `check`, `begin`, `end`, `wrote` and `over` themselves, see faults.app.

Invariant: what says that something may have happened is written before it can, and what says that
it has happened is written after; so a death between the two never makes a right run look wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_store import PostgresStore
from idemwatch.idempotency.record import SECOND, Answer, Claim
from idemwatch.idempotency.redis_store import RedisStore

from .ledger import Ledger

TICK_SECONDS: Final = 0.05
STALL_SECONDS: Final = 0.3
ENDINGS: Final = ("complete", "park", "release")


def testify(ledger: Ledger, wall_minus_mono: float) -> None:
    """Make this process, and those forked from it, write down what they do."""
    _watch_claims(ledger, wall_minus_mono)
    _watch_counts(ledger)
    for store in (PostgresStore, RedisStore):
        for what in ENDINGS:
            _watch_ending(ledger, store, what)
        _watch_abandon(ledger, store)
        _watch_renewals(ledger, store)
    _watch_stalls(ledger)
    os.register_at_fork(after_in_child=lambda: _watch_stalls(ledger))


def _watch_claims(ledger: Ledger, wall_minus_mono: float) -> None:
    claim_of = Engine.claim

    def claim(self: Engine, store: Any, asked: Claim, *rest: Any) -> Answer:
        began = time.monotonic()

        def tell(outcome: str, **data: Any) -> None:
            about = {"began": began, "outcome": outcome, "attempt": asked.attempt, **data}
            about["authority"] = asked.authority
            ledger.write("claim", asked.key, asked.owner, asked.task_id, **about)

        try:
            answer = claim_of(self, store, asked, *rest)
        except StoreUnavailable as error:
            tell("unavailable", error=type(error).__name__)
            raise
        tell(str(answer.outcome), **_told(asked, answer, wall_minus_mono))
        if answer.granted:
            _die_if_told(ledger, asked.key, "claim")
        return answer

    engine: Any = Engine
    engine.claim = claim


def _told(claim: Claim, answer: Answer, wall_minus_mono: float) -> dict[str, Any]:
    record = answer.record
    told: dict[str, Any] = {"fence": answer.fence, "lease": claim.lease_us / SECOND}
    if answer.granted:
        granted_us = answer.fence if record is None else record.due_us - claim.lease_us
        granted = granted_us / SECOND - wall_minus_mono
        told["granted"] = granted if granted > 0 else time.monotonic()  # a fence without a clock
    elif record is not None:
        told["met"] = record.owner
        if record.result is not None:
            told["result"] = json.loads(record.result)
    return told


def _die_if_told(ledger: Ledger, key: str, what: str) -> None:
    """A key that ends in `!park` kills the process that has parked it, the first time."""
    if key.endswith(f"!{what}") and ledger.write_once(f"died:{key}", str(os.getpid())):
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_counts(ledger: Ledger) -> None:
    count_of = Engine.count

    def count(self: Engine, claim: Claim, outcome: Any, task: str) -> None:
        ledger.write("counted", claim.key, claim.owner, task=task, outcome=outcome.value)
        count_of(self, claim, outcome, task)

    engine: Any = Engine
    engine.count = count


def _watch_ending(ledger: Ledger, store: Any, what: str) -> None:
    method: Callable[..., Any] = getattr(store, what)

    def ending(self: Any, held: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        result = None
        if what == "complete" and args[0].data is not None:
            result = json.loads(args[0].data)
        about: dict[str, Any] = {"what": what, "began": began}
        ledger.write(
            "ending", held.key, held.claim.owner, held.claim.task_id, result=result, **about
        )
        answer = method(self, held, *args, **kwargs)
        ledger.write("ended", held.key, held.claim.owner, held.claim.task_id,
                     said=str(answer), result=result, **about)  # fmt: skip
        _die_if_told(ledger, held.key, what)
        return answer

    setattr(store, what, ending)


def _watch_abandon(ledger: Ledger, store: Any) -> None:
    method: Callable[..., bool] = store.abandon

    def abandon(self: Any, key: str, owner: str) -> bool:
        ledger.write("ending", key, owner, what="abandon", began=time.monotonic())
        return method(self, key, owner)

    store.abandon = abandon


def _watch_renewals(ledger: Ledger, store: Any) -> None:
    method: Callable[..., set[str]] = store.renew

    def renew(self: Any, held: Any) -> set[str]:
        began = time.monotonic()
        kept = method(self, held)
        for one in held:
            if one.claim.owner in kept:
                lease = one.claim.lease_us / SECOND
                ledger.write("renewed", one.key, one.claim.owner, began=began, lease=lease)
        return kept

    store.renew = renew


def _watch_stalls(ledger: Ledger) -> None:
    """A thread that notices when this process does not run, since its machine is too busy."""

    def watch() -> None:
        pause = threading.Event()
        while True:
            before = time.monotonic()
            pause.wait(TICK_SECONDS)
            late = time.monotonic() - before - TICK_SECONDS
            if late > STALL_SECONDS:
                with contextlib.suppress(Exception):  # the ledger is gone: so are we, soon
                    ledger.write("stall", "", seconds=late, began=before)

    threading.Thread(target=watch, name="stalls", daemon=True).start()
