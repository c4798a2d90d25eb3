"""docs/security.md: each claim names the test that shows it; here are those that were missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.exporter.catalogue import catalogue
from idemwatch.idempotency import IdempotencyService, Settings
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.errors import AlreadyRunning, PoisonedKey
from idemwatch.idempotency.memory_store import MemoryStore, wall_clock_us
from idemwatch.idempotency.publishing import _NOTE
from idemwatch.idempotency.record import NO_WAITERS, Claim, Record, State, Wait, Waiter
from idemwatch.idempotency.succession import judge_last
from idemwatch.idempotency.wire import decode, encode
from support.eager import Bench
from support.pages import page, tables
from support.publishers import Desk
from support.reader import Reader, commands
from support.rights import ROLES, acl_file
from support.stores import HOUR_US
from support.table import Table
from support.venv import ROOT, Venv

PAGE = page("docs/security.md")
TOLD_ONLY = ("fill its memory",)
"""Rows about what Redis itself does."""


# -- the page --------------------------------------------------------------------------------------


def test_each_row_names_a_test_that_shows_it() -> None:
    rows = [
        row for header, *body in tables(PAGE.text) if header[0] in ("attack", "header")
        for row in body
    ]  # fmt: skip
    assert len(rows) >= 15
    assert [row[0] for row in rows if "::test_" not in row[-1]] == list(TOLD_ONLY)


def test_its_table_of_roles_has_each_role() -> None:
    (rows,) = [body for header, *body in tables(PAGE.text) if header[0] == "role"]
    assert {row[0].strip("`") for row in rows} == {f"idemwatch_{role}" for role in ROLES}


def test_the_way_to_report_is_told() -> None:
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()


def test_its_commands_lock_the_servers(
    tmp_path: Path, postgres_server: PostgresServer, new_redis: Callable[..., RedisServer]
) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    url = postgres_server.create_database("hardened")
    reader = Reader(tmp_path, Venv(Path(sys.prefix)), {"postgresql://localhost/jobs": url})
    try:
        printed = [
            reader.run(f"export IDEMWATCH_DATABASE_URL='{url}'; {line}")
            for line in commands(PAGE.text)
        ]
        assert printed[2] == "5\n"
        assert Table(url).execute(
            "SELECT has_table_privilege('idemwatch_worker', 'idempotency_record', 'INSERT')"
        ) == [(True,)]
    finally:
        names = ", ".join(f"idemwatch_{role}" for role in ROLES)
        Table(url).execute(f"DROP OWNED BY {names}")
        Table(url).execute(f"DROP ROLE {names}")
        postgres_server.drop_database("hardened")
    _lets_in_only_with_its_password(tmp_path, new_redis)


def _lets_in_only_with_its_password(folder: Path, new_redis: Callable[..., RedisServer]) -> None:
    file = acl_file(folder)
    server = new_redis(config={"aclfile": str(file)})
    file.write_text((folder / "users.acl").read_text())
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL LOAD")
    secret = (folder / "worker.password").read_text()
    assert len(secret) >= 40
    for password, let_in in ((secret, True), ("", False), (secret[:-1], False)):
        client = redis.Redis(port=server.port, username="idemwatch_worker", password=password)
        with client, suppress(redis.RedisError):
            assert client.ping() == let_in


# -- who can write to Redis ------------------------------------------------------------------------


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(params=["redis", "postgres"])
def bench(request: pytest.FixtureRequest, redis_url: str, database_url: str) -> Iterator[Bench]:
    bench = Bench(MemoryStore())
    bench.app.conf.update(
        idempotency_redis_url=redis_url,
        idempotency_database_url=database_url,
        idempotency_authority=request.param,
    )
    yield bench
    close_engines()


def forged(task: Any, *args: Any, **changed: Any) -> tuple[str, bytes]:
    """The name and the bytes of a record of a call that nobody made."""
    call = task.idempotency_key_of(*args)
    record = Record(
        state=State.DONE, owner="me", fence=1, due_us=wall_clock_us() + HOUR_US, created_us=1,
        attempt=0, crashes=0, authority=task.idempotency_options.authority,
        fingerprint=call.fingerprint, task_id="t", endpoint=task.name, scope="global",
        result_type="application/json", result=b'"forged"',
    )  # fmt: skip
    return f"idemwatch:{{{call.key}}}", encode(record._replace(**changed))


def test_a_forged_result_is_believed_under_either_authority(
    bench: Bench, client: redis.Redis
) -> None:
    task = bench.task()
    client.set(*forged(task, 1))
    assert task.delay(1).get() == "forged" and bench.runs == {}


@pytest.mark.parametrize("state", [one for one in State if one is not State.DONE])
def test_only_a_finished_record_of_the_cache_is_believed(
    bench: Bench, client: redis.Redis, state: State
) -> None:
    task = bench.task()
    client.set(*forged(task, 1, state=state, result=None, result_type=""))
    decides = task.idempotency_options.authority == "redis" and state is not State.FORGOTTEN
    if decides and state is State.POISONED:
        with pytest.raises(PoisonedKey):
            task.delay(1)
    elif decides:
        with pytest.raises(AlreadyRunning):
            task.delay(1)
    else:
        assert task.delay(1).get() == [1, 1]
    assert bench.runs[1] == (not decides)


def test_a_transaction_believes_nothing_of_redis(
    database_url: str, redis_url: str, client: redis.Redis
) -> None:
    service = IdempotencyService(Settings(database_url=database_url, redis_url=redis_url))
    task = Bench(MemoryStore()).task()
    client.set("idemwatch:{key}", forged(task, 1, fingerprint="", authority="postgres")[1])
    assert service.check_duplicate("key") is not None, "elsewhere the cache is believed"
    with service.transaction("key") as tx:
        assert not tx.duplicate
        tx.result = 1
    service.engine.close()


def test_a_forged_note_keeps_a_call_from_being_published(
    redis_url: str, client: redis.Redis
) -> None:
    desk = Desk(redis_url, {"idempotency_authority": "redis", "idempotency_redis_url": redis_url})
    name, raw = forged(desk.task, 1, owner="no-such-message")
    client.set(name.replace("{", "{" + _NOTE, 1), raw)
    assert desk.task.delay(1).id == "no-such-message" and desk.messages == 0
    desk.close()


def says_nothing(secret: str) -> None:
    """Its argument is not for others."""


def says(x: int) -> str:
    return f"a result of somebody's {x}"


def test_a_record_keeps_no_arguments(bench: Bench, client: redis.Redis, database_url: str) -> None:
    task = bench.task(says_nothing)
    task.delay("4111-1111-1111-1111")
    (name,) = [one for one in client.scan_iter() if b"workers" not in one]
    assert b"4111" not in name + client.get(name)
    rows = Table(database_url).execute("SELECT r::text FROM idempotency_record AS r")
    assert "4111" not in json.dumps(rows)


def test_results_need_not_be_kept(bench: Bench, client: redis.Redis) -> None:
    bench.app.conf.update(idempotency_max_result_bytes=0)
    task = bench.task(says)
    assert task.delay(1).get() == says(1)
    raw = client.get(f"idemwatch:{{{task.idempotency_key_of(1).key}}}")
    assert isinstance(raw, bytes) and b"somebody" not in raw
    assert decode(raw, "redis", "k").result is None


# -- who can publish a message ---------------------------------------------------------------------


def test_a_forged_user_id_is_believed(bench: Bench) -> None:
    task = bench.task(idempotency_scope="user")
    theirs = task.apply_async((1,), headers={"idempotency_user_id": "them"}).get()
    forged_one = task.apply_async((1,), headers={"idempotency_user_id": "them"})
    assert forged_one.get() == theirs and bench.runs[1] == 1
    assert task.apply_async((1,), headers={"idempotency_user_id": "me"}).get() != theirs


def test_forged_firing_headers_make_another_key_and_nothing_else(bench: Bench) -> None:
    task = bench.task()
    headers = {"idempotency_schedule": "1", "idempotency_due_at": "2026-01-01T00:00:00Z"}
    plain = task.idempotency_call_key((1,)).key
    fired = task.idempotency_call_key((1,), headers=headers).key
    assert fired == f"{plain}:firing=1@2026-01-01T00:00:00Z"
    for odd in ({"idempotency_schedule": "1"}, {"idempotency_due_at": "x"}):
        assert task.idempotency_call_key((1,), headers=odd).key == plain


def test_a_forged_place_does_not_last() -> None:
    """It says that it came a thousand years from now; the next one is newer all the same."""
    now = wall_clock_us()
    liar = Waiter(f"t@{now + 10**15}", now + 10**6)
    record = _held_record(now)._replace(waiters={"liar": liar})
    noted = judge_last(record, _asks("honest", "u"), now).write
    assert noted is not None and noted.waiters["honest"].due_us > now
    assert judge_last(noted, _asks("liar", "t", liar.token), now + 10).answer.superseded


def _asks(task_id: str, token: str, presented: str = "") -> Claim:
    wait = Wait(token, presented)
    return Claim(key="k", owner=task_id, authority="postgres", task_id=task_id, wait=wait)


def _held_record(now: int) -> Record:
    return Record(
        state=State.RUNNING, owner="o", fence=1, due_us=now + HOUR_US, created_us=now, attempt=0,
        crashes=0, authority="postgres", fingerprint="", task_id="holder", endpoint="e",
        scope="global", waiters=NO_WAITERS,
    )  # fmt: skip


# -- who can reach an endpoint ---------------------------------------------------------------------


def test_labels_carry_no_key_argument_result_or_address() -> None:
    labels = {label for entry in catalogue() for label in entry.labels}
    assert not labels & {"key", "args", "kwargs", "user_id", "device_id", "task_id", "url", "owner"}
    assert labels
