"""Real workers in the directory: listed where they serve, for as long as they live."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter.registration import (
    SETTING,
    begin,
)
from idemwatch.exporter.service_discovery import target_groups
from idemwatch.exporter.worker_collector import LIVE_SECONDS, WorkerCollector
from idemwatch.exporter.worker_directory_store import Listed, WorkerDirectory
from idemwatch.idempotency.redis_link import RedisLink
from support.promtool import told
from support.stores import wait_until
from support.worker import Worker, start_worker

NAMESPACE = "registered"
SEEN = f"{NAMESPACE}:{{workers}}:seen"
APP = "support.metered_app"
NewWorker = Callable[..., Worker]
needs_worker = pytest.mark.worker


@pytest.fixture
def directory(redis_url: str) -> Iterator[WorkerDirectory]:
    directory = WorkerDirectory(RedisLink.from_url(redis_url), NAMESPACE)
    yield directory
    directory.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def started(new_worker: NewWorker, redis_url: str, tmp_path: Path) -> Callable[..., Worker]:
    def start(**options: Any) -> Worker:
        env = {
            "METERED_BY": "line",
            "IDEMWATCH_METRICS_DIR": str(tmp_path),
            "IDEMWATCH_REDIS_URL": redis_url,
            "IDEMWATCH_NAMESPACE": NAMESPACE,
            "IDEMWATCH_METRICS_ADVERTISE": "127.0.0.1",
            **options.pop("env", {}),
        }
        broker = options.pop("broker", redis_url)
        return new_worker(APP, broker=broker, backend=broker, env=env, **options)

    return start


def only(directory: WorkerDirectory) -> Listed:
    wait_until(lambda: len(directory.workers()) == 1, 60)
    return directory.workers()[0]


@needs_worker
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_worker_is_listed_where_it_serves_until_it_ends_in_order(
    started: Callable[..., Worker], directory: WorkerDirectory, tmp_path: Path, pool: str
) -> None:
    worker = started(pool=pool, concurrency=3)
    found = only(directory)
    (group,) = target_groups([found])
    (target,) = group["targets"]
    url = (tmp_path / worker.nodename / "url").read_text().strip()
    assert url == f"http://{target}" and found.node == worker.nodename
    assert found.concurrency == (1 if pool == "solo" else 3)
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        assert b"idemwatch_worker_tasks" in answer.read()
    worker.stop()
    assert directory.workers() == []


@needs_worker
def test_a_worker_that_is_killed_stays_listed_and_expected(
    started: Callable[..., Worker], directory: WorkerDirectory, client: redis.Redis
) -> None:
    worker = started()
    target = only(directory).target
    worker.kill()
    client.zincrby(SEEN, -LIVE_SECONDS * 1_000_000, worker.nodename)
    collector = WorkerCollector(directory)
    found = told(collector.collect())
    assert (found["workers"], found["workers_expected"]) == ({(): 0}, {(): 1})
    assert [group["targets"] for group in target_groups(collector.listed() or ())] == [[target]]


@needs_worker
def test_only_the_main_process_registers_and_children_that_are_replaced_do_not(
    started: Callable[..., Worker], directory: WorkerDirectory, client: redis.Redis
) -> None:
    worker = started(concurrency=2)
    only(directory)
    facts = client.hgetall(f"{NAMESPACE}:{{workers}}:facts")
    old = set(worker.children())
    for pid in old:
        os.kill(pid, 9)
    worker.wait_for(lambda: len(set(worker.children()) - old) == 2, "the children were replaced")
    assert client.hgetall(f"{NAMESPACE}:{{workers}}:facts") == facts, "the instance is the same"
    assert worker.log.count("registered for service discovery") == 1
    worker.stop()
    assert directory.workers() == []


@needs_worker
def test_a_cold_shutdown_takes_the_worker_out_too(
    started: Callable[..., Worker], directory: WorkerDirectory
) -> None:
    worker = started()
    only(directory)
    os.kill(worker.pid, 3)
    worker.wait_for_end()
    assert directory.workers() == []


@needs_worker
def test_a_restarted_consumer_does_not_register_twice(
    started: Callable[..., Worker],
    directory: WorkerDirectory,
    new_redis: Callable[..., RedisServer],
) -> None:
    broker = new_redis()
    worker = started(broker=broker.database(0))
    first = only(directory)
    broker.kill()
    worker.wait_for_log("consumer: Connection to broker lost")
    broker.restart()
    worker.wait_for_log("Connected to redis", times=2)
    second = only(directory)
    assert (second.node, second.target) == (first.node, first.target)
    assert worker.log.count("registered for service discovery") == 1


@needs_worker
def test_a_worker_starts_without_its_redis_and_registers_when_it_comes(
    started: Callable[..., Worker], new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    url = server.database(0)
    server.kill()
    worker = started(env={"IDEMWATCH_REDIS_URL": url})
    worker.wait_for_log("redis is left out for a moment")
    server.restart()
    directory = WorkerDirectory(RedisLink.from_url(url), NAMESPACE)
    assert only(directory).node == worker.nodename
    assert worker.log.count("redis is left out for a moment") == 1
    directory.close()


@needs_worker
def test_a_worker_that_listens_for_itself_only_counts_and_is_not_listed(
    started: Callable[..., Worker], directory: WorkerDirectory
) -> None:
    worker = started(env={"IDEMWATCH_METRICS_ADVERTISE": ""})
    found = only(directory)
    assert found.target is None and target_groups([found]) == []
    worker.wait_for_log(f"set {SETTING} to the HOST")


@needs_worker
def test_without_a_redis_url_nothing_is_registered(
    started: Callable[..., Worker], client: redis.Redis
) -> None:
    worker = started(env={"IDEMWATCH_REDIS_URL": ""})
    worker.wait_for_log("metrics are served at")
    worker.stop()
    assert client.exists(SEEN) == 0 and "service discovery" not in worker.log


@needs_worker
def test_a_wrong_address_to_advertise_stops_the_worker(redis_url: str, tmp_path: Path) -> None:
    env = {"METERED_BY": "line", "IDEMWATCH_METRICS_ADVERTISE": "http://me"}
    folder = tmp_path / "worker"
    folder.mkdir()
    with pytest.raises(Exception, match=f"{SETTING}: 'http://me' is not HOST or HOST:PORT"):
        start_worker(APP, broker=redis_url, backend=redis_url, folder=folder, env=env)


def test_what_stands_in_redis_holds_no_secret(
    redis_url: str, directory: WorkerDirectory, client: redis.Redis
) -> None:
    running = begin(
        redis_url, NAMESPACE, node="n", advertised="h", listens=("127.0.0.1", 1), scheme="http",
        concurrency=lambda: 3,
    )  # fmt: skip
    wait_until(lambda: len(directory.workers()) == 1)
    facts = json.loads(client.hget(f"{NAMESPACE}:{{workers}}:facts", "n") or "")
    assert set(facts) == {"target", "scheme", "concurrency", "instance"}
    running.stop()
