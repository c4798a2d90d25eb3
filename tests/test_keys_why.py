"""`idemwatch keys why`: what a message for a record would get, why, and which argument differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner, Result
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter.cli import cli
from idemwatch.idempotency import IdempotentTask, why_call
from idemwatch.idempotency.record import SECOND, Waiter
from support import commands
from support.stores import HOUR_US, Subject, cached_subject, redis_subject

SECRET = "s3cret-value"


class Bench:
    """Stores with records, an app whose tasks they are of, and the command."""

    def __init__(self, stack: ExitStack, database_url: str, redis_url: str) -> None:
        self.postgres = cached_subject(stack, database_url, redis_url)
        self.redis = redis_subject(stack, redis_url)
        self.redis_url = redis_url
        self.options: tuple[str, ...] = ("--database-url", database_url, "--redis-url", redis_url)
        self.app = Celery("bench", broker="memory://", backend="cache+memory://")
        self.app.conf.idempotency_namespace = "test"
        self.app.conf.idempotency_database_url = database_url
        self.app.conf.idempotency_redis_url = redis_url
        self.task("send", idempotency_key=lambda _, to, *__, **___: f"send:{to}")
        self.task("plain", base=None)

    def task(self, name: str, **options: Any) -> IdempotentTask:
        def run(to: int, text: str = "hello", copies: int = 1, trace: str | None = None) -> None:
            """Never run here."""

        base = options.pop("base", IdempotentTask)
        given = {"base": base} if base else {}
        made: IdempotentTask = self.app.task(name=name, shared=False, **given, **options)(run)
        return made

    def of(self, authority: str) -> Subject:
        return self.redis if authority == "redis" else self.postgres

    def stored(self, *args: Any, task: str = "send", **kwargs: Any) -> str:
        """The key of a call that is held."""
        call = self.app.tasks[task].idempotency_key_of(*args, **kwargs)
        self.postgres.hold(call.key, fingerprint=call.fingerprint, endpoint=task, task_id="id-1")
        return str(call.key)

    def run(self, *arguments: str, app: bool = False) -> Result:
        """It must not fail by a traceback."""
        obj = SimpleNamespace(app=self.app) if app else None
        words = ("keys", "why", *self.options, *arguments)
        done = CliRunner().invoke(cli, words, prog_name="idemwatch", obj=obj)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert SECRET not in done.output
        return done

    def told(self, *arguments: str, app: bool = False) -> dict[str, Any]:
        done = self.run(*arguments, "--format", "json", app=app)
        assert (done.exit_code, done.stderr) == (0, "")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def bench(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "test")
    with ExitStack() as stack:
        yield Bench(stack, database_url, redis_url)


each_authority = pytest.mark.parametrize("authority", ["postgres", "redis"])


# -- by key ----------------------------------------------------------------------------------------


@each_authority
def test_a_held_key_tells_its_holder_its_lease_and_that_messages_wait(
    bench: Bench, authority: str
) -> None:
    held = bench.of(authority).hold("k", task_id="id-1", endpoint="send", attempt=2)
    found = bench.told("k")
    assert (found["verdict"], found["decided_by"]) == ("running", authority)
    assert "held by task id id-1" in found["told"][0] and "renewed" in found["told"][0]
    assert "waits and comes again" in found["told"][1]
    record = found["record"]
    assert (record["state"], record["task_id"], record["attempt"]) == ("running", "id-1", 2)
    assert record["fence"] == held.fence and 25 < record["lease_left_seconds"] <= 30
    shown = bench.run("k").stdout
    assert (
        f"fence {held.fence}" in shown
        and "lease left" in shown
        and held.claim.owner not in (shown if len(held.claim.owner) > 8 else "")
    )


@each_authority
def test_a_finished_key_answers_with_its_result_until_it_expires(
    bench: Bench, authority: str
) -> None:
    bench.of(authority).finish("k", SECRET.encode(), user_id=SECRET)
    found = bench.told("k")
    assert found["verdict"] == "duplicate"
    assert "answered with the stored result until" in found["told"][0]
    assert 3500 < found["record"]["expires_in_seconds"] <= 3600
    assert "idemwatch keys forget k" in found["advice"][0]


@each_authority
def test_a_lease_that_ran_out_is_taken_over_and_then_poisons(bench: Bench, authority: str) -> None:
    bench.of(authority).hold("k", lease_us=1)
    assert bench.told("k")["verdict"] == "taken_over"
    bench.of(authority).poison("p")
    poisoned = bench.told("p")
    assert poisoned["verdict"] == "poisoned" and "2 crashes in a row" in poisoned["told"][0]
    assert "look for the cause" in poisoned["advice"][0]
    assert poisoned["advice"][1] == "then: idemwatch keys forget p"


@each_authority
def test_a_retry_and_a_forgotten_key_are_told_apart(bench: Bench, authority: str) -> None:
    subject = bench.of(authority)
    held = subject.hold("parked", task_id="id-1")
    subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    parked = bench.told("parked")
    assert parked["verdict"] == "running" and "id-1 retries" in parked["told"][0]
    subject.finish("gone")
    subject.store.forget("gone")
    gone = bench.told("gone")
    assert gone["verdict"] == "granted" and "somebody forgot the key" in gone["told"][0]


def test_a_cached_result_that_postgresql_lost_is_told(bench: Bench) -> None:
    bench.postgres.finish("k")
    assert "before PostgreSQL is asked" in bench.told("k")["told"][-1]
    link = bench.postgres.store._link  # type: ignore[attr-defined]
    link.run(lambda c: c.execute("DELETE FROM idempotency_record"))
    found = bench.told("k")
    assert (found["verdict"], found["decided_by"]) == ("duplicate", "redis")
    assert "has no such record any more" in found["told"][-1]


@pytest.mark.parametrize(
    ("raw", "said"), [(b"garbage", "cannot be read"), (b"iw9 a b\n", "upgrade this worker")]
)
def test_a_record_that_cannot_be_read_makes_messages_wait(
    bench: Bench, raw: bytes, said: str
) -> None:
    bench.options = ("--redis-url", bench.redis_url)
    with redis.Redis.from_url(bench.redis_url) as client:
        client.set("test:{k}", raw)
    found = bench.told("k")
    assert found["verdict"] == "unavailable" and said in found["told"][0]
    assert "nothing is guessed" in found["told"][1]


def test_the_other_authority_is_refused(bench: Bench) -> None:
    bench.redis.finish("k", endpoint="send")
    found = bench.told("k", app=True)
    assert found["verdict"] == "authority" and "authority 'redis'" in found["told"][0]


def test_an_unknown_key_fails_and_names_its_neighbours(bench: Bench) -> None:
    bench.postgres.hold("close:7:2026-03-01")
    bench.redis.hold("close:7:2026-03-02")
    done = bench.run("close:7:2027-01-01")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no record of close:7:2027-01-01: its work may be done" in done.stderr
    assert "close:7:2026-03-01, close:7:2026-03-02" in done.stderr
    assert "near it" not in bench.run("unlike").stderr


def test_a_beginning_is_enough_unless_several_keys_have_it(bench: Bench) -> None:
    bench.postgres.hold("close:7:a")
    bench.redis.hold("close:8:b")
    assert bench.told("close:7")["key"] == "close:7:a"
    assert bench.told("close:8")["key"] == "close:8:b"
    assert bench.told("test:{close:8:b}")["key"] == bench.told("test:close:8:b")["key"]
    done = bench.run("close:")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "2 keys begin; say one of them:\n  close:7:a\n  close:8:b" in done.stderr


def test_a_beginning_with_signs_of_patterns_means_itself(bench: Bench) -> None:
    bench.redis.hold("a[1]*?x")
    bench.redis.hold("a1zzx")
    assert bench.told("a[1]*")["key"] == "a[1]*?x"
    assert bench.run("a%").exit_code == 1


# -- by task id ------------------------------------------------------------------------------------


@each_authority
def test_a_task_id_leads_to_the_record_that_it_holds_or_waits_for(
    bench: Bench, authority: str
) -> None:
    subject = bench.of(authority)
    subject.hold("k", task_id="id-1")
    subject.hold("other", task_id="id-11")
    found = subject.store.find("k")
    assert found is not None
    waits = found.record._replace(waiters={"id-2": Waiter("t", found.now_us + HOUR_US)})
    assert subject.store._swap("k", found, waits)
    for task_id in ("id-1", "id-2"):
        told = bench.told("--task-id", task_id)
        assert told["key"] == "k" and "1 message waits for it already" in told["told"][-1]
    done = bench.run("--task-id", "id-3")
    assert done.exit_code == 1 and "no record names task id id-3" in done.stderr


def test_a_refused_message_is_found_by_what_the_result_backend_kept(bench: Bench) -> None:
    from idemwatch.idempotency.errors import PoisonedKey

    bench.postgres.poison("k")
    bench.app.backend.store_result("id-9", PoisonedKey("k"), "FAILURE")
    found = bench.told("--task-id", "id-9", app=True)
    assert found["key"] == "k"
    assert found["message"] == "task id id-9 was refused with PoisonedKey"
    assert "result backend keeps no refusal" in bench.run("--task-id", "id-0", app=True).stderr


# -- by call ---------------------------------------------------------------------------------------


def test_a_call_has_the_key_and_fingerprint_that_a_worker_computes(bench: Bench) -> None:
    bench.stored(7, SECRET)
    found = bench.told("--task", "send", "--args", f'[7, "{SECRET}"]', app=True)
    assert (found["key"], found["verdict"]) == ("send:7", "running")
    assert found["arguments"] == ["the arguments are those of the record"]


def test_without_the_other_call_the_usual_causes_are_tried(bench: Bench) -> None:
    bench.stored("7", SECRET)
    found = bench.told("--task", "send", "--args", f'[7, "{SECRET}"]', app=True)
    assert found["verdict"] == "mismatch"
    assert (
        "exactly these differ: to (in the call of the record it was text" in found["arguments"][0]
    )
    left_out = bench.told("--task", "send", "--args", f'["7", "{SECRET}"]', "--kwargs",
                          '{"copies": 3}', app=True)  # fmt: skip
    assert "copies (the call of the record left it at its default)" in left_out["arguments"][0]


def test_what_cannot_be_known_is_said_and_the_other_call_proves_it(bench: Bench) -> None:
    bench.stored(7, "first " + SECRET, trace="t1")
    now = ("--task", "send", "--args", f'[7, "second {SECRET}"]')
    vague = bench.told(*now, "--kwargs", '{"trace": "t2"}', app=True)["arguments"]
    assert "at least one of these differs: to, text, copies, trace." in vague[0]
    other = ("--than-args", f'[7, "first {SECRET}"]', "--than-kwargs", '{"trace": "t1"}')
    proved = bench.told(*now, "--kwargs", '{"trace": "t2"}', *other, app=True)["arguments"]
    assert proved[0].endswith("exactly these differ: text, trace")
    assert proved[-1] == "the other call is the stored one"
    mixed = bench.told(*now, "--kwargs", '{"trace": "t1"}', *other, app=True)["arguments"]
    assert mixed[0].endswith("exactly these differ: text")


def test_two_calls_with_two_keys_are_told_to_be_two_pieces_of_work(bench: Bench) -> None:
    bench.stored(7)
    found = bench.told("--task", "send", "--args", "[7]", "--than-args", "[8]", app=True)
    assert "the two calls that you gave differ in: to" in found["arguments"]
    assert "they are different pieces of work: the other has the key send:8" in found["arguments"]


def test_headers_are_part_of_the_key_as_for_a_worker(bench: Bench) -> None:
    task = bench.task("mine", idempotency_scope="user")
    key = task.idempotency_call_key([7], headers={"idempotency_user_id": "5"}).key
    bench.postgres.hold(key)
    call = ("--task", "mine", "--args", "[7]")
    header = ("--header", "idempotency_user_id=5")
    assert bench.told(*call, *header, app=True)["key"] == key
    missing = bench.run(*call, app=True)
    assert missing.exit_code == 1 and "scope 'user' needs a user_id" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "send", "--args", f'["{SECRET}'], "is not JSON (character 1)"),
        (["--task", "send", "--args", '{"a": 1}'], "is JSON, but no list"),
        (["--task", "send", "--kwargs", "[1]"], "is JSON, but no object"),
        (["--task", "send", "--args", "[1, 2, 3, 4, 5]"], "does not fit send: too many"),
        (["--task", "send"], "does not fit send: missing a required argument: 'to'"),
        (["--task", "send", "--header", "x"], "--header is NAME=VALUE"),
        ([], "say KEY, --task NAME"),
        (["k", "--task", "send"], "a KEY is all"),
        (["--task-id", "1", "--args", "[1]"], "need --task NAME"),
        (["k", "--format", "xml"], "Invalid value for '--format'"),
    ],
)
def test_wrong_usage_is_told_without_any_value(
    bench: Bench, arguments: list[str], said: str
) -> None:
    done = bench.run(*arguments, app=True)
    assert (done.exit_code, done.stdout) == (2, "") and said in done.stderr


def test_a_task_that_the_app_does_not_know_or_that_has_no_key_is_told(bench: Bench) -> None:
    unknown = bench.run("--task", "sent", app=True)
    assert unknown.exit_code == 1 and "no task 'sent'; did you mean send?" in unknown.stderr
    plain = bench.run("--task", "plain", app=True)
    assert plain.exit_code == 1 and "plain is no IdempotentTask" in plain.stderr
    alone = bench.run("--task", "send")
    assert alone.exit_code == 2 and "--task needs your app" in alone.stderr


def test_a_key_function_that_fails_is_told_by_its_kind_alone(bench: Bench) -> None:
    def broken(_: Any, to: str, *__: Any) -> str:
        raise LookupError(to)

    bench.task("broken", idempotency_key=broken)
    done = bench.run("--task", "broken", "--args", f'["{SECRET}"]', app=True)
    assert done.exit_code == 1 and "broken raised LookupError" in done.stderr


# -- stores that are away --------------------------------------------------------------------------


def test_a_store_that_is_away_is_told_and_the_other_goes_on(bench: Bench, redis_url: str) -> None:
    bench.redis.hold("k")
    away = "postgresql://someone:hunter2@127.0.0.1:1/none"
    bench.options = ("--database-url", away, "--redis-url", redis_url)
    done = bench.run("k")
    assert done.exit_code == 0 and "running, by redis" in done.stdout
    assert "postgres was not read" in done.stdout and "hunter2" not in done.output
    bench.options = ("--database-url", away)
    gone = bench.run("k")
    assert gone.exit_code == 1 and "not known: postgres decides" in gone.stdout


def test_a_broker_that_is_frozen_costs_seconds(
    bench: Bench, new_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(why_call, "LONGEST_SECONDS", 0.5)
    broker = new_redis()
    bench.app.conf.broker_url = broker.url
    bench.postgres.hold("k", task_id="id-1", endpoint="send")
    broker.freeze()
    try:
        shown = bench.run("k", app=True).stdout
    finally:
        broker.thaw()
    assert "no worker that answered has its message" in shown


def test_no_server_at_all_is_told(bench: Bench) -> None:
    done = commands.run("keys", "why", "k")
    assert done.returncode == 1 and "say --database-url or --redis-url" in done.stderr


def test_what_it_says_of_a_record_is_what_a_claim_gets(bench: Bench) -> None:
    """The verdict is the store's own, in each state of a record."""
    subject = bench.redis
    subject.hold("held")
    subject.finish("done")
    subject.hold("ended", lease_us=1)
    subject.poison("poisoned")
    for key in ("held", "done", "ended", "poisoned"):
        told = bench.told(key)["verdict"]
        assert told == subject.ask(key, lease_us=SECOND).outcome
