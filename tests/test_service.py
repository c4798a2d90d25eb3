"""The service on every store: check_duplicate, store_result and once. Cases 3 and 15."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, cast

import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency import (
    AlreadyRunning,
    ArgumentMismatch,
    ConfigurationError,
    IdempotencyService,
    PoisonedKey,
)
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import Claim, State
from idemwatch.idempotency.service import StoredResult
from support.services import KINDS, counted, end_lease, hold, record, service_of
from support.stores import DEADLINE_SECONDS, ENDED_US, KEY, wait_until


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """One database for all of these tests, which keep apart by their namespaces."""
    yield postgres_server.create_database("service", template=migrated_template)
    postgres_server.drop_database("service")


@pytest.fixture(params=KINDS)
def service(
    request: pytest.FixtureRequest, idempotency_memory: MemoryStore
) -> Iterator[IdempotencyService]:
    names = {"redis": "redis_url", "database": "database"}
    yield service_of(request.param, lambda name: str(request.getfixturevalue(names[name])))
    close_engines()


def by_service(what: str, **labels: str) -> float:
    """A counter of work outside of tasks."""
    return counted(f"{what}_total", task="service", **labels)


# -- check_duplicate and store_result --------------------------------------------------------------


def test_only_finished_work_is_a_duplicate(service: IdempotencyService) -> None:
    assert service.check_duplicate(KEY) is None
    held = hold(service)
    assert service.check_duplicate(KEY) is None
    service.store.park(held, fingerprint="", open_after_us=60_000_000)
    assert service.check_duplicate(KEY) is None
    service.store.release(held)
    assert service.store_result(KEY, {"a": 1})
    assert service.check_duplicate(KEY) == StoredResult({"a": 1})
    service.forget(KEY)
    assert service.check_duplicate(KEY) is None


def test_a_poisoned_key_is_no_duplicate(service: IdempotencyService) -> None:
    for _ in range(2):
        hold(service, lease_us=ENDED_US)
    assert not service.store.claim(
        Claim(key=KEY, owner="z", authority=service.settings.authority, max_crashes=1)
    ).granted
    assert service.check_duplicate(KEY) is None
    with pytest.raises(PoisonedKey, match="keys forget"), service.once(KEY):
        pytest.fail("a poisoned key was granted")


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"b": "é\0", "a": [None, 1.5]}])
def test_a_stored_result_is_answered_as_it_was(service: IdempotencyService, value: Any) -> None:
    assert service.store_result(KEY, value)
    assert service.check_duplicate(KEY) == StoredResult(value)
    with service.once(KEY) as work:
        assert work.duplicate and work.result == value


def test_a_result_is_never_stored_over_a_live_claim(service: IdempotencyService) -> None:
    with service.once(KEY) as work:
        before = record(service)
        assert not service.store_result(KEY, "theirs")
        assert record(service) == before
        work.check()
        work.result = "ours"
    assert service.check_duplicate(KEY) == StoredResult("ours")


def test_a_result_is_stored_once_until_it_expires(service: IdempotencyService) -> None:
    assert service.store_result(KEY, 1, ttl=0.05)
    wait_until(lambda: service.check_duplicate(KEY) is None)
    assert service.store_result(KEY, 2, ttl=timedelta(minutes=1))
    assert not service.store_result(KEY, 3)
    assert service.check_duplicate(KEY) == StoredResult(2)
    left = record(service).due_us - record(service).created_us
    assert 50_000_000 < left <= 60_000_000


@pytest.mark.parametrize("key", ["two words", "é" * 300, "a\nb", "x" * 201])
def test_any_text_is_a_key(service: IdempotencyService, key: str) -> None:
    assert service.store_result(key, 1)
    assert service.check_duplicate(key) == StoredResult(1)
    with service.once(key) as work:
        assert work.duplicate
    assert service.check_duplicate(key + "!") is None


@pytest.mark.parametrize("key", ["two words", "x" * 201])
def test_a_key_is_shown_and_forgotten_by_the_name_it_was_given(
    service: IdempotencyService, key: str
) -> None:
    assert service.store_result(key, 1)
    assert service.show(key) is not None
    assert service.forget(key) is not None
    assert service.check_duplicate(key) is None


# -- once ------------------------------------------------------------------------------------------


def test_work_is_done_once_and_its_result_replayed(service: IdempotencyService) -> None:
    before = by_service("claims", scope="global", outcome="duplicate")
    with service.once(KEY) as work:
        assert not work.duplicate
        work.result = {"sent": True}
    for _ in range(2):
        with service.once(KEY) as again:
            assert again.duplicate and again.result == {"sent": True}
            with pytest.raises(AlreadyRunning):
                _ = again.fence
    assert by_service("claims", scope="global", outcome="duplicate") == before + 2


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_gives_the_key_back(service: IdempotencyService, error: BaseException) -> None:
    before = by_service("releases", reason="failure")
    with pytest.raises(type(error)) as caught, service.once(KEY):
        raise error
    assert caught.value is error and service.show(KEY) is None
    assert by_service("releases", reason="failure") == before + 1
    with service.once(KEY) as work:
        assert not work.duplicate


def test_of_many_at_once_one_does_the_work(service: IdempotencyService) -> None:
    ran: list[int] = []
    turned_away = threading.Semaphore(0)

    def attempt(number: int) -> str:
        try:
            with service.once(KEY) as work:
                if work.duplicate:
                    return f"duplicate of {work.result}"
                ran.append(number)
                for _ in range(7):
                    assert turned_away.acquire(timeout=DEADLINE_SECONDS)
                work.result = number
                return "ran"
        except AlreadyRunning:
            turned_away.release()
            return "running"

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(attempt, range(8)))
    assert answers == ["ran", *["running"] * 7] and len(ran) == 1
    assert attempt(9) == f"duplicate of {ran[0]}"


def test_other_arguments_under_the_same_key_are_refused(service: IdempotencyService) -> None:
    with service.once(KEY, fingerprint="aaaa") as work:
        with pytest.raises(ArgumentMismatch), service.once(KEY, fingerprint="bbbb"):
            pytest.fail("other arguments were granted")
        work.result = 1
    with pytest.raises(ArgumentMismatch), service.once(KEY, fingerprint="bbbb"):
        pytest.fail("other arguments were replayed")
    assert service.check_duplicate(KEY) == StoredResult(1)


def test_the_fence_grows_with_every_holder(service: IdempotencyService) -> None:
    fences = []
    for _ in range(3):
        with pytest.raises(ValueError), service.once(KEY) as work:
            fences.append(work.fence)
            raise ValueError("again")
    assert fences == sorted(set(fences)) and len(fences) == 3


def test_a_wrong_ttl_is_refused_before_the_work_is_done(service: IdempotencyService) -> None:
    ran, ttl = [], cast(float, "soon")
    with pytest.raises(ConfigurationError, match="ttl"), service.once(KEY, ttl=ttl):
        ran.append(1)
    assert ran == [] and service.show(KEY) is None


def test_a_result_that_cannot_be_kept_still_ends_the_work(service: IdempotencyService) -> None:
    before = by_service("completions", result="unencodable")
    with service.once(KEY) as work:
        work.result = object()
    assert by_service("completions", result="unencodable") == before + 1
    with service.once(KEY) as again:
        assert again.duplicate and again.result is None
    assert record(service).state is State.DONE


# -- a holder that was frozen past its lease -------------------------------------------------------


def be_late(service: IdempotencyService) -> tuple[Any, dict[str, float]]:
    """Do work that a successor finished meanwhile; returns it, and what was counted."""
    before = by_service("completions", result="stale"), by_service("lease_lost")
    with service.once(KEY) as work:
        end_lease(service)
        with service.once(KEY) as successor:
            assert not successor.duplicate and successor.fence > work.fence
            successor.result = "successor"
        work.result = "late"
    after = by_service("completions", result="stale"), by_service("lease_lost")
    return work, {"stale": after[0] - before[0], "lost": after[1] - before[1]}


def test_a_late_completion_is_refused_and_counted(service: IdempotencyService) -> None:
    _, counts = be_late(service)
    assert service.check_duplicate(KEY) == StoredResult("successor")
    assert counts["stale"] == 1


def test_a_late_holder_is_counted_among_the_lost_leases(service: IdempotencyService) -> None:
    assert be_late(service)[1]["lost"] == 1


def test_a_late_holder_ends_with_the_result_of_its_successor(service: IdempotencyService) -> None:
    assert be_late(service)[0].result == "successor"
