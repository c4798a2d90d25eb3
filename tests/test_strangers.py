"""What strangers left in Redis, case 17: refused, counted, left as it is, and never run blindly."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from idemwatch.idempotency import IdempotencyService
from idemwatch.idempotency.engine import close_engines, engine_for
from idemwatch.idempotency.errors import UnreadableRecord
from idemwatch.idempotency.memory_store import MemoryStore
from support.eager import Bench, claims
from support.services import counted
from support.stores import KEY

Put = Callable[[redis.Redis, str], object]

STRANGE: dict[str, Put] = {
    "text": lambda client, name: client.set(name, "locked by another library"),
    "pickle": lambda client, name: client.set(name, pickle.dumps({"status": "done"})),
    "newer version": lambda client, name: client.set(name, "iw2 owner 1 done of the future"),
    "list": lambda client, name: client.rpush(name, "x"),
    "hash": lambda client, name: client.hset(name, "owner", "x"),
}
each = pytest.mark.parametrize("put", STRANGE.values(), ids=STRANGE)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    """Tasks of authority redis."""
    bench = Bench(MemoryStore())
    bench.app.conf.update(idempotency_redis_url=redis_url, idempotency_authority="redis")
    yield bench
    close_engines()


def name_of(task: Any) -> str:
    return f"idemwatch:{{{task.idempotency_key_of('a').key}}}"


def errors() -> float:
    return counted("store_errors_total", store="redis", operation="claim")


@each
def test_a_task_is_refused_and_the_value_stays(bench: Bench, client: redis.Redis, put: Put) -> None:
    task, before = bench.task(), errors()
    put(client, name_of(task))
    left = client.dump(name_of(task))
    with pytest.raises(UnreadableRecord):
        task.delay("a")
    assert bench.runs == {} and client.dump(name_of(task)) == left
    assert claims(task, "unavailable") == 1 and errors() == before + 1


@each
def test_work_of_a_service_is_refused(bench: Bench, client: redis.Redis, put: Put) -> None:
    service, ran = IdempotencyService.from_app(bench.app), []
    name, before = f"idemwatch:{{{KEY}}}", counted_unavailable()
    put(client, name)
    left = client.dump(name)
    with pytest.raises(UnreadableRecord), service.once(KEY):
        ran.append(1)
    with pytest.raises(UnreadableRecord):
        service.check_duplicate(KEY)
    with pytest.raises(UnreadableRecord):
        service.store_result(KEY, 1)
    assert ran == [] and client.dump(name) == left
    assert counted_unavailable() == before + 1


def counted_unavailable() -> float:
    return counted("claims_total", task="service", scope="global", outcome="unavailable")


@each
def test_a_lock_is_refused(bench: Bench, client: redis.Redis, put: Put) -> None:
    service, name = IdempotencyService.from_app(bench.app), "idemwatch:{lock:stock}"
    put(client, name)
    left = client.dump(name)
    with pytest.raises(UnreadableRecord), service.lock("stock", timeout=5):
        pytest.fail("a lock over what cannot be read")
    assert client.dump(name) == left


@each
def test_a_refusal_leaves_nothing_to_try_for_ever(
    bench: Bench, client: redis.Redis, put: Put
) -> None:
    """Whatever stands there, it is no claim of ours that must be undone."""
    task = bench.task()
    put(client, name_of(task))
    with pytest.raises(UnreadableRecord):
        task.delay("a")
    (engine,) = {engine_for(task.idempotency.settings)}
    assert not any(heartbeat._errands for heartbeat in engine._heartbeats.values())


@each
def test_other_keys_go_on(bench: Bench, client: redis.Redis, put: Put) -> None:
    task, before = bench.task(), counted("circuit_open", store="redis")
    put(client, name_of(task))
    with pytest.raises(UnreadableRecord):
        task.delay("a")
    assert task.delay("b").get() == task.delay("b").get() == ["b", 1]
    assert counted("circuit_open", store="redis") == before


@each
def test_a_holder_whose_key_a_stranger_took_does_not_write_over_it(
    bench: Bench, client: redis.Redis, put: Put
) -> None:
    service, name = IdempotencyService.from_app(bench.app), f"idemwatch:{{{KEY}}}"
    with pytest.raises(RuntimeError, match="gives up"), service.once(KEY):
        client.delete(name)
        put(client, name)
        left = client.dump(name)
        raise RuntimeError("gives up")
    assert client.dump(name) == left


@each
def test_one_strange_key_does_not_keep_other_leases_from_renewal(
    bench: Bench, client: redis.Redis, put: Put
) -> None:
    service = IdempotencyService.from_app(bench.app)
    with service.lock("stock") as taken, service.lock("other") as kept:
        heartbeat = service.engine.heartbeat(kept.store)
        name = "idemwatch:{lock:stock}"
        client.delete(name)
        put(client, name)
        for lease in (taken, kept):
            lease.renewed_at -= lease.seconds / 2
        renewed_at = kept.renewed_at
        heartbeat.beat()
        assert kept.renewed_at > renewed_at
        kept.check()
        client.delete(name)


@each
def test_forget_takes_it_away(bench: Bench, client: redis.Redis, put: Put) -> None:
    task = bench.task()
    put(client, name_of(task))
    assert task.idempotency.forget(task.idempotency_key_of("a").key) is not None
    assert task.delay("a").get() == ["a", 1]
