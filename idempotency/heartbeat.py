"""Leases, and the one thread per store that renews them all.

A store that does not answer holds up its own thread, never the leases in another store.

A lease that the thread cannot renew is not given up before the store says that another holds the
key: it may still be renewed after it ran out, if nobody took it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from . import metrics
from .errors import LeaseLost, StoreUnavailable
from .record import SECOND
from .store import Held, Store

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 10.0
ERRAND_SECONDS: Final = 0.5
ERRANDS: Final = 10_000


class Lease:
    """A held key. `check()` before an effect raises LeaseLost once it is no longer ours."""

    def __init__(
        self, store: Store, held: Held, *, task: str, claimed_at: float, max_hold_seconds: float
    ) -> None:
        self.store = store
        self.held = held
        self.task = task
        self.renewed_at = claimed_at
        self.hold_until = claimed_at + max_hold_seconds
        self.lost = False
        self.finishing = False

    @property
    def key(self) -> str:
        """The key held."""
        return self.held.key

    @property
    def fence(self) -> int:
        """Grows with every holder of the key: a target that keeps it can refuse older holders."""
        return self.held.fence

    @property
    def seconds(self) -> float:
        """Length of the lease."""
        return self.held.claim.lease_us / SECOND

    def check(self) -> None:
        """Raise LeaseLost unless the key is still ours."""
        if not self.lost and time.monotonic() > self.renewed_at + self.seconds:
            self._renew_now()
        if self.lost:
            raise LeaseLost(self.key)

    def _renew_now(self) -> None:
        began = time.monotonic()
        if began > self.hold_until:
            self.lose()
            return
        try:
            kept = self.store.renew([self.held])
        except StoreUnavailable as error:
            raise LeaseLost(self.key) from error
        if self.held.claim.owner in kept:
            self.renewed_at = began
        else:
            self.lose()

    def lose(self) -> None:
        """Mark it lost, once."""
        if not self.lost:
            self.lost = True
            metrics.lease_lost(self.task).inc()
            log.error("%s lost its lease on %s", self.task, self.key)


class Heartbeat:
    """Renews the leases in one store every third of their length, and runs its errands."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._leases: dict[str, Lease] = {}
        self._errands: deque[tuple[Callable[[], object], float]] = deque(maxlen=ERRANDS)
        self._wake = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._period = IDLE_SECONDS
        self._shortest = IDLE_SECONDS
        self._stopped = False
        self._soon = False

    def add(self, lease: Lease) -> None:
        """Renew `lease` from now on."""
        self._leases[lease.held.claim.owner] = lease
        period = lease.held.claim.lease_us / (3 * SECOND)
        if period < self._shortest:  # for good: to wake the thread for each lease costs more
            self._shortest = period
        self._ensure_running(period)

    def remove(self, lease: Lease) -> None:
        """Renew it no more."""
        lease.finishing = True
        self._leases.pop(lease.held.claim.owner, None)

    def later(self, errand: Callable[[], object], within_seconds: float) -> None:
        """Try `errand` until it raises no StoreUnavailable, or the time is over."""
        self._errands.append((errand, self._clock() + within_seconds))
        self._ensure_running(ERRAND_SECONDS)

    def stop(self) -> None:
        """Run what is left to run once, and end the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._run_errands()

    def _ensure_running(self, period: float) -> None:
        if self._thread is None:
            with self._start:
                if self._thread is None and not self._stopped:
                    self._thread = threading.Thread(
                        target=self._loop, name="idemwatch-heartbeat", daemon=True
                    )
                    self._thread.start()
        if period < self._period:
            self._wake.set()

    def _loop(self) -> None:
        while not self._stopped:
            self._period = self._next_period()
            due = self._clock() + self._period
            woken = self._wake.wait(self._period)
            self._wake.clear()
            if not woken and self._leases:
                metrics.HEARTBEAT_DELAY.observe(max(0.0, self._clock() - due))
            self.beat()

    def _next_period(self) -> float:
        return (
            min(ERRAND_SECONDS, self._shortest) if self._errands or self._soon else self._shortest
        )

    def beat(self) -> None:
        """One round: renew what is due, run the errands. Never raises."""
        self._soon = False
        try:
            self._renew(self._due())
            self._run_errands()
        except Exception:
            log.exception("the heartbeat met an error and goes on")

    def _due(self) -> list[Lease]:
        now = self._clock()
        due: list[Lease] = []
        for lease in list(self._leases.values()):
            if now > lease.hold_until:
                self._leases.pop(lease.held.claim.owner, None)
                log.error("%s held %s for too long: renewed no more", lease.task, lease.key)
            elif now - lease.renewed_at >= lease.seconds / 6:
                due.append(lease)
        return due

    def _renew(self, leases: list[Lease]) -> None:
        if not leases:
            return
        name, began = self._store.name, self._clock()
        try:
            with metrics.store_seconds(name, "renew").time():
                kept = self._store.renew([lease.held for lease in leases])
        except StoreUnavailable as error:
            metrics.store_errors(name, "renew").inc()
            log.warning("%d leases could not be renewed: %s", len(leases), error)
            self._soon = True
            return
        self._settle(leases, kept, began)

    def _settle(self, leases: Iterable[Lease], kept: set[str], began: float) -> None:
        for lease in leases:
            owner = lease.held.claim.owner
            if owner in kept:
                lease.renewed_at = began
            elif not lease.finishing and self._leases.pop(owner, None) is not None:
                lease.lose()

    def _run_errands(self) -> None:
        for _ in range(len(self._errands)):
            try:
                errand, until = self._errands.popleft()
            except IndexError:  # `stop` runs them too, beside a thread that waits for its store
                return
            self._run_errand(errand, until)

    def _run_errand(self, errand: Callable[[], object], until: float) -> None:
        try:
            errand()
        except StoreUnavailable as error:
            if self._clock() < until:
                self._errands.append((errand, until))
            else:
                log.error("given up after a store did not answer in time: %s", error)
        except Exception:  # it costs no other errand, and no other store
            log.exception("given up: to try again would not help")
