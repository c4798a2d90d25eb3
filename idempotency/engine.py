"""Claims and their ends, timed and counted: what tasks and the service stand on.

The engine of a process owns its stores, its heartbeat and its statistics. What a store refused
because it was away is tried again in the background, as long as it can matter.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from time import perf_counter
from typing import Any, Final, TypeVar

from . import metrics
from .errors import StoreLeftOut, StoreUnavailable, UnreadableRecord
from .heartbeat import Heartbeat, Lease
from .record import Answer, Claim, Completion, Outcome
from .results import ResultNotEncodable, encode_result
from .settings import Settings
from .statistics_store import Statistics
from .store import Held, Result, Store
from .stores import Stores

log = logging.getLogger(__name__)

T = TypeVar("T")
TASK: Final[ContextVar[str]] = ContextVar("idemwatch_task", default=metrics.SERVICE)
"""The task that is running here: the label of checks made through the service."""
MAX_HOLD_SECONDS: Final = 6 * 3600.0
PUBLISH_ANSWER_SECONDS: Final = 1.0
"""What PostgreSQL may take to answer a publisher, who has a user waiting."""
LATE_SECONDS: Final = 600.0
"""How long what a store did not take is tried again in the background."""
_MICROSECOND: Final = timedelta(microseconds=1)
_HITS: Final = frozenset((Outcome.DUPLICATE, Outcome.RUNNING))


def new_owner() -> str:
    """A random owner, one for each execution."""
    return os.urandom(16).hex()


def microseconds(duration: timedelta) -> int:
    """A duration in whole microseconds."""
    return duration // _MICROSECOND


class Engine:
    """The stores, the heartbeat and the statistics of one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stores = Stores(settings)
        self.publishing = Stores(settings, answer_seconds=PUBLISH_ANSWER_SECONDS)
        self.publish_quiet_until = 0.0
        self._heartbeats: dict[Store, Heartbeat] = {}
        database = self.stores.database()
        self.statistics = Statistics(database, settings.namespace) if database else None

    def heartbeat(self, store: Store) -> Heartbeat:
        """That of a store: a thread each, so that one that hangs delays no lease in another."""
        found = self._heartbeats.get(store)
        return found or self._heartbeats.setdefault(store, Heartbeat(store))

    def timed(self, store: Store, operation: str, work: Callable[[], T]) -> T:
        """Run one operation of a store, timed, its failure counted."""
        began = perf_counter()
        try:
            answer = work()
        except StoreUnavailable as error:
            if not isinstance(error, StoreLeftOut):
                metrics.store_errors(store.name, operation).inc()
            raise
        metrics.store_seconds(store.name, operation).observe(perf_counter() - began)
        return answer

    def claim(self, store: Store, claim: Claim, operation: str = "claim") -> Answer:
        """Claim a key. Raises StoreUnavailable, and then a claim that got through is undone."""
        try:
            return self.timed(store, operation, lambda: store.claim(claim))
        except BaseException as error:
            if not isinstance(error, StoreLeftOut | UnreadableRecord):
                self._undo(store, claim)
            raise

    def _undo(self, store: Store, claim: Claim) -> None:
        """The reply was lost: an unknown claim must not count as a crash of ours."""
        self.later(store, lambda: store.abandon(claim.key, claim.owner))

    def later(self, store: Store, errand: Callable[[], object]) -> None:
        """Do it in the background as soon as the store answers."""
        self.heartbeat(store).later(errand, LATE_SECONDS)

    def hold(
        self,
        store: Store,
        claim: Claim,
        answer: Answer,
        *,
        task: str,
        claimed_at: float,
        max_hold_seconds: float = MAX_HOLD_SECONDS,
    ) -> Lease:
        """The lease of a granted claim, renewed from now on.

        `claimed_at` is the monotonic time before the claim was sent: the lease began no earlier.
        """
        record = answer.record
        held = Held(
            claim=claim,
            fence=answer.fence,
            created_us=answer.fence if record is None else record.created_us,
        )
        lease = Lease(
            store, held, task=task, claimed_at=claimed_at, max_hold_seconds=max_hold_seconds
        )
        self.heartbeat(store).add(lease)
        return lease

    def complete(self, lease: Lease, result: Result) -> Completion:
        """Store the result, trying for as long as a lease; then go on trying in the background."""
        self.heartbeat(lease.store).remove(lease)
        give_up = time.monotonic() + lease.seconds
        try:
            return self._complete_until(give_up, lease, result)
        except StoreUnavailable as error:
            log.error("the result of %s is not stored yet: %s", lease.key, error)
            self.later(lease.store, lambda: self._complete_late(lease, result))
            return Completion.DEFERRED
        except BaseException:  # a time limit: the work is done all the same
            self.later(lease.store, lambda: self._complete_late(lease, result))
            raise

    def _complete_until(self, give_up: float, lease: Lease, result: Result) -> Completion:
        store, held = lease.store, lease.held
        pause = 0.05
        while True:
            try:
                return self.timed(store, "complete", lambda: store.complete(held, result))
            except StoreUnavailable:
                if time.monotonic() + pause > give_up:
                    raise
                threading.Event().wait(pause)
                pause = min(pause * 2, 1.0)

    def _complete_late(self, lease: Lease, result: Result) -> None:
        if lease.store.complete(lease.held, result) is Completion.STORED:
            metrics.completions(lease.task, "stored").inc()
        else:  # a successor has done the work again, or an operator let it be done
            metrics.completions(lease.task, "stale").inc()
            lease.lose()

    def park(self, lease: Lease, *, fingerprint: str, open_after: timedelta) -> None:
        """Keep the key for the next attempt; a stale claim is counted."""
        self.heartbeat(lease.store).remove(lease)
        store, held = lease.store, lease.held
        open_after_us = microseconds(open_after)

        def work() -> bool:
            return store.park(held, fingerprint=fingerprint, open_after_us=open_after_us)

        try:
            if not self.timed(store, "park", work):
                lease.lose()
        except StoreUnavailable:
            self._release_later(lease)

    def give_up(self, lease: Lease) -> None:
        """Leave the key to whoever has it, or takes it over."""
        self.heartbeat(lease.store).remove(lease)
        lease.lose()

    def release(self, lease: Lease) -> None:
        """Give the key back without a result; a stale claim is counted."""
        self.heartbeat(lease.store).remove(lease)
        store, held = lease.store, lease.held
        try:
            if not self.timed(store, "release", lambda: store.release(held)):
                lease.lose()
        except StoreUnavailable:
            self._release_later(lease)

    def _release_later(self, lease: Lease) -> None:
        def release() -> None:
            if not lease.store.release(lease.held):
                lease.lose()

        self.later(lease.store, release)

    def count(self, claim: Claim, outcome: Outcome, task: str) -> None:
        """Count a check, exactly in the metrics and soon in PostgreSQL."""
        metrics.claims(task, claim.scope, outcome.value).inc()
        statistics = self.statistics
        if statistics is not None:
            if outcome in _HITS:
                statistics.hit(claim.key, claim.endpoint, claim.scope)
            elif outcome is Outcome.GRANTED or outcome is Outcome.TAKEN_OVER:
                statistics.checked(claim.endpoint, claim.scope, new=outcome is Outcome.GRANTED)

    def encode(self, value: Any, serializer: str, ttl: timedelta, task: str) -> Result:
        """The result as it will be stored; one that cannot be kept is counted and left out."""
        ttl_us = microseconds(ttl)
        try:
            data, content_type = encode_result(value, serializer)
        except ResultNotEncodable as error:
            log.warning("a result of %s is not kept, it cannot be encoded: %s", task, error)
            metrics.completions(task, "unencodable").inc()
            return Result(ttl_us=ttl_us)
        if len(data) > self.settings.max_result_bytes:
            log.warning("a result of %s is not kept, it has %d bytes", task, len(data))
            metrics.completions(task, "too_large").inc()
            return Result(ttl_us=ttl_us)
        return Result(data=data, content_type=content_type, ttl_us=ttl_us)

    def close(self) -> None:
        """Finish what waits in the background and give back all connections."""
        for heartbeat in tuple(self._heartbeats.values()):
            heartbeat.stop()
        if self.statistics is not None:
            self.statistics.stop()
        self.publishing.close()
        self.stores.close()


_engines: dict[Settings, Engine] = {}
_making = threading.Lock()


def engine_for(settings: Settings) -> Engine:
    """The engine of this process for `settings`: made at first use, never before a fork."""
    engine = _engines.get(settings)
    if engine is None:
        with _making:
            engine = _engines.get(settings) or _engines.setdefault(settings, Engine(settings))
    return engine


def close_engines() -> None:
    """Close all engines of this process: at the end of a worker process."""
    while _engines:
        _engines.popitem()[1].close()


def _after_fork() -> None:
    global _making
    _inherited.append(dict(_engines))  # kept, not closed: their sockets belong to the parent
    _engines.clear()
    _making = threading.Lock()


_inherited: list[object] = []
os.register_at_fork(after_in_child=_after_fork)
