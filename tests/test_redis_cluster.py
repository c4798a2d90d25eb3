"""Redis Cluster: keys in three places, slots that move, nodes that die; alone and with replicas.

The whole suite of test_store_conformance.py runs on a Cluster too; here is what is its alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest
import redis
from conftest import redis_program
from idemwatch.exporter.poisoned_collector import PoisonedCollector
from idemwatch.exporter.store_collector import redis_collector
from idemwatch.exporter.worker_directory_store import Facts, WorkerDirectory
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_cluster import ClusterLink
from idemwatch.idempotency.redis_link import CACHE_TIMEOUT_SECONDS, RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from support import commands
from support.fleet import Fleet
from support.outages import open_setting, seconds_of
from support.redis_nodes import Node
from support.redis_topologies import Cluster, open_cluster
from support.stores import DEADLINE_SECONDS, Subject, result, several_subject, wait_until

FAIL_OVER_SECONDS = 12.0
"""A node is given up after a second, voting takes one or two, and the breaker pauses up to 5 s."""
PASSWORD = "of-data"


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[Cluster]:
    """Three masters without replicas; one that dies takes its own slots with it, no more."""
    config = {"cluster-require-full-coverage": "no"}
    with open_cluster(binary=redis_program(), password=PASSWORD, config=config) as servers:
        yield servers


@pytest.fixture
def servers(module_cluster: Cluster) -> Iterator[Cluster]:
    """The same, empty and whole; a test may move slots, freeze and kill."""
    module_cluster.flush()
    yield module_cluster
    for node in module_cluster.nodes:
        node.thaw()
        if not node.answers():
            node.restart()
    module_cluster.wait_until_ok()


@pytest.fixture
def subject(servers: Cluster) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield several_subject(stack, servers.url, "test")


def keys_on(servers: Cluster, node: Node, count: int = 1, head: str = "key") -> list[str]:
    """Keys of namespace `test` whose records a node has."""
    found: list[str] = []
    slots = servers.slots()
    number = 0
    while len(found) < count:
        key = f"{head}{number}"
        if servers.owner(f"test:{{{key}}}", slots) is node:
            found.append(key)
        number += 1
    return found


def moved_to(servers: Cluster, key: str) -> tuple[str, Node]:
    """The Redis key of a key, and a node that does not have it."""
    name = f"test:{{{key}}}"
    owner = servers.owner(name)
    return name, next(node for node in servers.masters if node is not owner)


# -- slots that move -------------------------------------------------------------------------------


def test_a_slot_that_has_moved_is_followed_and_then_known(
    servers: Cluster, subject: Subject
) -> None:
    held = subject.hold("work")
    name, other = moved_to(servers, "work")
    servers.move(name, other)
    assert subject.ask("work").outcome == "running"
    assert subject.store.renew([held]) == {held.claim.owner}
    assert subject.store.complete(held, result()) == "stored"
    errors = _refusals(servers, "MOVED")
    assert subject.ask("work").outcome == "duplicate"
    assert _refusals(servers, "MOVED") == errors


def test_while_a_slot_moves_its_keys_are_found_on_both_sides(
    servers: Cluster, subject: Subject
) -> None:
    held = subject.hold("work")
    name, other = moved_to(servers, "work")
    source = servers.owner(name)
    slot = servers.begin_move(name, other)
    assert subject.ask("work").outcome == "running"  # ASK: it is there already
    assert subject.store.renew([held]) == {held.claim.owner}
    assert subject.ask("work}2").granted  # of the same slot, and new: made on the other side
    with pytest.raises(redis.ResponseError, match=r"ASK|127\.0\.0\.1"):
        source.call("GET", "test:{work}2}")
    assert subject.store.complete(held, result()) == "stored"
    servers.end_move(slot, other)
    assert subject.ask("work").outcome == "duplicate"
    assert subject.ask("work}2").outcome == "running"


def test_a_key_that_was_not_moved_yet_is_answered_where_it_is(
    servers: Cluster, subject: Subject
) -> None:
    held = subject.hold("work")
    name, other = moved_to(servers, "work")
    slot = servers.begin_move(name, other, keys=False)
    assert subject.ask("work").outcome == "running"
    assert subject.store.complete(held, result()) == "stored"
    servers.end_move(slot, other)
    assert subject.ask("work").outcome == "duplicate"


def test_a_lock_is_handed_over_while_its_slot_moves(servers: Cluster) -> None:
    name, other = moved_to(servers, "lock:stock")
    entered = threading.Event()
    with open_setting(servers.url) as setting, ThreadPoolExecutor(1) as pool:

        def enter() -> int:
            with setting.service.lock("stock", DEADLINE_SECONDS) as lease:
                entered.set()
                return lease.fence

        with setting.service.lock("stock", DEADLINE_SECONDS) as lease:
            waiter = pool.submit(enter)
            slot = servers.begin_move(name, other)
            assert not entered.is_set()
        servers.end_move(slot, other)
        assert waiter.result(DEADLINE_SECONDS) > lease.fence


# -- batches ---------------------------------------------------------------------------------------


def test_one_batch_renews_leases_of_all_nodes_also_behind_a_moved_slot(
    servers: Cluster, subject: Subject
) -> None:
    held = [subject.hold(f"work{n}") for n in range(12)]
    owners = {one.claim.owner for one in held}
    assert subject.store.renew(held) == owners
    name, other = moved_to(servers, "work3")
    servers.move(name, other)
    other.call("SCRIPT", "FLUSH")
    assert subject.store.renew(held) == owners


def test_a_dead_node_does_not_keep_the_others_from_being_renewed(
    servers: Cluster, subject: Subject
) -> None:
    dead, living = servers.masters[0], servers.masters[1]
    (gone,), (kept,) = keys_on(servers, dead), keys_on(servers, living)
    held = [subject.hold(gone), subject.hold(kept, lease_us=5_000_000)]
    before = subject.record(kept).due_us
    dead.kill()
    with pytest.raises(StoreUnavailable):  # whether the first is still held, nobody knows
        subject.store.renew(held)
    assert subject.record(kept).due_us > before


def test_an_emptied_list_of_leases_asks_nobody(subject: Subject) -> None:
    assert subject.store.renew([]) == set()


# -- nodes that die --------------------------------------------------------------------------------


def test_a_dead_node_makes_its_own_keys_unavailable_and_no_others(
    servers: Cluster, subject: Subject
) -> None:
    dead, living = servers.masters[0], servers.masters[1]
    gone, kept = keys_on(servers, dead, 30), keys_on(servers, living, 30)
    subject.hold(kept[0])
    dead.kill()
    with pytest.raises(StoreUnavailable):
        subject.ask(gone[0])
    spent = seconds_of(lambda: [_refused(partial(subject.ask, key)) for key in gone])
    assert all(subject.ask(key).granted for key in kept[1:])
    assert spent < 2.0, spent
    collector = redis_collector(RedisLink.from_url(servers.url))
    with pytest.raises(StoreUnavailable):
        collector.collect()
    collector.close()
    dead.restart()
    wait_until(lambda: not _refused(lambda: subject.ask(gone[1])), FAIL_OVER_SECONDS)


def test_a_frozen_node_costs_its_own_keys_the_time_outs_of_one_call(servers: Cluster) -> None:
    link = RedisLink.from_url(servers.url, timeout_seconds=CACHE_TIMEOUT_SECONDS)
    store = RedisStore(link, "test")
    frozen, living = servers.masters[0], servers.masters[1]
    slow, quick = keys_on(servers, frozen, 20), keys_on(servers, living, 20)
    for key in (slow[0], quick[0]):
        store.find(key)
    frozen.freeze()
    first = seconds_of(lambda: _refused(lambda: store.find(slow[0])))
    rest = seconds_of(lambda: [_refused(partial(store.find, key)) for key in slow])
    others = seconds_of(lambda: [store.find(key) for key in quick])
    assert first < 2.0 and rest < 1.5 and others < 0.5, (first, rest, others)
    store.close()


def test_a_replica_takes_over_and_claims_go_on() -> None:
    with open_cluster(binary=redis_program(), replicas=1) as servers, ExitStack() as stack:
        subject = several_subject(stack, servers.url, "test")
        master = servers.masters[0]
        done, held, new = keys_on(servers, master, 3)
        subject.finish(done)
        holder = subject.hold(held, lease_us=60_000_000)
        servers.wait_until_replicated(master)
        servers.fail_over(master)
        wait_until(lambda: not _refused(lambda: subject.ask(new)), FAIL_OVER_SECONDS)
        assert subject.ask(done).outcome == "duplicate"
        assert subject.store.renew([holder]) == {holder.claim.owner}
        assert subject.store.complete(holder, result()) == "stored"


# -- what is asked of all nodes --------------------------------------------------------------------


def test_an_operator_sees_the_keys_of_all_nodes(
    servers: Cluster, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "test")
    option = ("--redis-url", servers.url)
    names = {f"work{n}" for n in range(9)}
    for name in names:
        subject.finish(name)
    for number in range(3):
        subject.poison(f"stuck{number}")
    assert len({servers.owner(f"test:{{{name}}}").port for name in names}) == 3
    done = commands.invoke("keys", "list", "--state", "done", "--format", "json", *option)
    assert {one["key"] for one in json.loads(done.stdout)} == names
    assert sorted(subject.store.poisoned()) == ["stuck0", "stuck1", "stuck2"]
    collector = PoisonedCollector(RedisLink.from_url(servers.url), "test")
    assert [sample.value for sample in collector.collect()[0].samples] == [3]
    collector.close()
    assert commands.invoke("keys", "forget", "stuck0", "work1", "--yes", *option).exit_code == 0
    assert sorted(subject.store.poisoned()) == ["stuck1", "stuck2"]
    assert subject.ask("work1").granted
    why = commands.invoke("keys", "why", "work", *option)
    assert why.exception is None or isinstance(why.exception, SystemExit)
    assert "work8" in why.output


def test_the_directory_of_workers_is_on_one_node(servers: Cluster) -> None:
    directory = WorkerDirectory(RedisLink.from_url(servers.url), "test")
    facts = Facts("w@h", "10.0.0.1:9100", "http", 4, "i1")
    assert directory.register(facts)
    assert [one.node for one in directory.workers()] == ["w@h"]
    assert directory.remove(facts) and directory.workers() == []
    directory.close()


def test_the_doctor_looks_at_each_node_and_at_a_url_of_one_alone(
    servers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    nodes = [f"127.0.0.1:{node.port}" for node in servers.masters]
    servers.masters[1].call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        done = commands.invoke("doctor", "--redis-url", servers.url)
    finally:
        servers.masters[1].call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert "3 masters serve all slots of the cluster" in done.output
    assert f"masters without a replica: {', '.join(nodes)}" in done.output
    evicts = [line for line in done.output.splitlines() if "allkeys-lru" in line]
    assert len(evicts) == 1 and f"({nodes[1]})" in evicts[0]
    alone = commands.invoke("doctor", "--redis-url", servers.nodes[0].url)
    assert alone.exit_code == 2 and PASSWORD not in alone.output
    assert "write idempotency_redis_url as redis+cluster://host:6379" in alone.output


def test_a_claim_at_a_node_alone_says_what_url_to_write(servers: Cluster) -> None:
    link = RedisLink.from_url(servers.nodes[0].url)
    key = keys_on(servers, servers.nodes[1])[0]
    with pytest.raises(StoreUnavailable, match=r"written redis\+cluster://host:6379"):
        RedisStore(link, "test").find(key)
    link.close()


def test_a_url_of_a_cluster_that_leads_to_none_says_so(redis_url: str) -> None:
    link = RedisLink.from_url(redis_url.replace("redis://", "redis+cluster://").rpartition("/")[0])
    assert isinstance(link, ClusterLink)
    with pytest.raises(StoreUnavailable, match="cluster support disabled"):
        link.call("GET", "x")
    link.close()


@pytest.mark.worker
def test_workers_do_each_piece_once_while_slots_move(
    servers: Cluster, new_fleet: Callable[..., Fleet]
) -> None:
    fleet = new_fleet("redis", redis_url=servers.url, idempotency_lease=20)
    gate, labels = fleet.label(), [fleet.label() for _ in range(6)]
    held = fleet.send("work", labels[0], gate)
    fleet.wait_for_event(labels[0], "start")
    name = f"idemwatch:{{{fleet.key('work', labels[0], gate)}}}"
    source = servers.owner(name)
    servers.move(name, next(node for node in servers.masters if node is not source))
    copies = [fleet.send("work", label) for label in labels[1:] * 2]
    assert [fleet.result(copy) for copy in copies] == labels[1:] * 2
    fleet.open(gate)
    assert fleet.result(held) == labels[0]
    fleet.wait_for_idle()
    assert [fleet.events(label) for label in labels] == [["start", "end"]] * 6


def _refusals(servers: Cluster, kind: str) -> int:
    told = [node.info("errorstats").get(f"errorstat_{kind}") for node in servers.nodes]
    return sum(one["count"] for one in told if one)


def _refused(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except StoreUnavailable:
        return True
    return False
