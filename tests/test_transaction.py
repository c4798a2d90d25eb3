"""transaction(): record and effect commit together or not at all, on a real PostgreSQL. Case 20."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from idemwatch.idempotency import (
    AlreadyRunning,
    AuthorityMismatch,
    ConfigurationError,
    IdempotencyError,
    IdempotencyService,
    LeaseLost,
    Settings,
)
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.service import StoredResult
from psycopg.rows import dict_row, tuple_row
from support.services import counted
from support.stores import DEADLINE_SECONDS, KEY, wait_until
from support.transactions import (
    Connection,
    act,
    do,
    effects,
    meanwhile,
    records,
    strict,
    waits_for_lock,
)


@pytest.fixture
def watcher(database_url: str) -> Iterator[Connection]:
    """A connection that sees what has been committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE effect (who text NOT NULL)")
        yield connection


@pytest.fixture
def service(database_url: str, watcher: Connection) -> Iterator[IdempotencyService]:
    yield IdempotencyService(Settings(database_url=database_url))
    close_engines()


@pytest.fixture(params=["begun", "idle", "with dict rows"])
def mine(database_url: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection of the caller's own, with or without a transaction that has begun."""
    rows: Any = dict_row if request.param == "with dict rows" else tuple_row
    with psycopg.connect(database_url, row_factory=rows) as connection:
        if request.param == "begun":
            connection.execute("SELECT 1")
        yield connection
        connection.rollback()


# -- together --------------------------------------------------------------------------------------


def test_nothing_is_seen_before_the_commit_and_both_after(
    service: IdempotencyService, watcher: Connection
) -> None:
    with service.transaction(KEY) as tx:
        act(tx)
        assert effects(watcher) == records(watcher) == []
    assert (effects(watcher), records(watcher)) == (["first"], ["done"])
    assert service.check_duplicate(KEY) == StoredResult("first")


def test_a_duplicate_gets_the_result_and_no_connection(
    service: IdempotencyService, watcher: Connection
) -> None:
    labels = {"task": "service", "scope": "global", "outcome": "duplicate"}
    before = counted("claims_total", **labels)
    do(service, "first")
    with service.transaction(KEY) as tx:
        assert tx.duplicate and tx.result == "first"
        with pytest.raises(RuntimeError, match="finished already"):
            _ = tx.connection
    assert do(service, "second") == "first" and effects(watcher) == ["first"]
    assert counted("claims_total", **labels) == before + 2


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_rolls_both_back(
    service: IdempotencyService, watcher: Connection, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, service.transaction(KEY) as tx:
        act(tx)
        raise error
    assert caught.value is error
    assert effects(watcher) == records(watcher) == []
    assert do(service, "second") == "second"


def test_an_error_of_the_database_rolls_both_back(
    service: IdempotencyService, watcher: Connection
) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation), service.transaction(KEY) as tx:
        act(tx)
        tx.connection.execute("INSERT INTO effect VALUES (NULL)")
    assert effects(watcher) == records(watcher) == []


def test_a_record_that_is_gone_at_the_end_rolls_the_effect_back(
    service: IdempotencyService, watcher: Connection
) -> None:
    with pytest.raises(LeaseLost), service.transaction(KEY) as tx:
        act(tx)
        tx.connection.execute("DELETE FROM idempotency_record")
    assert effects(watcher) == records(watcher) == []


def test_an_expired_record_opens_the_key_with_a_higher_fence(
    service: IdempotencyService, watcher: Connection
) -> None:
    with service.transaction(KEY, ttl=0.05) as tx:
        act(tx)
    wait_until(lambda: service.check_duplicate(KEY) is None)
    with service.transaction(KEY, ttl=timedelta(minutes=1)) as later:
        assert later.fence > tx.fence
        act(later, "second")
    assert effects(watcher) == ["first", "second"] and records(watcher) == ["done"]


def test_a_wrong_duration_is_refused_and_nothing_stays(
    service: IdempotencyService, watcher: Connection
) -> None:
    for option in ("ttl", "lock_timeout"):
        with pytest.raises(ConfigurationError, match=option):
            do(service, "first", **{option: "soon"})
    assert effects(watcher) == records(watcher) == []


def test_without_postgresql_the_missing_setting_is_named(idempotency_memory: MemoryStore) -> None:
    service = IdempotencyService()
    with pytest.raises(ConfigurationError) as caught:
        do(service, "first")
    assert caught.value.name == "idempotency_database_url"


def test_a_key_of_another_authority_is_refused(
    service: IdempotencyService, watcher: Connection
) -> None:
    service.store_result(KEY, 1)
    with pytest.raises(AuthorityMismatch):
        do(service, "first")
    with service.transaction("other") as tx:
        act(tx)
    with pytest.raises(AuthorityMismatch), service.once("other"):
        pytest.fail("a transaction's key was granted")
    assert effects(watcher) == ["first"]


# -- many at once ----------------------------------------------------------------------------------


def test_a_claim_that_meets_an_open_transaction_is_running(
    service: IdempotencyService, watcher: Connection
) -> None:
    labels = {"task": "service", "scope": "global", "outcome": "running"}
    before = counted("claims_total", **labels)
    with service.transaction(KEY) as tx:
        act(tx)
        with meanwhile(lambda: do(service, "second", lock_timeout=0.2)) as answer:
            began = time.monotonic()
            with pytest.raises(AlreadyRunning, match=KEY):
                answer()
            assert time.monotonic() - began < 3
    assert effects(watcher) == ["first"]
    assert counted("claims_total", **labels) == before + 1


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_claim_waits_for_how_the_other_ends(
    service: IdempotencyService, watcher: Connection, mine: Connection, ending: str
) -> None:
    do(service, "first", connection=mine)
    with meanwhile(lambda: do(service, "second", lock_timeout=DEADLINE_SECONDS)) as answer:
        wait_until(lambda: waits_for_lock(watcher))
        getattr(mine, ending)()
        assert answer() == ("first" if ending == "commit" else "second")
    assert effects(watcher) == [answer()] and records(watcher) == ["done"]


def test_of_many_at_once_one_has_an_effect(
    service: IdempotencyService, watcher: Connection
) -> None:
    together = threading.Barrier(6)

    def attempt(number: int) -> Any:
        together.wait(DEADLINE_SECONDS)
        return do(service, str(number), lock_timeout=DEADLINE_SECONDS)

    with ThreadPoolExecutor(6) as pool:
        results = set(pool.map(attempt, range(6)))
    assert len(results) == 1 and effects(watcher) == list(results)


# -- the caller's own transaction ------------------------------------------------------------------


def test_the_callers_commit_decides(
    service: IdempotencyService, watcher: Connection, mine: Connection
) -> None:
    for ending, wanted in ((mine.rollback, []), (mine.commit, ["first"])):
        mine.execute("INSERT INTO effect VALUES ('before')")
        assert do(service, "first", connection=mine) == "first"
        assert effects(watcher) == records(watcher) == []
        mine.execute("DELETE FROM effect WHERE who = 'before'")
        ending()
        assert effects(watcher) == wanted
    assert do(service, "second", connection=mine) == "first"


def test_the_caller_waits_for_locks_as_long_as_before(
    service: IdempotencyService, database_url: str
) -> None:
    with psycopg.connect(database_url) as mine:
        mine.execute("SET LOCAL lock_timeout = '7s'")
        do(service, "first", connection=mine)
        do(service, "second", connection=mine)
        assert mine.execute("SHOW lock_timeout").fetchone() == ("7s",)
        with pytest.raises(KeyError), service.transaction("other", connection=mine):
            raise KeyError
        assert mine.execute("SHOW lock_timeout").fetchone() == ("7s",)


def test_in_autocommit_mode_the_block_is_the_transaction(
    service: IdempotencyService, watcher: Connection
) -> None:
    assert do(service, "first", connection=watcher) == "first"
    assert effects(watcher) == ["first"] and records(watcher) == ["done"]
    assert watcher.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_refusal_leaves_the_callers_transaction_usable(
    service: IdempotencyService, watcher: Connection, mine: Connection
) -> None:
    with service.transaction(KEY) as tx:
        act(tx)
        mine.execute("INSERT INTO effect VALUES ('mine')")
        with pytest.raises(AlreadyRunning):
            do(service, "second", connection=mine, lock_timeout=0.1)
        mine.commit()
    assert effects(watcher) == ["first", "mine"]


# -- other isolation levels ------------------------------------------------------------------------


def test_under_repeatable_read_a_snapshot_of_before_has_no_effect(
    service: IdempotencyService, watcher: Connection, mine: Connection
) -> None:
    strict(mine)
    do(service, "first")
    with pytest.raises((psycopg.errors.SerializationFailure, IdempotencyError)):
        do(service, "second", connection=mine)
    mine.rollback()
    assert do(service, "second", connection=mine) == "first"
    assert effects(watcher) == ["first"]


def test_under_repeatable_read_a_claim_that_waited_has_no_second_effect(
    service: IdempotencyService, watcher: Connection, mine: Connection, database_url: str
) -> None:
    do(service, "first", connection=mine)
    with psycopg.connect(database_url) as other:
        strict(other)
        with meanwhile(lambda: do(service, "second", connection=other)) as answer:
            wait_until(lambda: waits_for_lock(watcher))
            mine.commit()
            with pytest.raises((psycopg.errors.SerializationFailure, IdempotencyError)):
                answer()
        other.rollback()
        assert do(service, "second", connection=other) == "first"
    assert effects(watcher) == ["first"]


@pytest.fixture
def strict_service(database_url: str, watcher: Connection) -> Iterator[IdempotencyService]:
    """A service over a database whose transactions are REPEATABLE READ unless told otherwise."""
    watcher.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation ="
        " %L', current_database(), 'repeatable read'); END $$"
    )
    yield IdempotencyService(Settings(database_url=database_url, namespace="strict"))
    close_engines()


def test_our_own_transaction_keeps_its_level_whatever_the_databases_default(
    strict_service: IdempotencyService, watcher: Connection
) -> None:
    with strict_service.transaction(KEY) as tx:
        assert tx.connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_claims_under_a_strict_default_are_decided(
    strict_service: IdempotencyService, watcher: Connection
) -> None:
    together = threading.Barrier(6)

    def attempt(key: str) -> str:
        together.wait(DEADLINE_SECONDS)
        try:
            with strict_service.once(key) as work:
                return "duplicate" if work.duplicate else "granted"
        except AlreadyRunning:
            return "running"

    with ThreadPoolExecutor(6) as pool:
        for number in range(150):
            answers = list(pool.map(attempt, [f"key{number}"] * 6))
            assert answers.count("granted") == 1, answers
