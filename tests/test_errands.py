"""What a store refused, tried again in the background; and the thread that does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from idemwatch.idempotency import StoreUnavailable
from idemwatch.idempotency.heartbeat import ERRANDS, Heartbeat, Lease
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import Claim
from idemwatch.idempotency.store import Held
from support.stores import DEADLINE_SECONDS, wait_until


class Silent(Heartbeat):
    """A heartbeat without a thread: the test beats, once a second."""

    def __init__(self) -> None:
        self.now = 0
        super().__init__(MemoryStore(), lambda: float(self.now))

    def _ensure_running(self, period: float) -> None:
        """The test beats."""

    def beat(self) -> None:
        self.now += 1
        super().beat()


class Errand:
    """Meets a store that is away so often."""

    def __init__(self, heartbeat: Silent, failures: int) -> None:
        self.heartbeat, self.failures = heartbeat, failures
        self.tried: list[int] = []

    def __call__(self) -> None:
        self.tried.append(self.heartbeat.now)
        if len(self.tried) <= self.failures:
            raise StoreUnavailable("memory", "away")


@pytest.fixture
def heartbeat() -> Silent:
    return Silent()


def test_an_errand_is_tried_until_the_store_answers(heartbeat: Silent) -> None:
    errand = Errand(heartbeat, 2)
    heartbeat.later(errand, 600)
    assert heartbeat._next_period() <= 0.5
    for _ in range(5):
        heartbeat.beat()
    assert errand.tried == [1, 2, 3]
    assert heartbeat._next_period() > 0.5


def test_an_errand_is_given_up_when_its_time_is_over(
    heartbeat: Silent, caplog: pytest.LogCaptureFixture
) -> None:
    errand = Errand(heartbeat, 99)
    heartbeat.later(errand, 5)
    for _ in range(10):
        heartbeat.beat()
    assert errand.tried == [1, 2, 3, 4, 5]
    assert "given up" in caplog.text


def test_an_errand_does_not_stop_those_behind_it(heartbeat: Silent) -> None:
    first, last = Errand(heartbeat, 99), Errand(heartbeat, 0)
    heartbeat.later(first, 600)
    heartbeat.later(lambda: 1 / 0, 600)
    heartbeat.later(last, 600)
    for _ in range(3):
        heartbeat.beat()
    assert last.tried in ([1], [2])
    assert len(first.tried) >= 2


def test_errands_do_not_fill_the_memory(heartbeat: Silent) -> None:
    for _ in range(ERRANDS + 10):
        heartbeat.later(lambda: None, 600)
    assert len(heartbeat._errands) == ERRANDS


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def running(store: MemoryStore) -> Iterator[Heartbeat]:
    """A heartbeat with its thread."""
    heartbeat = Heartbeat(store)
    yield heartbeat
    heartbeat.stop()


def threads() -> int:
    return [t.name for t in threading.enumerate()].count("idemwatch-heartbeat")


def lease_of_a_second(store: MemoryStore, key: str) -> Lease:
    claim = Claim(key=key, owner=key, authority="postgres", lease_us=900_000)
    fence = store.claim(claim).fence
    held = Held(claim=claim, fence=fence, created_us=fence)
    return Lease(store, held, task="tests", claimed_at=time.monotonic(), max_hold_seconds=60)


def test_one_thread_serves_all_leases_and_ends_with_its_errands_done(
    store: MemoryStore, running: Heartbeat
) -> None:
    already = threads()
    for key in ("a", "b"):
        running.add(lease_of_a_second(store, key))
    assert threads() == already + 1
    last = max(record.due_us for record in store._records.values())
    wait_until(lambda: min(r.due_us for r in store._records.values()) > last + 900_000)
    done = threading.Event()
    running.later(done.set, 600)
    running.stop()
    assert done.is_set() and threads() == already


def test_a_short_lease_is_renewed_in_time_though_the_thread_is_idle(
    store: MemoryStore, running: Heartbeat
) -> None:
    idle = threading.Event()
    running.later(idle.set, 600)
    assert idle.wait(DEADLINE_SECONDS)  # the thread waits for long now
    running.add(lease_of_a_second(store, "a"))
    first = store._records["a"].due_us
    wait_until(lambda: store._records["a"].due_us > first, 0.9)


def test_an_errand_is_run_soon(running: Heartbeat) -> None:
    done = threading.Event()
    running.later(done.set, 600)
    assert done.wait(DEADLINE_SECONDS / 10)
