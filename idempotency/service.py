"""The service: idempotent work inside a task, or anywhere else.

    with service.once("invoice:42") as work:
        if not work.duplicate:
            work.result = send_invoice(42)

What was finished is answered with the stored result; what another holds raises AlreadyRunning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from . import metrics
from .engine import TASK, Engine, engine_for, microseconds, new_owner
from .errors import (
    AlreadyRunning,
    ArgumentMismatch,
    AuthorityMismatch,
    ConfigurationError,
    LeaseLost,
    LockTimeout,
    PoisonedKey,
    StoreUnavailable,
)
from .heartbeat import Lease
from .keys import CallKey, digest, readable
from .postgres_link import Connection
from .record import Answer, Claim, Completion, Outcome, Record
from .results import decode_result
from .settings import MAX_TTL, Settings, duration, load, seconds
from .store import Held, Result, Store
from .transaction_store import AUTHORITY as TRANSACTION
from .transaction_store import TransactionStore, joined

LOCK: Final = "lock"
LONGEST_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The result of finished work. `value` may be None."""

    value: Any


class Work:
    """One piece of work in `once`: look at `duplicate` first, set `result` when it is done."""

    def __init__(self, key: str, lease: Lease | None, result: Any = None) -> None:
        self.key = key
        self.lease = lease
        self.result = result

    @property
    def duplicate(self) -> bool:
        """Whether the work is finished already; `result` is then the stored one."""
        return self.lease is None

    @property
    def fence(self) -> int:
        """Grows with every holder of the key. Only work that is not a duplicate has one."""
        return self._held().fence

    def check(self) -> None:
        """Raise LeaseLost once the key is no longer ours."""
        self._held().check()

    def _held(self) -> Lease:
        if self.lease is None:
            raise AlreadyRunning(self.key)
        return self.lease


class Transaction:
    """One piece of work in `transaction`: its effects go through `connection`."""

    def __init__(self, key: str, connection: Connection | None, fence: int, result: Any) -> None:
        self.key = key
        self.fence = fence
        self.result = result
        self._connection = connection

    @property
    def duplicate(self) -> bool:
        """Whether the work is finished already; `result` is then the stored one."""
        return self._connection is None

    @property
    def connection(self) -> Connection:
        """The connection whose transaction holds the record. A duplicate has none."""
        if self._connection is None:
            raise RuntimeError(f"{self.key} is finished already: look at `duplicate` first")
        return self._connection


class IdempotencyService:
    """Keys, results, transactions and locks, in the stores of `settings` (default: environment)."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = load() if settings is None else settings

    @classmethod
    def from_app(cls, app: Any) -> IdempotencyService:
        """The service with the settings of a Celery app."""
        from .app_settings import settings_of

        return cls(settings_of(app))

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        return engine_for(self.settings)

    @property
    def store(self) -> Store:
        """The store that decides."""
        return self.engine.stores.get(self.settings.authority)

    def check_duplicate(self, key: str) -> StoredResult | None:
        """The stored result, if the work of `key` is finished; None while it is not."""
        key = readable(key)
        store = self.store
        record = self.engine.timed(store, "check", lambda: store.finished(key))
        return None if record is None else StoredResult(_value(record, key))

    def store_result(self, key: str, result: Any, ttl: timedelta | float | None = None) -> bool:
        """Store a result without a claim. False if the key is held or finished already."""
        claim = self._claim(key)
        held = Held(claim=claim, fence=0, created_us=0)
        store, encoded = self.store, self._encode(result, self._ttl(ttl))
        return self.engine.timed(store, "complete", lambda: store.put_done(held, encoded))

    def once(
        self, key: str, ttl: timedelta | float | None = None, *, fingerprint: str = ""
    ) -> AbstractContextManager[Work]:
        """Do the work of `key` once. An exception gives the key back.

        `fingerprint` stands for the arguments: the same key with another one is refused. Raises
        AlreadyRunning, ArgumentMismatch, PoisonedKey or StoreUnavailable; at its end LeaseLost when
        a successor has the key and is not finished yet. If it is, `result` is the successor's.
        """
        told = fingerprint.encode("utf-8", "surrogatepass")
        claim = self._claim(key)._replace(fingerprint=digest(told) if told else "")
        return self._once(claim, self._ttl(ttl))

    def once_for(
        self, call: CallKey, scope: str, ttl: timedelta | float | None = None
    ) -> AbstractContextManager[Work]:
        """The same for a call whose key was computed."""
        claim = self._claim(call.key)._replace(
            fingerprint=call.fingerprint,
            scope=scope,
            user_id=call.user_id,
            device_id=call.device_id,
        )
        return self._once(claim, self._ttl(ttl))

    @contextmanager
    def _once(self, claim: Claim, ttl: timedelta) -> Iterator[Work]:
        store, engine = self.store, self.engine
        began = time.monotonic()
        answer = self._counted(claim, lambda: engine.claim(store, claim))
        if answer.outcome is Outcome.DUPLICATE:
            yield Work(claim.key, None, _replayed(answer, claim.key))
            return
        _require_granted(answer, claim.key)
        lease = engine.hold(store, claim, answer, task=TASK.get(), claimed_at=began)
        work = Work(claim.key, lease)
        try:
            yield work
            encoded = self._encode(work.result, ttl)
        except BaseException:
            engine.release(lease)
            metrics.releases(TASK.get(), "failure").inc()
            raise
        self._complete(work, lease, encoded)

    def _complete(self, work: Work, lease: Lease, encoded: Result) -> None:
        completion = self.engine.complete(lease, encoded)
        if completion is Completion.STORED:
            metrics.completions(TASK.get(), "stored").inc()
        elif completion is not Completion.DEFERRED:
            metrics.completions(TASK.get(), "stale").inc()
            lease.lose()
            if completion is Completion.STALE:
                work.result = self._result_of_successor(lease)

    def _result_of_successor(self, lease: Lease) -> Any:
        """A late holder is a duplicate that met its successor. Raises LeaseLost while that runs."""
        store, key = self.store, lease.key
        record = self.engine.timed(store, "check", lambda: store.finished(key))
        if record is None:
            raise LeaseLost(key)
        return _value(record, key)

    @contextmanager
    def transaction(
        self,
        key: str,
        ttl: timedelta | float | None = None,
        *,
        connection: Connection | None = None,
        lock_timeout: timedelta | float = 5.0,
    ) -> Iterator[Transaction]:
        """Commit the record of `key` and the effects made through `tx.connection` together.

        `connection` joins a psycopg transaction of the caller's: its COMMIT then decides, unless it
        is in autocommit mode. An exception rolls back. Raises AlreadyRunning when another
        transaction on the key does not end within `lock_timeout`.
        """
        claim, kept = self._claim(key, TRANSACTION), self._ttl(ttl)
        store = self._transactions()
        wait = seconds("lock_timeout", lock_timeout)
        if connection is not None:
            with joined(connection, wait):
                yield from self._transact(store, connection, claim, kept)
            return
        done = self.engine.timed(store, "check", lambda: store.finished(claim))  # type: ignore[arg-type]
        if done is not None:
            self.engine.count(claim, done.outcome, TASK.get())
            yield Transaction(claim.key, None, 0, _replayed(done, claim.key))
            return
        with store.begin(wait) as own:
            yield from self._transact(store, own, claim, kept)

    def _transact(
        self,
        store: TransactionStore,
        connection: Connection,
        claim: Claim,
        ttl: timedelta,
    ) -> Iterator[Transaction]:
        answer = self._counted(claim, lambda: store.claim(connection, claim))
        if answer.outcome is Outcome.DUPLICATE:
            yield Transaction(claim.key, None, 0, _replayed(answer, claim.key))
            return
        _require_granted(answer, claim.key)
        tx = Transaction(claim.key, connection, answer.fence, None)
        yield tx
        store.complete(connection, claim, answer.fence, self._encode(tx.result, ttl))

    def _transactions(self) -> TransactionStore:
        link, lender = self.engine.stores.database(), self.engine.stores.lender()
        if link is None or lender is None:
            raise ConfigurationError(
                "idempotency_database_url", "is not set, and transaction() needs PostgreSQL"
            )
        return TransactionStore(link, lender, self.settings.namespace, self.settings.region)

    @contextmanager
    def lock(
        self,
        name: str,
        timeout: timedelta | float = 10.0,
        lease: timedelta | float | None = None,
    ) -> Iterator[Lease]:
        """Hold the lock `name`: owner-checked, fenced, renewed. Waits up to `timeout`.

        Raises LockTimeout. A target that keeps `fence` can refuse the writes of an older holder.
        """
        length = self.settings.lease if lease is None else seconds("lease", lease)
        began = time.monotonic()
        patience = seconds("timeout", timeout)
        try:
            held = self._acquire(f"lock:{name}", began, patience, length)
        except StoreUnavailable:
            metrics.lock_wait("unavailable").observe(time.monotonic() - began)
            raise
        metrics.lock_wait("acquired").observe(time.monotonic() - began)
        try:
            yield held
        finally:
            self.engine.release(held)

    def _acquire(self, key: str, began: float, timeout: timedelta, length: timedelta) -> Lease:
        deadline = began + timeout.total_seconds()
        claim = self._claim(key, endpoint=LOCK, lease=length)
        store, engine = self.store, self.engine
        while True:
            now = time.monotonic()
            answer = engine.claim(store, claim, "lock")
            if answer.granted:
                return engine.hold(store, claim, answer, task=TASK.get(), claimed_at=now)
            left = deadline - time.monotonic()
            if left <= 0:
                metrics.lock_wait("timeout").observe(time.monotonic() - began)
                raise LockTimeout(claim.key)
            wait = min(left, answer.left_us / 1_000_000 + 0.001, LONGEST_WAIT_SECONDS)
            store.wait_released(claim.key, max(0.001, wait))

    def show(self, key: str) -> Record | None:
        """The record of `key` in the store that decides."""
        found = self.store.find(readable(key))
        return None if found is None else found.record

    def forget(self, key: str) -> Record | None:
        """Forget a key, so that its work may be done again; returns what was there."""
        return self.store.forget(readable(key))

    def _claim(
        self,
        key: str,
        authority: str | None = None,
        *,
        endpoint: str | None = None,
        lease: timedelta | None = None,
    ) -> Claim:
        return Claim(
            key=readable(key),
            owner=new_owner(),
            authority=authority or self.settings.authority,
            endpoint=endpoint or TASK.get(),
            lease_us=microseconds(lease or self.settings.lease),
            max_crashes=self.settings.max_crashes if endpoint != LOCK else 1_000_000,
        )

    def _counted(self, claim: Claim, ask: Any) -> Answer:
        task = TASK.get()
        try:
            answer: Answer = ask()
        except StoreUnavailable:
            self.engine.count(claim, Outcome.UNAVAILABLE, task)
            raise
        except AlreadyRunning:
            self.engine.count(claim, Outcome.RUNNING, task)
            raise
        except AuthorityMismatch:
            self.engine.count(claim, Outcome.MISMATCH, task)
            raise
        self.engine.count(claim, answer.outcome, task)
        return answer

    def _ttl(self, ttl: timedelta | float | None) -> timedelta:
        if ttl is None:
            return self.settings.ttl
        given = seconds("ttl", ttl)
        duration("ttl", given, timedelta(milliseconds=1), MAX_TTL)
        return given

    def _encode(self, value: Any, ttl: timedelta) -> Result:
        return self.engine.encode(value, "json", ttl, TASK.get())


def _require_granted(answer: Answer, key: str) -> None:
    if answer.outcome is Outcome.RUNNING:
        raise AlreadyRunning(key)
    if answer.outcome is Outcome.POISONED:
        raise PoisonedKey(key)
    if answer.outcome is Outcome.MISMATCH:
        raise ArgumentMismatch(key)


def _replayed(answer: Answer, key: str) -> Any:
    _require_granted(answer, key)
    return _value(answer.record, key) if answer.record is not None else None


def _value(record: Record, key: str) -> Any:
    if record.result is None:
        return None
    return decode_result(record.result, record.result_type, key)


def ready(app: Any) -> list[str]:
    """What keeps a worker of `app` from deciding about its tasks now; empty when nothing does."""
    service = IdempotencyService.from_app(app)
    problems: list[str] = []
    for authority in authorities(app):
        try:
            service.engine.stores.get(authority).ping()
        except (StoreUnavailable, ConfigurationError) as error:
            problems.append(str(error))
    return problems


def authorities(app: Any) -> list[str]:
    """The authorities that the tasks of `app` use."""
    options = (getattr(task, "idempotency_options", None) for task in app.tasks.values())
    return sorted({one.authority for one in options if one is not None and one.enabled})
