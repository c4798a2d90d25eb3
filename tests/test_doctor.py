"""`idemwatch doctor` on real servers, a real worker and an app whose tasks have faulty options."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from celery import Celery
from idemwatch.exporter import doctor_postgres_store as store
from idemwatch.exporter.doctor_checks import Places, checks
from idemwatch.exporter.doctor_postgres_store import BEAT_RIGHTS, WORKER_RIGHTS
from idemwatch.exporter.doctor_run import looked
from idemwatch.exporter.worker_directory_store import Facts, WorkerDirectory
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.app_settings import settings_of
from idemwatch.idempotency.redis_link import RedisLink
from prometheus_client.core import CounterMetricFamily
from support.desk import Desk, job
from support.doctor import by_celery, visit
from support.rights import rules
from support.scraping import Start
from support.stores import postgres_subject, redis_subject
from support.table import Table
from support.worker import Worker

ROLE = "doctor_worker"
CALLED = ("ping", "time", "scard", "eval", "evalsha", "zrevrangebyscore", "hstrlen", "hget")
"""All that the doctor must be able to send to Redis, but what claims send: """
CLAIMS = ("get", "getrange", "set", "del")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("IDEMWATCH_", "CELERY_"))]:
        monkeypatch.delenv(variable)


@pytest.fixture
def role_url(database_url: str) -> Iterator[str]:
    """The database as a role sees it that may do what a worker and a beat must, and no more."""
    table = Table(database_url)
    table.execute("REVOKE ALL ON SCHEMA public FROM public")
    table.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'p4ss'")
    table.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    for name, rights in (WORKER_RIGHTS | BEAT_RIGHTS).items():
        table.execute(f"GRANT {rights} ON {name} TO {ROLE}")
    parts = urlsplit(database_url)
    yield parts._replace(netloc=f"{ROLE}:p4ss@{parts.hostname}:{parts.port}").geturl()
    table.execute(f"DROP OWNED BY {ROLE}")
    table.execute(f"DROP ROLE {ROLE}")


# -- an app and its worker -------------------------------------------------------------------------


def test_an_app_with_faulty_tasks_is_told_what_to_change(
    role_url: str, redis_url: str, new_worker: Callable[..., Worker], tmp_path: Any
) -> None:
    conf = {
        "broker_url": redis_url,
        "idempotency_database_url": role_url,
        "idempotency_redis_url": redis_url,
        "idempotency_metrics_address": "127.0.0.1:0",
        "idempotency_metrics_advertise": "127.0.0.1",
        "idempotency_metrics_dir": str(tmp_path),
    }
    new_worker(
        "support.doctor_app", broker=redis_url, backend="cache+memory://", pool="solo",
        env={"DOCTOR_CONF": json.dumps(conf)},
    )  # fmt: skip
    done = by_celery(conf=conf)
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("1 error, 6 warnings, ") and "\x1b" not in done.stdout
    for said in (
        "sick.early: acks_late is off",
        "sick.dropped: reject_on_worker_lost is off",
        "sick.short: idempotency_ttl is shorter",
        "sick.hasty: the lease is longer",
        "sick.far: a retry waits longer",
        "2 of 9 tasks are not idempotent: sick.plain, sick.plain_long",
        "sick.plain_long may take 2.5 h",
        "sick.long may take 2 h",
        f"role {ROLE} may do all that a worker does",
        "workers that go by this host's time: test-",
        "serves at 127.0.0.1:",
        "the broker answers",
    ):
        assert said in done.stdout, said
    assert "p4ss" not in done.stdout


def test_what_runs_took_is_held_against_the_visibility_timeout(
    database_url: str, redis_url: str
) -> None:
    app = Celery("sound", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.idempotency_database_url = database_url
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    app.task(name="one", base=IdempotentTask, shared=False)(job)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state,"
            " owner, task_id, attempt, fence, lease_until, created_at, completed_at, expires_at)"
            " SELECT 'idemwatch:k', 'one', 'global', '', 'postgres', 'done', 'o', 't', 0, 1, now(),"
            " now() - interval '1 hour', now(), now() + interval '1 day'"
        )
    app.conf.broker_url = redis_url
    places = Places(settings=settings_of(app), app=app, jobs=())
    (check,) = (one for one in checks(places) if one.name == "visibility")
    told = "\n".join(one.found for one in looked(check))
    assert "one may take 60 min, longer than the visibility timeout of 100 s" in told
    assert "behind one a message that was fetched ahead may wait 4 h" in told


def test_the_wait_before_a_retry_or_a_takeover_is_no_part_of_a_run(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state,"
            " owner, task_id, attempt, fence, lease_until, created_at, completed_at, expires_at)"
            " SELECT 'idemwatch:k', 'one', 'global', '', 'postgres', 'done', 'o', 't', 3,"
            " extract(epoch FROM now() - interval '5 seconds') * 1000000, now(),"
            " now() - interval '1 hour', now(), now() + interval '1 day'"
        )
    with store.connected(database_url) as connection:
        runs = store.durations(connection, "idemwatch", ["one"])
    assert runs["one"].longest == pytest.approx(5, abs=0.1)


def test_a_session_is_given_back_to_a_pooler_as_it_was(database_url: str) -> None:
    with store.connected(database_url) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM idempotency_record")
        connection.rollback()
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_an_app_whose_options_are_wrong_is_told_and_the_rest_is_looked_at(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery("wrong", broker="memory://", set_as_current=False)
    app.conf.idempotency_database_url = database_url
    app.conf.idempotency_tll = 7
    found = visit(app=app)
    assert found.code == 2 and "did you mean idempotency_ttl?" in found.text("settings", "error")
    assert found.of("broker", "ok") and not found.of("postgres")
    broken = Celery("broken", broker="memory://", include=["no.such.module"], set_as_current=False)
    broken.conf.idempotency_database_url = database_url
    told = visit(app=broken)
    assert "cannot be imported" in told.text("tasks", "error") and told.of("postgres", "ok")
    (tmp_path / "tells_a_secret.py").write_text(
        "raise OSError('cannot reach postgresql://u:s3cret@db/x')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    told = visit(app=Celery("told", include=["tells_a_secret"], set_as_current=False))
    assert "postgresql://***@db/x" in told.text("tasks", "error") and "s3cret" not in told.output
    odd = Celery("odd", broker="memory://", backend="no.such:Backend", set_as_current=False)
    odd.conf.idempotency_database_url = database_url
    told = visit(app=odd)
    assert "configuration cannot be used" in told.text("tasks", "error")
    assert told.of("postgres", "ok") and told.of("broker", "ok")


# -- servers ---------------------------------------------------------------------------------------


def test_sound_servers_have_nothing_to_change(role_url: str, redis_url: str) -> None:
    found = visit("--database-url", role_url, "--redis-url", redis_url)
    assert (found.code, found.bad()) == (0, {}), found.output
    assert "PostgreSQL 1" in found.text("postgres") and "Redis" in found.text("redis")
    assert len(found.of("clocks", "ok")) == 2
    assert found.report["summary"]["error"] == 0 and found.report["exit_code"] == 0


def test_a_role_of_workers_alone_is_no_fault(role_url: str, database_url: str) -> None:
    for name in BEAT_RIGHTS:
        Table(database_url).execute(f"REVOKE ALL ON {name} FROM {ROLE}")
    found = visit("--database-url", role_url)
    assert (found.code, found.bad()) == (0, {}), found.output
    assert "may not read the tables of schedules" in found.text("beats", "info")


def test_rights_that_are_missing_or_too_many_are_named(role_url: str, database_url: str) -> None:
    table = Table(database_url)
    table.execute(f"REVOKE UPDATE ON idempotency_record FROM {ROLE}")
    table.execute(f"REVOKE INSERT ON endpoint_stats FROM {ROLE}")
    table.execute(f"REVOKE SELECT ON schedule_beat FROM {ROLE}")
    found = visit("--database-url", role_url)
    assert found.code == 2
    assert f"role {ROLE} lacks UPDATE on idempotency_record" in found.text("rights", "error")
    assert "lacks INSERT on endpoint_stats" in found.text("rights", "warning")
    assert "lacks rights on schedule_beat" in found.text("rights", "info")
    assert "may not read the tables of schedules" in found.text("beats", "info")
    table.execute(f"ALTER TABLE idempotency_record OWNER TO {ROLE}")
    assert "owns idempotency_record" in visit("--database-url", role_url).text("rights", "info")
    assert "is a superuser" in visit("--database-url", database_url).text("rights", "warning")


def test_a_database_that_is_not_migrated_is_one_error(empty_database_url: str) -> None:
    found = visit("--database-url", empty_database_url)
    assert found.code == 2 and "not migrated" in found.text("migrations", "error")
    assert "run `idemwatch db upgrade`" in found.text("migrations")
    assert found.of("postgres", "ok") and not found.of("rights", "error")


def test_poisoned_keys_and_records_that_nobody_purges_are_counted(
    role_url: str, database_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        postgres_subject(stack, database_url, "idemwatch").poison("a")
        postgres_subject(stack, database_url, "another").poison("b")
        redis_subject(stack, redis_url).poison("c")
    Table(database_url).execute(
        "INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state,"
        " owner, task_id, attempt, fence, lease_until, expires_at)"
        " SELECT 'idemwatch:' || n, 'e', 'global', '', 'postgres', 'done', 'o', '', 0, 1, now(),"
        " now() - interval '25 hours' FROM generate_series(1, 10001) AS n"
    )
    found = visit("--database-url", role_url, "--redis-url", redis_url)
    assert found.code == 1
    told = found.text("records", "warning")
    assert "1 poisoned key in PostgreSQL" in told and "idemwatch keys why KEY" in told
    assert "10,000 records or more expired over 24 h ago" in told
    assert "no poisoned key in Redis" in found.text("records", "ok"), "another namespace's"


def test_schedules_without_a_live_beat_are_an_error(desk: Desk) -> None:
    desk.add()
    found = visit("--database-url", desk.database_url)
    assert "1 active schedules in the table, and no beat" in found.text("beats", "error")
    desk.beats[0].tick()
    assert "1 live" in visit("--database-url", desk.database_url).text("beats", "ok")


def test_a_redis_that_decides_must_keep_what_it_has(
    new_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb", "requirepass": "hush"}
    server = new_redis(config=config)
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    found = visit("--redis-url", server.url)
    assert found.code == 2 and "hush" not in found.output
    assert "maxmemory-policy is allkeys-lru" in found.text("redis", "error")
    assert "nothing is saved to disk" in found.text("redis", "warning")
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "postgres")
    cache = visit("--redis-url", server.url)
    assert cache.of("redis", "warning") == cache.of("redis", "error") == []
    assert "idempotency_database_url is not set" in cache.text("settings", "error")


def test_a_redis_that_may_not_tell_is_not_blamed(
    new_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_redis()
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser(
            "w", enabled=True, passwords=["+pw"], keys=["idemwatch:*"], reset=True,
            commands=[f"+{one}" for one in (*CALLED, *CLAIMS)],
        )  # fmt: skip
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    found = visit("--redis-url", f"redis://w:pw@127.0.0.1:{server.port}/0")
    assert (found.code, found.bad()) == (0, {}), found.output
    assert "does not tell its version" in found.text("redis", "info")


def test_the_rights_of_a_worker_are_enough(
    new_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_redis(config={"appendonly": "yes"})
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "w", *rules("worker"), ">pw")
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    found = visit("--redis-url", f"redis://w:pw@127.0.0.1:{server.port}/0")
    assert (found.code, found.bad()) == (0, {}), found.output
    assert "SCARD is refused" in found.text("records", "info")
    assert "may not ask" in found.text("metrics", "info")


def test_a_redis_that_would_refuse_claims_is_an_error_where_it_decides(
    new_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_redis()
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser(
            "w", enabled=True, passwords=["+pw"], keys=["idemwatch:*"], reset=True,
            commands=[f"+{one}" for one in CALLED if one != "ping"],
        )  # fmt: skip
        limited = f"redis://w:pw@127.0.0.1:{server.port}/0"
        cache = visit("--redis-url", limited)
        monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
        assert "no work with authority redis" in visit("--redis-url", limited).text(
            "redis", "error"
        )
        client.config_set("maxmemory", "1")
        full = visit("--redis-url", server.url)
        client.config_set("maxmemory", "0")
        assert visit("--redis-url", server.url).of("redis", "error") == []
        assert client.dbsize() == 0
    assert "answers each duplicate itself" in cache.text("redis", "warning")
    assert cache.of("redis", "error") == []
    assert "OOM" in full.text("redis", "error") or "maxmemory" in full.text("redis", "error")


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_of_registered_workers_are_fetched(redis_url: str, start: Start) -> None:
    ours = start(collect=lambda: [CounterMetricFamily("idemwatch_things", "Things", value=1)])
    target, strange = (one.url.removeprefix("http://") for one in (ours, start()))
    told = {"good@x": target, "strange@x": strange, "gone@x": "127.0.0.1:1", "own@x": None}
    directory = WorkerDirectory(RedisLink.from_url(redis_url), "idemwatch")
    for node, where in told.items():
        directory.register(Facts(node, where, "http", 1, node))
    directory.close()
    found = visit("--redis-url", redis_url)
    assert f"good@x serves at {target}" in found.text("metrics", "ok")
    assert f"http://{strange}/metrics are no metrics of idemwatch" in found.text("metrics", "error")
    assert "metrics of gone@x are not reached" in found.text("metrics", "error")
    assert "own@x serves its metrics for its own host only" in found.text("metrics", "info")


def test_a_worker_that_was_not_seen_lately_is_told(redis_url: str) -> None:
    directory = WorkerDirectory(RedisLink.from_url(redis_url), "idemwatch")
    directory.register(Facts("dead@x", None, "http", 1, "i"))
    directory.close()
    ago = timedelta(seconds=100) // timedelta(microseconds=1)
    with redis.Redis.from_url(redis_url) as client:
        client.zincrby("idemwatch:{workers}:seen", -ago, "dead@x")
    assert "not seen for 45 s: dead@x" in visit("--redis-url", redis_url).text("metrics", "warning")
