"""docs/guarantees.md: each row of its matrix names its tests; here are those that were missing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg
import pytest
import redis
from idemwatch.alerts.rule import Alert, Build
from idemwatch.alerts.rule_files import ALERTS, rule_groups
from idemwatch.demo.servers import RedisServer
from idemwatch.idempotency import IdempotencyService, Settings, StoreUnavailable
from idemwatch.idempotency.keys import Binder, CallKey, KeyRule
from idemwatch.idempotency.record import Outcome
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.stores import warn_of_eviction
from idemwatch.idempotency.transaction_store import TransactionStore
from support.pages import page, tables
from support.proxy import TcpProxy
from support.stores import (
    DEADLINE_SECONDS,
    cached_subject,
    delete_in_postgres,
    delete_in_redis,
    redis_subject,
)
from support.venv import ROOT

PAGE = page("docs/guarantees.md")
README = (ROOT / "README.md").read_text("utf-8")
CANNOT_BE_SHOWN = (
    "the broker loses a message",
    "a key function reads a clock or a random number",
)
"""Rows that say what idemwatch cannot know of."""


# -- the page --------------------------------------------------------------------------------------


def test_its_sentences_are_those_of_the_readme_and_no_others() -> None:
    section = README.partition("\n## What it guarantees\n")[2].partition("\n## ")[0]
    promised = re.findall(r"^- \*(.+)\*$", section, re.MULTILINE)
    assert len(promised) == 5
    assert re.findall(r"^> (.+)$", PAGE.text, re.MULTILINE) == promised


def rows() -> list[list[str]]:
    """The rows of the matrix: of each table that ends with the column `alert`."""
    found = [row for header, *body in tables(PAGE.text) if header[-1] == "alert" for row in body]
    assert len(found) >= 30
    return found


def test_each_row_names_a_test_that_shows_it() -> None:
    bare = [row[0] for row in rows() if "::test_" not in row[-1]]
    assert sorted(bare) == sorted(CANNOT_BE_SHOWN)


def test_each_alert_named_is_one() -> None:
    groups = rule_groups(Build())[ALERTS]
    alerts = {rule.name for group in groups for rule in group.rules if isinstance(rule, Alert)}
    named = {name for row in rows() for name in re.findall(r"\b[A-Z]\w+[a-z][A-Z]\w+", row[-1])}
    assert named and named <= alerts


def test_each_outcome_named_is_one() -> None:
    known = {outcome.value for outcome in Outcome} | {"unencodable"}
    cells = [row[-2] for row in rows()]
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    named = {name for name in named if not name.startswith("idemwatch_")}
    assert named and named <= known


# -- rows of the matrix ----------------------------------------------------------------------------


def test_a_commit_whose_reply_was_lost_is_a_duplicate_the_next_time(
    database_url: str, tcp_proxy: Callable[[str], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = tcp_proxy(database_url)
    service = IdempotencyService(Settings(database_url=proxy.url(database_url)))
    with psycopg.connect(database_url, autocommit=True) as watcher, ThreadPoolExecutor(1) as pool:
        watcher.execute("CREATE TABLE effect (who text)")

        def cut_off_the_reply() -> None:
            assert proxy.caught.wait(DEADLINE_SECONDS)
            proxy.heal()
            proxy.reset()

        def complete_and_drop(*args: object) -> None:
            complete(*args)  # type: ignore[arg-type]
            proxy.drop_replies()
            pool.submit(cut_off_the_reply)

        complete = TransactionStore.complete
        monkeypatch.setattr(TransactionStore, "complete", complete_and_drop)
        with pytest.raises(StoreUnavailable), service.transaction("pay") as tx:
            tx.connection.execute("INSERT INTO effect VALUES ('first')")
            tx.result = "paid"
        monkeypatch.undo()
        with service.transaction("pay") as again:
            assert again.duplicate and again.result == "paid"
        assert watcher.execute("SELECT who FROM effect").fetchall() == [("first",)]
    service.engine.close()


def test_a_redis_that_may_evict_is_warned_of(
    new_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(config={"maxmemory-policy": "allkeys-lru"})
    store = RedisStore(RedisLink.from_url(server.url), "idemwatch")
    warn_of_eviction(store)
    assert "allkeys-lru" in caplog.text and "noeviction" in caplog.text
    caplog.clear()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
    warn_of_eviction(store)
    assert caplog.text == ""
    store.close()


def test_what_postgresql_lost_is_answered_as_long_as_redis_has_it(
    database_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        subject = cached_subject(stack, database_url, redis_url)
        subject.finish("work")
        delete_in_postgres(database_url, "test:work")
        assert subject.ask("work").outcome is Outcome.DUPLICATE
        delete_in_redis(redis_url, "test:{work}")
        assert subject.ask("work").outcome is Outcome.GRANTED


def test_authority_redis_does_not_meet_what_runs_in_postgresql(
    database_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        cached_subject(stack, database_url, redis_url).hold("work")
        assert redis_subject(stack, redis_url).ask("work").outcome is Outcome.GRANTED


def test_a_new_argument_is_other_work_unless_it_is_ignored() -> None:
    def before(job_id: int) -> None: ...
    def after(job_id: int, trace: str | None = None) -> None: ...

    def call(function: Callable[..., None], *ignored: str) -> CallKey:
        rule = KeyRule(task_name="t", binder=Binder(function), ignored=frozenset(ignored))
        return rule.call_key(None, (7,), {}, task_id="", ids={})

    assert call(before).key != call(after).key
    assert call(before) == call(after, "trace")


@pytest.fixture
def an_hour_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this process is wrong."""
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 3600 * 10**9)


@pytest.mark.usefixtures("an_hour_ahead")
def test_a_wrong_clock_of_a_worker_moves_no_lease_and_no_ttl(
    database_url: str, redis_url: str
) -> None:
    real = datetime.now(UTC)  # the clock of the servers, which read none of Python's
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(redis_url))
        for subject in (
            cached_subject(stack, database_url, redis_url),
            redis_subject(stack, redis_url),
        ):
            key = f"work of {subject.authority}"
            subject.hold(key, lease_us=30_000_000)
            left = subject.record(key).due_us / 1e6 - real.timestamp()
            assert 29 < left < 60
            subject.finish(f"{key}, done")
            assert 3540 < client.pttl(f"test:{{{key}, done}}") / 1000 <= 3600
        assert subject.record("work of redis, done").due_us / 1e6 - real.timestamp() < 3700
