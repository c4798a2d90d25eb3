"""`idemwatch keys`: what stands where, and how a key is forgotten, under both authorities."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from click.testing import Result
from idemwatch.idempotency.record import SECOND, Outcome, State
from support import commands
from support.stores import HOUR_US, Subject, cached_subject, redis_subject, result

SPACE = {"IDEMWATCH_NAMESPACE": "test"}


@dataclass
class Desk:
    """An operator's desk: the stores that hold the records, and the options that name them."""

    postgres: Subject
    redis: Subject
    options: tuple[str, ...]

    def of(self, authority: str) -> Subject:
        return self.redis if authority == "redis" else self.postgres

    def run(self, command: str, *arguments: str, stdin: str = "") -> Result:
        """`idemwatch keys COMMAND`; it must not fail by a traceback."""
        done = commands.invoke("keys", command, *self.options, *arguments, stdin=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def json(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        done = self.run(command, *arguments, "--format", "json")
        assert (done.exit_code, done.stderr) == (0, "")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def listed(self, *arguments: str) -> list[str]:
        return [entry["key"] for entry in self.json("list", *arguments)]


@pytest.fixture
def desk(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "test")
    options = ("--database-url", database_url, "--redis-url", redis_url)
    with ExitStack() as stack:
        postgres = cached_subject(stack, database_url, redis_url)
        yield Desk(postgres, redis_subject(stack, redis_url), options)


each_authority = pytest.mark.parametrize("authority", ["postgres", "redis"])


# -- show ------------------------------------------------------------------------------------------


@each_authority
def test_show_tells_what_a_held_key_waits_for(desk: Desk, authority: str) -> None:
    held = desk.of(authority).hold(
        "a-key", endpoint="app.task", task_id="id-1", attempt=2, lease_us=100 * SECOND
    )
    done = desk.run("show", "a-key")
    lines = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if line)
    shown = {name: lines.get(name) for name in ("key", "in", "state", "authority", "task")}
    assert shown == {
        "key": "a-key", "in": authority, "state": "running", "authority": authority,
        "task": "app.task",
    }  # fmt: skip
    assert (lines["task id"], lines["attempt"], lines["fence"]) == ("id-1", "2", str(held.fence))
    assert " UTC (in " in lines["lease until"] and " s ago)" in lines["created"]
    assert "completed" not in lines and "result" not in lines


def test_show_tells_of_a_finished_key_in_postgresql_and_in_its_cache(desk: Desk) -> None:
    desk.postgres.finish("k", b"12345", endpoint="app.task")
    entries = desk.json("show", "k")
    assert [entry["place"] for entry in entries] == ["postgres", "redis"]
    for entry in entries:
        assert (entry["state"], entry["authority"]) == ("done", "postgres")
        assert (entry["result_bytes"], entry["result_type"]) == (5, "application/json")
        assert entry["lease_until"] is None and entry["expires_at"].endswith("+00:00")
    table = desk.run("show", "k").stdout
    assert table.count("5 bytes of application/json") == 2 and "lease until" not in table


def test_show_tells_that_a_result_was_not_kept(desk: Desk) -> None:
    desk.redis.finish("k", None)
    assert "not kept" in desk.run("show", "k").stdout


def test_show_of_an_unknown_key_fails(desk: Desk) -> None:
    desk.redis.hold("known")
    done = desk.run("show", "unknown")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no record of unknown" in done.stderr


def test_show_looks_only_into_its_namespace(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.postgres.finish("k")
    desk.redis.finish("other")
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "tes")
    assert desk.run("show", "k").exit_code == desk.run("show", "other").exit_code == 1
    assert desk.listed() == []


# -- list ------------------------------------------------------------------------------------------


def some_of_each(desk: Desk, authority: str) -> list[str]:
    """A key in each state, oldest first."""
    subject = desk.of(authority)
    subject.finish("finished", endpoint="app.a")
    subject.poison("poisoned")
    parked = subject.hold("parked", endpoint="app.b")
    subject.store.park(parked, fingerprint="", open_after_us=HOUR_US)
    subject.finish("forgotten")
    subject.store.forget("forgotten")
    subject.hold("held", endpoint="app.a")
    return ["finished", "poisoned", "parked", "forgotten", "held"]


@each_authority
def test_list_has_all_keys_or_those_of_a_state_or_task(desk: Desk, authority: str) -> None:
    keys = some_of_each(desk, authority)
    assert sorted(desk.listed()) == sorted(keys)
    by_state = dict(zip(("done", "poisoned", "waiting", "forgotten", "running"), keys, strict=True))
    assert sorted(by_state) == sorted(State)
    for state, key in by_state.items():
        assert desk.listed("--state", state) == [key]
    assert sorted(desk.listed("--task", "app.a")) == ["finished", "held"]
    assert desk.listed("--task", "app.a", "--state", "running") == ["held"]
    assert desk.listed("--task", "app.b", "--state", "poisoned") == []


@each_authority
def test_list_of_poisoned_keys_ends_when_they_are_forgotten(desk: Desk, authority: str) -> None:
    desk.of(authority).poison(
        "b",
    )
    desk.of(authority).poison("a")
    table = desk.run("list", "--state", "poisoned").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["poisoned"] * 2
    assert [line.split()[-1] for line in table] == ["a", "b"]
    assert desk.run("forget", "--yes", "a", "b").exit_code == 0
    done = desk.run("list", "--state", "poisoned")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no such keys\n")


def test_list_has_a_cached_key_once(desk: Desk) -> None:
    desk.postgres.finish("cached")
    desk.redis.finish("of redis")
    assert desk.listed() == ["of redis", "cached"]


def test_list_of_postgresql_is_newest_first_and_limited(desk: Desk) -> None:
    for number in range(5):
        desk.postgres.finish(f"k{number}")
    assert desk.listed() == ["k4", "k3", "k2", "k1", "k0"]
    assert desk.listed("--limit", "2") == ["k4", "k3"]


def test_list_of_both_stores_is_the_newest_of_both(desk: Desk) -> None:
    for number in range(4):
        desk.of("redis" if number % 2 else "postgres").finish(f"k{number}")
    assert desk.listed() == ["k3", "k2", "k1", "k0"]
    assert desk.listed("--limit", "2") == ["k3", "k2"]


def test_list_of_redis_is_newest_first(desk: Desk) -> None:
    for number in range(20):
        desk.redis.finish(f"k{number}")
    assert desk.listed("--limit", "3") == ["k19", "k18", "k17"]


@pytest.mark.parametrize("wrong", [("--state", "sleeping"), ("--limit", "0"), ("--format", "xml")])
def test_list_refuses_wrong_usage(desk: Desk, wrong: tuple[str, str]) -> None:
    assert desk.run("list", *wrong).exit_code == 2


# -- forget ----------------------------------------------------------------------------------------


@each_authority
def test_forget_lets_the_work_be_done_again(desk: Desk, authority: str) -> None:
    subject = desk.of(authority)
    subject.poison("k")
    done = desk.run("forget", "k", stdin="y\n")
    assert done.exit_code == 0 and "forgotten: k" in done.stdout
    assert "poisoned" in done.stdout, "it shows first what it would forget"
    assert subject.ask("k").outcome is Outcome.GRANTED


@each_authority
def test_forget_keeps_a_holder_from_bringing_the_record_back(desk: Desk, authority: str) -> None:
    subject = desk.of(authority)
    held = subject.hold("k")
    assert desk.run("forget", "--yes", "k").exit_code == 0
    assert subject.store.complete(held, result()) == "forgotten"


def test_forget_takes_a_finished_key_out_of_the_cache_too(desk: Desk) -> None:
    desk.postgres.finish("k")
    assert desk.run("forget", "--yes", "k").exit_code == 0
    assert {entry["state"] for entry in desk.json("show", "k")} == {"forgotten"}
    assert desk.postgres.ask("k").outcome is Outcome.GRANTED


@each_authority
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_forget_changes_nothing_without_a_yes(desk: Desk, authority: str, answer: str) -> None:
    desk.of(authority).finish("k")
    assert desk.run("forget", "k", stdin=answer).exit_code == 1
    assert desk.of(authority).record("k").state is State.DONE
    refused = commands.run("keys", "forget", "k", *desk.options, stdin=answer, **SPACE)
    assert refused.returncode == 1 and "nothing was changed" in refused.stderr


def test_forget_goes_on_past_an_unknown_key_and_fails(desk: Desk) -> None:
    desk.redis.finish("a")
    desk.postgres.finish("b")
    done = desk.run("forget", "--yes", "a", "unknown", "b")
    assert done.exit_code == 1 and done.stderr == "no record of unknown\n"
    assert desk.redis.record("a").state is desk.postgres.record("b").state is State.FORGOTTEN
    assert desk.run("forget", "--yes").exit_code == 2


def test_forgetting_again_is_harmless(desk: Desk) -> None:
    desk.redis.finish("k")
    for _ in range(2):
        assert desk.run("forget", "--yes", "k").exit_code == 0
        assert desk.redis.record("k").state is State.FORGOTTEN


@pytest.mark.parametrize("servers", ["redis", "both"])
def test_forget_removes_what_cannot_be_read(desk: Desk, redis_url: str, servers: str) -> None:
    if servers == "redis":
        desk.options = ("--redis-url", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("test:{k}", b"garbage")
    shown = desk.run("show", "k")
    assert shown.exit_code == 1 and "cannot be read" in shown.stderr
    done = desk.run("forget", "--yes", "k")
    assert (done.exit_code, done.stdout) == (0, "forgotten: k\n")
    assert desk.redis.ask("k").outcome is Outcome.GRANTED
