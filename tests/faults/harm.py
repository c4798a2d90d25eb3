"""The faults: each is done, lasts, and is undone, in a thread of its own.

Invariant: the span of a fault that the checker is told of begins before anything is broken and ends
after it was mended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from idemwatch.idempotency import IdempotencyService, Settings, StoreUnavailable
from support.proxy import TcpProxy

from .crew import Crew
from .history import Span
from .ledger import Ledger
from .plan import AUTHORITIES, Fault, Round, When
from .servers import RedisSite, Site

PATIENCE_SECONDS: Final = 8.0
"""How long a When waits for what it names."""
LOSS_TAIL_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.03
log = logging.getLogger(__name__)


class Clock:
    """The time of a round, for those that wait for a moment of it."""

    def __init__(self, ledger: Ledger, stop: threading.Event) -> None:
        self._ledger, self._stop = ledger, stop
        self.began = time.monotonic()

    def wait(self, when: When) -> bool:
        """Wait for a moment; False if what it names has not happened, or the run is stopped."""
        self.sleep(self.began + when.at - time.monotonic())
        give_up = time.monotonic() + PATIENCE_SECONDS
        while when.what and not self._ledger.happened(when.what, when.key):
            if time.monotonic() > give_up or self.sleep(LOOK_SECONDS):
                return False
        return not self.sleep(when.then)

    def sleep(self, seconds: float) -> bool:
        """Wait so long; True if the run is stopped."""
        return self._stop.wait(max(0.0, seconds))


@dataclass
class Harm:
    """All faults of a round, and the spans that they took."""

    plan: Round
    site: Site
    crew: Crew
    ledger: Ledger
    clock: Clock
    faults: list[Span] = field(default_factory=list)
    forgets: list[Span] = field(default_factory=list)
    losses: list[Span] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _services: dict[str, IdempotencyService] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._one_at_a_time = {"postgres": threading.Lock(), "redis": threading.Lock()}
        self._threads = [
            threading.Thread(target=self._do, args=(fault,), name=fault.kind, daemon=True)
            for fault in self.plan.faults
        ]

    def begin(self) -> None:
        """Start them: each waits for its moment."""
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Wait until all are over and mended."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Give back the operator's connections."""
        for service in self._services.values():
            service.engine.close()

    def _do(self, fault: Fault) -> None:
        if not self.clock.wait(fault.when):
            return
        kinds: dict[str, Callable[[Fault], None]] = {
            "freeze_holder": self._freeze_holder,
            "kill_holder": self._kill_holder,
            "freeze_worker": self._freeze_worker,
            "kill_worker": self._kill_worker,
            "kill_postgres": self._kill_postgres,
            "freeze_postgres": self._freeze_postgres,
            "kill_redis": self._kill_redis,
            "freeze_redis": self._freeze_redis,
            "fail_over_redis": self._fail_over_redis,
            "empty_redis": self._empty_redis,
            "cut": self._cut,
            "forget": self._forget,
        }
        try:
            kinds[fault.kind](fault)
        except Exception as error:
            self.errors.append(f"{fault}: {type(error).__name__}: {error}")
            log.exception("a fault could not be done: %s", fault)

    def _lasts(self, fault: Fault, about: str, do: Callable[[], object],
               undo: Callable[[], object]) -> tuple[float, float]:  # fmt: skip
        began = time.monotonic()
        try:
            do()
            self.clock.sleep(fault.seconds)
        finally:
            undo()
            ended = time.monotonic()
            self.faults.append(Span(began, ended, fault.kind, about))
        return began, ended

    # -- workers -----------------------------------------------------------------------------

    def _freeze_holder(self, fault: Fault) -> None:
        pid = self.ledger.working(fault.key)
        if pid is not None:
            stop, go_on = self.crew.stop_process, self.crew.go_on
            self._lasts(fault, str(pid), lambda: stop(pid), lambda: go_on(pid))

    def _kill_holder(self, fault: Fault) -> None:
        pid = self.ledger.working(fault.key)
        if pid is not None:
            self._lasts(fault, str(pid), lambda: self.crew.kill_process(pid), _nothing)

    def _freeze_worker(self, fault: Fault) -> None:
        post = self.crew.posts[fault.worker]
        pids = post.pids()
        for_all = self._for_all
        freeze, thaw = for_all(pids, self.crew.stop_process), for_all(pids, self.crew.go_on)
        self._lasts(fault, post.name, freeze, thaw)

    def _for_all(self, pids: list[int], work: Callable[[int], None]) -> Callable[[], None]:
        def each() -> None:
            for pid in pids:
                work(pid)

        return each

    def _kill_worker(self, fault: Fault) -> None:
        post = self.crew.posts[fault.worker]
        self._lasts(fault, post.name, lambda: self.crew.kill(post), lambda: self.crew.begin(post))

    # -- stores ------------------------------------------------------------------------------

    def _kill_postgres(self, fault: Fault) -> None:
        self._harm_postgres(fault, self.site.postgres.kill, self.site.postgres.restart)

    def _freeze_postgres(self, fault: Fault) -> None:
        self._harm_postgres(fault, self.site.postgres.freeze, self.site.postgres.thaw)

    def _harm_postgres(
        self, fault: Fault, do: Callable[[], object], undo: Callable[[], object]
    ) -> None:
        with self._one_at_a_time["postgres"]:
            self._lasts(fault, "postgres", do, undo)

    def _kill_redis(self, fault: Fault) -> None:
        self._harm_redis(fault, self._redis.kill)

    def _freeze_redis(self, fault: Fault) -> None:
        self._harm_redis(fault, self._redis.freeze)

    def _fail_over_redis(self, fault: Fault) -> None:
        self._harm_redis(fault, self._redis.fail_over)

    @property
    def _redis(self) -> RedisSite:
        return self.site.redis(self.plan.topology)

    def _harm_redis(self, fault: Fault, do: Callable[[], bool]) -> None:
        lost = True

        def harm() -> None:
            nonlocal lost
            lost = do()

        with self._one_at_a_time["redis"]:
            began, ended = self._lasts(fault, "redis", harm, self._redis.heal)
        if lost:
            self.losses.append(Span(began, ended + LOSS_TAIL_SECONDS, fault.kind))

    def _empty_redis(self, fault: Fault) -> None:
        with self._one_at_a_time["redis"]:
            began, ended = self._lasts(fault, "redis", self._redis.empty, _nothing)
        self.losses.append(Span(began, ended, fault.kind))

    # -- connections and records ---------------------------------------------------------------

    def _cut(self, fault: Fault) -> None:
        post = self.crew.posts[fault.worker]
        proxy = post.proxies[fault.store]
        do, undo = _CUTS[fault.mode]
        about = f"{post.name} {fault.store} {fault.mode}"
        self._lasts(fault, about, lambda: do(proxy), lambda: undo(proxy))

    def _forget(self, fault: Fault) -> None:
        authority = self._authority_of(fault.key)
        began, kind = time.monotonic(), "forget"
        try:
            self._service(authority).forget(fault.key)
        except StoreUnavailable as error:
            kind = "failed"
            log.info("%s was not forgotten: %s", fault.key, error)
        self.forgets.append(Span(began, time.monotonic(), kind, fault.key))
        if kind == "forget":
            self.ledger.write("forgotten", fault.key)

    def _authority_of(self, key: str) -> str:
        return next(one.authority for one in self.plan.messages if one.key == key)

    def _service(self, authority: str) -> IdempotencyService:
        if authority not in self._services:
            assert authority in AUTHORITIES
            settings = Settings(
                redis_url=self._redis.url,
                database_url=self.site.postgres.url,
                namespace=self.plan.namespace,
                authority=authority,
            )
            self._services[authority] = IdempotencyService(settings)
        return self._services[authority]


def _nothing() -> None:
    """What cannot be undone."""


def _reset_and_heal(proxy: TcpProxy) -> None:
    with suppress(OSError):
        proxy.reset()
    proxy.heal()


def _heal(proxy: TcpProxy) -> None:
    proxy.heal()


_CUTS: Final[dict[str, tuple[Callable[[TcpProxy], Any], Callable[[TcpProxy], Any]]]] = {
    "refuse": (TcpProxy.refuse, _heal),
    "blackhole": (TcpProxy.blackhole, _reset_and_heal),
    "hold_requests": (TcpProxy.hold_requests, _heal),
    "hold_replies": (TcpProxy.hold_replies, _heal),
    "drop_requests": (TcpProxy.drop_requests, _reset_and_heal),
    "drop_replies": (TcpProxy.drop_replies, _reset_and_heal),
    "lose_replies": (TcpProxy.drop_replies, _reset_and_heal),
    "reset": (TcpProxy.reset, _heal),
    "delay": (lambda proxy: proxy.delay(0.2), _heal),
}
