"""Rules of the protocol, and how the harness takes one out of a worker.

Nothing of this is in the product: a worker of the fault machine that was told to (FAULTS_DISABLE)
replaces the statement, the script or the method that keeps the rule. Invariant: a replacement that
finds nothing to replace raises, so that a rule that has moved is noticed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery.exceptions import Ignore
from idemwatch.idempotency import (
    execution,
    postgres_sql,
    record,
    redis_store,
)
from idemwatch.idempotency.cached_store import CachedStore, DoneCache
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.heartbeat import Heartbeat, Lease
from idemwatch.idempotency.keys import KeyRule
from idemwatch.idempotency.memory_store import wall_clock_us
from idemwatch.idempotency.record import Answer, Outcome, Record, Verdict, running
from idemwatch.idempotency.redis_scripts import Script
from idemwatch.idempotency.store import SwapStore, done
from idemwatch.idempotency.transaction_store import TransactionStore

RACE_SECONDS: Final = 0.2


class RuleMoved(Exception):
    """The product keeps a rule in other words than the harness knows: mend faults.rules."""


def _put(where: Any, name: str, value: Any) -> None:
    if not hasattr(where, name):
        raise RuleMoved(f"{where.__name__} has no {name}")
    setattr(where, name, value)


def _without(text: str, part: str, put: str = " ") -> str:
    if part not in text:
        raise RuleMoved(f"{part!r} does not stand in {text!r}")
    return text.replace(part, put)


def owner_check() -> None:
    """complete, park and release write whoever holds the key."""
    statements: Any = postgres_sql
    owner = "AND owner = %(owner)s AND fence = %(fence)s"
    statements.COMPLETE = _without(postgres_sql.COMPLETE, owner)
    statements.PARK = _without(postgres_sql.PARK, owner)
    loose = "AND owner = %(owner)s AND fence = coalesce(%(fence)s::bigint, fence)"
    statements.RELEASE = _without(postgres_sql.RELEASE, loose)
    scripts: Any = redis_store
    refuse = "if not ours and head ~= '' then return redis.call('GET', KEYS[1]) end"
    scripts.WRITE = Script(_without(scripts.WRITE.source, refuse))
    refuse = "if owner ~= ARGV[1] or (ARGV[2] ~= '' and fence ~= ARGV[2]) then return 0 end"
    scripts.RELEASE = Script(_without(scripts.RELEASE.source, refuse))


def fence() -> None:
    """A successor has the fence of the holder before it."""
    grant = record._grant

    def same_fence(known: Record, claim: Any, *args: Any, **kwargs: Any) -> Verdict:
        verdict = grant(known, claim, *args, **kwargs)
        assert verdict.write is not None
        held = verdict.write._replace(fence=known.fence)
        return Verdict(verdict.answer._replace(fence=known.fence, record=held), held)

    _put(record, "_grant", same_fence)


def heartbeat() -> None:
    """Leases are not renewed."""
    _put(Heartbeat, "_due", lambda _: [])


def lease() -> None:
    """A key is taken over while its lease lives."""
    judge = record._judge_running

    def at_once(known: Record, claim: Any, now_us: int) -> Verdict:
        return judge(
            known if known.owner == claim.owner else known._replace(due_us=0), claim, now_us
        )

    _put(record, "_judge_running", at_once)


def atomic_claim() -> None:
    """A key that was absent when it was looked at is written, whatever stands there by then."""
    claim_of = SwapStore.claim

    def looked_at_before(self: Any, claim: Any) -> Answer:
        if self.find(claim.key) is not None:
            return claim_of(self, claim)
        threading.Event().wait(RACE_SECONDS)
        met = self._insert(claim)
        if met is None or isinstance(met, int):
            return Answer(Outcome.GRANTED, met) if met else claim_of(self, claim)
        fence = max(met.record.fence + 1, met.now_us)
        held = running(claim, fence=fence, now_us=met.now_us, created_us=met.now_us)
        self._swap(claim.key, met, held)
        return Answer(Outcome.GRANTED, fence, held)

    _put(SwapStore, "claim", looked_at_before)


def check() -> None:
    """An effect begins whether the lease lives or not."""
    _put(Lease, "check", lambda _: None)


def result_kept() -> None:
    """A result is gone as soon as it is there."""
    encode = Engine.encode

    def gone(self: Engine, *args: Any, **kwargs: Any) -> Any:
        return encode(self, *args, **kwargs)._replace(ttl_us=1000)

    _put(Engine, "encode", gone)


def cache_after_commit() -> None:
    """The cache is told before PostgreSQL is."""
    complete = CachedStore.complete

    def told_first(self: CachedStore, held: Any, result: Any) -> Any:
        self._put(held.key, done(held, result, wall_clock_us()), result.ttl_us, time.monotonic())
        return complete(self, held, result)

    _put(CachedStore, "complete", told_first)


def cache_tombstone() -> None:
    """forget leaves no mark in the cache. (The operator is the harness: see faults.harm.)"""
    _put(DoneCache, "bury", lambda self, key, _: self.remove(key))


def same_owner() -> None:
    """An owner that claims once more is turned away by its own record."""
    judge = record._judge_running

    def a_stranger(known: Record, claim: Any, now_us: int) -> Verdict:
        if known.owner != claim.owner or known.due_us <= now_us:
            return judge(known, claim, now_us)
        return record._turn_away(known, claim, now_us)

    _put(record, "_judge_running", a_stranger)


def attempt() -> None:
    """A key that waits for a retry is open to all."""
    judge = record._judge_waiting
    _put(
        record,
        "_judge_waiting",
        lambda known, claim, now: judge(known._replace(due_us=0), claim, now),
    )


def abandon() -> None:
    """A claim whose reply never came is not released."""
    _put(Engine, "_undo", lambda *_: None)


def clock_fence() -> None:
    """The fence begins at 1 again when a record is gone."""
    clock = "(extract(epoch FROM now) * 1000000)::bigint"
    _put(postgres_sql, "CLAIM", _without(postgres_sql.CLAIM, clock, put="1"))
    scripts: Any = redis_store
    script = _without(scripts.CLAIM.source, "' .. is .. ' running", put="1 running")
    _put(redis_store, "CLAIM", Script(_without(script, "return now\n", put="return 1\n")))


def turned_away_waits() -> None:
    """A message that meets a holder is acknowledged without its being published again."""
    _put(execution, "publish_again", lambda *_: Ignore("dropped"))


def fingerprint() -> None:
    """The same key with other arguments is taken for a duplicate."""
    _put(KeyRule, "fingerprint", lambda *_: "")


def failure_is_no_result() -> None:
    """A failure is stored as if it were a result."""
    release = execution.Execution.release

    def completed(self: Any, reason: str) -> None:
        if reason == "failure" and self.lease is not None:
            lease, self.lease = self.lease, None
            self._complete(lease, None, self._encoded(None))
        else:
            release(self, reason)

    _put(execution.Execution, "release", completed)


def late_holder() -> None:
    """A holder whose completion is refused returns its own result all the same."""
    _put(execution.Execution, "_meet_successor", lambda _, result, *__: result)


def one_transaction() -> None:
    """The effect commits before its record does."""

    @contextmanager
    def apart(self: Any, lock_timeout: Any) -> Iterator[Any]:
        with self._lender.connection() as connection:
            yield connection

    _put(TransactionStore, "begin", apart)


RULES: Final[dict[str, Callable[[], None]]] = {
    one.__name__: one
    for one in (
        owner_check, fence, heartbeat, cache_tombstone, lease, atomic_claim, check, result_kept,
        cache_after_commit, same_owner, attempt, abandon, clock_fence, turned_away_waits,
        fingerprint, failure_is_no_result, late_holder, one_transaction,
    )
}  # fmt: skip


def disable(rule: str) -> None:
    """Take a rule out of this process. Raises KeyError for one that is not known, RuleMoved."""
    RULES[rule]()
