"""The lock of the service on every store: owner-checked, fenced, renewed, and not polled for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency import (
    ConfigurationError,
    IdempotencyService,
    LeaseLost,
    LockTimeout,
    Settings,
    StoreUnavailable,
)
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.heartbeat import Lease
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.postgres_link import POOL_SIZE
from idemwatch.idempotency.record import Claim
from support.services import KINDS, counted, end_lease, hold, record, service_of
from support.stores import DEADLINE_SECONDS, wait_until

NAME = "stock"
KEY = f"lock:{NAME}"


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """One database for all of these tests, which keep apart by their namespaces."""
    yield postgres_server.create_database("locks", template=migrated_template)
    postgres_server.drop_database("locks")


@pytest.fixture(params=KINDS)
def service(
    request: pytest.FixtureRequest, idempotency_memory: MemoryStore
) -> Iterator[IdempotencyService]:
    names = {"redis": "redis_url", "database": "database"}
    yield service_of(request.param, lambda name: str(request.getfixturevalue(names[name])))
    close_engines()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(POOL_SIZE + 8) as pool:
        yield pool


class Claims:
    """Counts what a store is asked, and tells when somebody waits."""

    def __init__(self, service: IdempotencyService, monkeypatch: pytest.MonkeyPatch) -> None:
        store = service.store
        self.asked = 0
        self.patience: list[float] = []
        self.waiting = threading.Semaphore(0)
        claim, wait_released = store.claim, store.wait_released

        def counted_claim(given: Claim) -> Any:
            self.asked += 1
            return claim(given)

        def counted_wait(key: str, timeout_seconds: float) -> None:
            self.patience.append(timeout_seconds)
            self.waiting.release()
            wait_released(key, timeout_seconds)

        monkeypatch.setattr(store, "claim", counted_claim)
        monkeypatch.setattr(store, "wait_released", counted_wait)

    def wait_for(self, waiters: int) -> None:
        """Return when so many wait."""
        for _ in range(waiters):
            assert self.waiting.acquire(timeout=DEADLINE_SECONDS)


@pytest.fixture
def claims(service: IdempotencyService, monkeypatch: pytest.MonkeyPatch) -> Claims:
    return Claims(service, monkeypatch)


def acquire(service: IdempotencyService, **options: Any) -> tuple[float, int]:
    """When the lock was ours, and its fence."""
    with service.lock(NAME, **options) as held:
        return time.monotonic(), held.fence


def test_many_take_turns_and_each_fence_is_higher(
    service: IdempotencyService, pool: ThreadPoolExecutor
) -> None:
    inside: list[int] = []
    fences: list[int] = []

    def turn(_: int) -> None:
        with service.lock(NAME, timeout=DEADLINE_SECONDS) as held:
            inside.append(1)
            assert len(inside) == 1
            held.check()
            fences.append(held.fence)
            inside.pop()

    list(pool.map(turn, range(6)))
    assert fences == sorted(set(fences)) and len(fences) == 6
    assert service.show(KEY) is None


def test_a_waiter_is_woken_by_the_release_and_does_not_poll(
    service: IdempotencyService, pool: ThreadPoolExecutor, claims: Claims
) -> None:
    with service.lock(NAME):
        asked = claims.asked
        waiter = pool.submit(acquire, service, timeout=DEADLINE_SECONDS)
        claims.wait_for(1)
        assert claims.asked == asked + 1 and not waiter.done()
    released = time.monotonic()
    entered, _ = waiter.result(DEADLINE_SECONDS)
    assert entered - released < 1.5  # long before the lease or the longest wait ends
    assert claims.asked <= asked + 4
    assert claims.patience[0] > 1


def test_more_waiters_than_connections_all_get_their_turn(
    service: IdempotencyService, pool: ThreadPoolExecutor, claims: Claims
) -> None:
    many = POOL_SIZE + 4
    waiters: list[Future[tuple[float, int]]] = []
    with service.lock(NAME) as held:
        waiters += [pool.submit(acquire, service, timeout=DEADLINE_SECONDS) for _ in range(many)]
        claims.wait_for(POOL_SIZE)
        held.check()
        began = time.monotonic()
        service.check_duplicate("other work")
        assert time.monotonic() - began < 2
    fences = [waiter.result(DEADLINE_SECONDS)[1] for waiter in waiters]
    assert len(set(fences)) == many


def test_a_lock_that_stays_held_is_given_up_in_time(service: IdempotencyService) -> None:
    before = counted("lock_wait_seconds_count", result="timeout")
    with service.lock(NAME):
        began = time.monotonic()
        with pytest.raises(LockTimeout, match=KEY), service.lock(NAME, timeout=0.2):
            pytest.fail("a held lock was given away")
        assert 0.2 <= time.monotonic() - began < 2
    assert counted("lock_wait_seconds_count", result="timeout") == before + 1


@pytest.mark.parametrize("timeout", [0, timedelta(0)])
def test_without_time_a_lock_is_tried_once(
    service: IdempotencyService, claims: Claims, timeout: Any
) -> None:
    before = counted("lock_wait_seconds_count", result="acquired")
    with service.lock(NAME, timeout):
        asked = claims.asked
        with pytest.raises(LockTimeout), service.lock(NAME, timeout):
            pytest.fail("a held lock was given away")
        assert claims.asked == asked + 1
    assert counted("lock_wait_seconds_count", result="acquired") == before + 1


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_gives_the_lock_back(service: IdempotencyService, error: BaseException) -> None:
    with pytest.raises(type(error)), service.lock(NAME):
        raise error
    with service.lock(NAME, timeout=0):
        pass


def test_locks_have_names_of_their_own(service: IdempotencyService) -> None:
    with ExitStack() as stack:
        for name in (NAME, "other", "two words", "x" * 300):
            stack.enter_context(service.lock(name, timeout=0))
        with service.once(NAME) as work:
            assert not work.duplicate


def test_a_lock_outlives_its_lease_while_it_is_held(service: IdempotencyService) -> None:
    with service.lock(NAME, lease=1) as held:
        first = record(service, KEY).due_us
        wait_until(lambda: record(service, KEY).due_us > first + 1_000_000)
        held.check()
        with pytest.raises(LockTimeout), service.lock(NAME, timeout=0):
            pytest.fail("a renewed lock was given away")


def test_a_dead_holder_is_succeeded_when_its_lease_ends(service: IdempotencyService) -> None:
    dead = hold(service, KEY, endpoint="lock", lease_us=400_000)
    began = time.monotonic()
    _, fence = acquire(service, timeout=DEADLINE_SECONDS)
    assert fence > dead.fence and time.monotonic() - began < 3


def test_a_lock_whose_holders_die_is_never_poisoned(service: IdempotencyService) -> None:
    for _ in range(service.settings.max_crashes + 3):
        hold(service, KEY, endpoint="lock", lease_us=1, max_crashes=1_000_000)
    assert acquire(service, timeout=0)


def lose(service: IdempotencyService, held: Lease, stack: ExitStack) -> Lease:
    """Another takes the lock, whose lease has run out."""
    end_lease(service, KEY)
    successor = stack.enter_context(service.lock(NAME, timeout=0))
    assert successor.fence > held.fence
    return successor


def test_a_late_holder_does_not_give_its_successors_lock_away(
    service: IdempotencyService,
) -> None:
    before = counted("lease_lost_total", task="service")
    with ExitStack() as stack:
        with service.lock(NAME) as held:
            successor = lose(service, held, stack)
        with pytest.raises(LockTimeout), service.lock(NAME, timeout=0):
            pytest.fail("the successor's lock was given away")
        successor.check()
    assert counted("lease_lost_total", task="service") == before + 1


def test_a_late_holder_is_told_when_it_asks(service: IdempotencyService) -> None:
    with ExitStack() as stack, service.lock(NAME) as held:
        lose(service, held, stack)
        service.engine.heartbeat(held.store).beat()  # renews nothing: too early
        held.renewed_at -= held.seconds  # frozen for the length of the lease
        with pytest.raises(LeaseLost, match=KEY):
            held.check()


@pytest.mark.parametrize("option", ["timeout", "lease"])
def test_a_wrong_duration_is_refused_by_name(service: IdempotencyService, option: str) -> None:
    options: dict[str, Any] = {option: "soon"}
    with pytest.raises(ConfigurationError, match=option), service.lock(NAME, **options):
        pytest.fail("a wrong duration was taken")
    assert service.show(KEY) is None


def test_without_a_store_there_is_no_lock() -> None:
    before = counted("lock_wait_seconds_count", result="unavailable")
    service = IdempotencyService(Settings(redis_url="redis://127.0.0.1:1/0", authority="redis"))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), service.lock(NAME, timeout=5):
        pytest.fail("a lock without a store")
    assert time.monotonic() - began < 3
    assert counted("lock_wait_seconds_count", result="unavailable") == before + 1
    close_engines()
