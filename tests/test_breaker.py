"""The circuit breaker: how long a store is left out, who tries it again, and what is told of it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from idemwatch.idempotency.breaker import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Breaker
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.settings import Settings
from support.services import counted
from support.stores import DEADLINE_SECONDS

TINY = 0.001


class Timed(Breaker):
    """A breaker whose time is the test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.name = f"store-{uuid4().hex}"
        super().__init__(self.name, lambda: self.now)

    @property
    def shown(self) -> float:
        """What the metric says."""
        return counted("circuit_open", store=self.name)

    def opens_again(self) -> float:
        """How long the store is left out from now, by steps of a millisecond."""
        began = self.now
        while not self.allows():
            self.now += TINY
        return self.now - began


@pytest.fixture
def breaker() -> Timed:
    return Timed()


def test_a_store_that_answers_is_asked(breaker: Timed) -> None:
    assert breaker.allows() and not breaker.is_open and breaker.shown == 0
    breaker.succeeded()
    breaker.require()


def test_a_failure_leaves_the_store_out(breaker: Timed) -> None:
    error = breaker.failed("connection refused")
    assert isinstance(error, StoreUnavailable)
    assert (error.store, error.reason) == (breaker.name, "connection refused")
    assert breaker.is_open and breaker.shown == 1 and not breaker.allows()
    with pytest.raises(StoreUnavailable, match="a moment ago") as caught:
        breaker.require()
    assert caught.value.store == breaker.name and caught.value.__cause__ is None


def test_the_pause_grows_up_to_its_limit(breaker: Timed) -> None:
    assert (FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS) == (0.5, 5.0)
    pauses = []
    for _ in range(6):
        breaker.failed("away")
        pauses.append(breaker.opens_again())
    assert pauses == pytest.approx([0.5, 1, 2, 4, 5, 5], abs=2 * TINY)


def test_after_the_pause_one_caller_tries_and_the_others_go_on_without(breaker: Timed) -> None:
    breaker.failed("away")
    breaker.now += FIRST_PAUSE_SECONDS
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]
    with pytest.raises(StoreUnavailable):
        breaker.require()


def test_a_try_that_never_came_back_does_not_close_the_store_for_ever(breaker: Timed) -> None:
    breaker.failed("away")
    breaker.now += FIRST_PAUSE_SECONDS
    assert breaker.allows()
    assert breaker.opens_again() == pytest.approx(2 * FIRST_PAUSE_SECONDS, abs=2 * TINY)


def test_an_answer_closes_it_and_the_next_pause_is_short_again(breaker: Timed) -> None:
    for _ in range(5):
        breaker.failed("away")
    breaker.succeeded()
    assert not breaker.is_open and breaker.shown == 0
    assert [breaker.allows() for _ in range(3)] == [True] * 3
    breaker.failed("away again")
    assert breaker.shown == 1
    assert breaker.opens_again() == pytest.approx(FIRST_PAUSE_SECONDS, abs=2 * TINY)


def test_each_change_is_told_once(breaker: Timed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "idemwatch")
    for _ in range(3):
        breaker.failed("connection refused")
    for _ in range(3):
        breaker.succeeded()
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, f"{breaker.name} is left out for a moment: connection refused"),
        (logging.INFO, f"{breaker.name} answers again"),
    ]


def test_many_threads_try_a_store_that_is_away_a_few_times_at_most(breaker: Timed) -> None:
    breaker.failed("away")
    breaker.now += FIRST_PAUSE_SECONDS
    together = threading.Barrier(16)

    def ask(_: int) -> bool:
        together.wait(DEADLINE_SECONDS)
        return breaker.allows()

    with ThreadPoolExecutor(16) as pool:
        tries = sum(pool.map(ask, range(16)))
    assert 1 <= tries < 16


def test_stores_are_left_out_each_by_itself() -> None:
    one, other = Timed(), Timed()
    one.failed("away")
    assert not one.allows() and other.allows()
    assert (one.shown, other.shown) == (1, 0)


def test_a_store_that_nobody_asks_any_more_is_not_shown_as_left_out(breaker: Timed) -> None:
    breaker.failed("away")
    assert breaker.shown == 1
    breaker.close()
    assert breaker.shown == 0


@pytest.mark.parametrize("authority", ["redis", "postgres"])
def test_a_closed_engine_shows_no_outage(authority: str, request: pytest.FixtureRequest) -> None:
    nowhere = "127.0.0.1:1"
    settings = Settings(
        authority=authority, redis_url=f"redis://{nowhere}", database_url=f"postgresql://{nowhere}/"
    )
    engine = Engine(settings)
    request.addfinalizer(engine.close)
    with pytest.raises(StoreUnavailable):
        engine.stores.get(authority).ping()
    assert counted("circuit_open", store=authority) == 1
    engine.close()
    assert counted("circuit_open", store=authority) == 0
