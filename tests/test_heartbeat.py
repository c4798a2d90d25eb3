"""Leases and the thread that renews them, case 9; time and errors are the test's.

The store is in memory; its clock and the heartbeat's show the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from idemwatch.idempotency import LeaseLost, StoreUnavailable
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.heartbeat import Heartbeat, Lease
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.metrics import REGISTRY
from idemwatch.idempotency.record import SECOND, Claim
from idemwatch.idempotency.settings import Settings
from idemwatch.idempotency.store import Held
from support.stores import DEADLINE_SECONDS, wait_until

TASK = "tests.heartbeat"
LEASE_SECONDS = 30.0


class Timed(MemoryStore):
    """A store whose clock is the test's, and which may fail to renew."""

    def __init__(self) -> None:
        self.now = float(int(time.monotonic()))
        super().__init__(lambda: int(self.now * SECOND))
        self.failures = 0
        self.batches: list[list[str]] = []

    def renew(self, held: Sequence[Held]) -> set[str]:
        self.batches.append([one.key for one in held])
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("memory", "connection reset")
        return super().renew(held)

    def left(self, key: str) -> float:
        """Seconds until the lease of a key ends."""
        found = self.find(key)
        assert found is not None
        return found.record.due_us / SECOND - self.now


@pytest.fixture
def store() -> Timed:
    return Timed()


class Silent(Heartbeat):
    """A heartbeat without a thread: the test beats."""

    def _ensure_running(self, period: float) -> None:
        """The test beats."""


@pytest.fixture
def heartbeat(store: Timed) -> Heartbeat:
    return Silent(store, lambda: store.now)


class Hanging(MemoryStore):
    """A store that does not answer a renewal."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self._answer = threading.Event(), threading.Event()

    def renew(self, held: Sequence[Held]) -> set[str]:
        self.asked.set()
        self._answer.wait()
        return super().renew(held)

    @contextmanager
    def released_at_the_end(self) -> Iterator[None]:
        """It answers after all, so that its thread ends."""
        try:
            yield
        finally:
            self._answer.set()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(Settings(store="memory"))
    yield made
    made.close()


def lease_on(
    store: MemoryStore,
    key: str,
    *,
    clock: float | None = None,
    lease_us: int = int(LEASE_SECONDS * SECOND),
    **options: Any,
) -> Lease:
    """A held key. `clock` is when it was claimed, unless by the store's clock."""
    claim = Claim(key=key, owner=f"owner of {key}", authority="postgres", lease_us=lease_us)
    answer = store.claim(claim)
    assert answer.granted
    held = Held(claim=claim, fence=answer.fence, created_us=answer.fence)
    claimed_at = getattr(store, "now", 0.0) if clock is None else clock
    given = {"task": TASK, "claimed_at": claimed_at, "max_hold_seconds": 3600.0, **options}
    return Lease(store, held, **given)


def take_over(store: Timed, key: str) -> None:
    """Another holder takes a key whose lease has run out."""
    store.now += LEASE_SECONDS + 1
    assert store.claim(Claim(key=key, owner="successor", authority="postgres")).granted


def lost_leases() -> float:
    return REGISTRY.get_sample_value("idemwatch_lease_lost_total", {"task": TASK}) or 0


# -- renewal ---------------------------------------------------------------------------------------


def test_all_leases_are_renewed_in_one_batch(store: Timed, heartbeat: Heartbeat) -> None:
    for key in ("a", "b", "c"):
        heartbeat.add(lease_on(store, key))
    for _ in range(12):  # for four times the length of a lease
        store.now += LEASE_SECONDS / 3
        heartbeat.beat()
        assert {store.left(key) for key in "abc"} == {LEASE_SECONDS}
    assert store.batches == [["a", "b", "c"]] * 12


def test_a_lease_that_is_fresh_is_left_alone(store: Timed, heartbeat: Heartbeat) -> None:
    heartbeat.add(lease_on(store, "a"))
    store.now += 1
    heartbeat.beat()
    assert store.batches == []


def test_a_finished_lease_is_renewed_no_more(store: Timed, heartbeat: Heartbeat) -> None:
    lease, other = lease_on(store, "a"), lease_on(store, "b")
    heartbeat.add(lease)
    heartbeat.add(other)
    heartbeat.remove(lease)
    heartbeat.remove(lease)
    store.now += 10
    heartbeat.beat()
    assert store.batches == [["b"]]


def test_a_connection_error_is_survived_and_tried_again_soon(
    store: Timed, heartbeat: Heartbeat
) -> None:
    lease = lease_on(store, "a")
    heartbeat.add(lease)
    assert heartbeat._next_period() == LEASE_SECONDS / 3
    store.failures = 1
    store.now += 10
    before = REGISTRY.get_sample_value(
        "idemwatch_store_errors_total", {"store": "memory", "operation": "renew"}
    )
    heartbeat.beat()
    assert heartbeat._next_period() < 1 and not lease.lost
    heartbeat.beat()
    assert store.left("a") == LEASE_SECONDS and not lease.lost
    assert heartbeat._next_period() == LEASE_SECONDS / 3
    labels = {"store": "memory", "operation": "renew"}
    after = REGISTRY.get_sample_value("idemwatch_store_errors_total", labels)
    assert after == (before or 0) + 1


def test_an_unknown_error_does_not_end_the_heartbeat(
    store: Timed, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat.add(lease_on(store, "a"))
    store.now += 10
    with monkeypatch.context() as patch:
        patch.setattr(store, "renew", None)
        heartbeat.beat()
    heartbeat.beat()
    assert store.left("a") == LEASE_SECONDS


def test_a_store_that_hangs_delays_no_lease_in_another(engine: Engine) -> None:
    hangs, answers = Hanging(), MemoryStore()
    with hangs.released_at_the_end():
        for store in (hangs, answers):
            lease = lease_on(store, "a", clock=time.monotonic(), lease_us=SECOND)
            engine.heartbeat(store).add(lease)
        assert hangs.asked.wait(DEADLINE_SECONDS)
        first = answers._records["a"].due_us
        wait_until(lambda: answers._records["a"].due_us > first, 0.9)


def test_an_errand_that_cannot_succeed_costs_no_other_and_no_other_store(
    engine: Engine, store: Timed, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def wrong() -> None:
        raise ValueError("as the test says")

    for one, name in ((store, "first"), (MemoryStore(), "second")):
        heartbeat = engine.heartbeat(one)
        heartbeat._stopped = True  # no thread: they are left to `close`
        engine.later(one, wrong)
        engine.later(one, partial(done.append, name))
    engine.close()
    assert done == ["first", "second"]
    assert caplog.text.count("ValueError: as the test says") == 2


def test_a_thread_that_hangs_in_an_errand_keeps_no_other_from_the_end(engine: Engine) -> None:
    store, begun, goes_on = MemoryStore(), threading.Event(), threading.Event()
    done: list[str] = []

    def hang() -> None:
        begun.set()
        goes_on.wait(DEADLINE_SECONDS)
        done.append("late")

    heartbeat = engine.heartbeat(store)
    heartbeat._errands.append((partial(done.append, "once"), 0.0))
    heartbeat._errands.appendleft((hang, 0.0))
    engine.later(store, partial(done.append, "twice"))
    assert begun.wait(DEADLINE_SECONDS)
    engine.close()
    goes_on.set()
    wait_until(lambda: "late" in done)
    assert done == ["once", "twice", "late"]


def test_a_lease_is_renewed_no_longer_than_max_hold(
    store: Timed, heartbeat: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    lease = lease_on(store, "a", max_hold_seconds=25.0)
    heartbeat.add(lease)
    for _ in range(5):
        store.now += 10
        heartbeat.beat()
    assert store.batches == [["a"]] * 2
    assert store.left("a") == 0  # the last renewal was at 20 s, and it is 50 s now
    assert [r.levelno for r in caplog.records if "too long" in r.getMessage()] == [logging.ERROR]
    assert store.claim(Claim(key="a", owner="b", authority="postgres")).outcome == "taken_over"


# -- a lost lease ----------------------------------------------------------------------------------


def test_a_lease_that_another_took_is_lost_once(
    store: Timed, heartbeat: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    before = lost_leases()
    lease, other = lease_on(store, "a"), lease_on(store, "b")
    heartbeat.add(lease)
    heartbeat.add(other)
    lease.check()
    take_over(store, "a")
    for _ in range(3):
        heartbeat.beat()
        store.now += 10
    with pytest.raises(LeaseLost, match="a") as caught:
        lease.check()
    assert caught.value.key == "a" and lost_leases() == before + 1
    assert not other.lost and store.batches[1:] == [["b"]] * 2
    assert "lost its lease on a" in caplog.text


def test_a_record_that_vanished_is_a_lost_lease(store: Timed, heartbeat: Heartbeat) -> None:
    lease = lease_on(store, "a")
    heartbeat.add(lease)
    store.clear()
    store.now += 10
    heartbeat.beat()
    with pytest.raises(LeaseLost):
        lease.check()
    assert store.find("a") is None


def test_a_lease_that_ran_out_and_was_not_taken_is_kept(store: Timed, heartbeat: Heartbeat) -> None:
    lease = lease_on(store, "a")
    heartbeat.add(lease)
    store.now += 10 * LEASE_SECONDS
    heartbeat.beat()
    lease.check()
    assert store.left("a") == LEASE_SECONDS


def frozen(store: Timed, key: str = "a") -> Lease:
    """A lease whose process stood still for longer than it, so that no renewal came."""
    lease = lease_on(store, key, clock=time.monotonic() - LEASE_SECONDS - 1)
    store.now += LEASE_SECONDS + 1
    return lease


def test_after_a_freeze_check_asks_the_store(store: Timed) -> None:
    lease = frozen(store)
    lease.check()
    assert store.left("a") == LEASE_SECONDS
    lease.check()
    assert len(store.batches) == 1


def test_after_a_freeze_check_finds_the_successor(store: Timed) -> None:
    before = lost_leases()
    lease = frozen(store)
    take_over(store, "a")
    for _ in range(2):
        with pytest.raises(LeaseLost):
            lease.check()
    assert lost_leases() == before + 1


def test_after_a_freeze_without_a_store_nothing_is_promised(store: Timed) -> None:
    before = lost_leases()
    lease = frozen(store)
    store.failures = 1
    with pytest.raises(LeaseLost) as caught:
        lease.check()
    assert isinstance(caught.value.__cause__, StoreUnavailable)
    assert not lease.lost and lost_leases() == before
    lease.check()
