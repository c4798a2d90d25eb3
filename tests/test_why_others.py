"""`keys why` of records that are no call's: locks, and the notes of publishers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from click.testing import CliRunner, Result
from idemwatch.exporter.cli import cli
from idemwatch.idempotency import publishing, why_others
from idemwatch.idempotency.record import SECOND, Claim, Record, State, record_of
from idemwatch.idempotency.store import Result as Stored
from support.stores import Subject, redis_subject, wait_until

NOW = 1_800_000_000 * SECOND


def record(state: State, due_us: int, **changed: Any) -> Record:
    claim = Claim(key="k", owner="owner-secret", authority="redis", endpoint="send")
    made = record_of(claim, state, fence=7, due_us=due_us, created_us=NOW)
    return made._replace(**changed)


def run(url: str, *arguments: str) -> Result:
    words = ("keys", "why", "--redis-url", url, *arguments)
    done = CliRunner().invoke(cli, words, prog_name="idemwatch")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def redis_keys(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Subject]]:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "test")
    with ExitStack() as stack:
        yield redis_url, redis_subject(stack, redis_url)


def test_a_lock_is_told_as_a_lock(redis_keys: tuple[str, Subject]) -> None:
    url, subject = redis_keys
    subject.hold("lock:pump", endpoint="lock")
    shown = run(url, "lock:pump").stdout
    assert "the lock 'pump' is held by owner" in shown and "raises LockTimeout" in shown
    assert "a message" not in shown


def test_the_note_of_a_publisher_turns_no_message_away(redis_keys: tuple[str, Subject]) -> None:
    url, subject = redis_keys
    held = subject.hold("publish:send:7", endpoint="send")
    assert "just publishing send:7" in run(url, "publish:send:7").stdout
    sent = Stored(ttl_us=600 * SECOND, data=b"id-9", content_type="text/plain")
    wait_until(lambda: subject.store.complete(held, sent) == "stored")
    found = json.loads(run(url, "publish:send:7", "--format", "json").stdout)
    assert (found["verdict"], found["decided_by"]) == ("published", "redis")
    assert "published as task id id-9" in found["told"][0]
    assert not any("AuthorityMismatch" in line for line in found["told"])
    unknown = run(url, "send:7")
    assert unknown.exit_code == 1 and "published as task id id-9" in unknown.stderr


def test_the_record_of_a_call_is_no_note_whatever_its_key() -> None:
    own = record(State.RUNNING, NOW + SECOND, task_id="id-1")
    assert why_others.of_other("publish:7", own, NOW, "redis") is None
    assert why_others.of_other("lock:7", own, NOW, "redis") is None
    assert why_others.NOTE == publishing._NOTE


@pytest.mark.parametrize("state", [State.DONE, State.RUNNING])
def test_what_is_over_holds_nobody_up(state: State) -> None:
    over = why_others.of_other("publish:7", record(state, NOW - 1), NOW, "redis")
    assert over is not None and over.verdict == "over"
    lock = record(State.RUNNING, NOW - 1, endpoint="lock")
    free = why_others.of_other("lock:7", lock, NOW, "redis")
    assert free is not None and free.verdict == "free"
