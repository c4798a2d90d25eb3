"""Redis under Sentinels: who is followed, what a failover costs and loses, and what it never does.

The whole suite of test_store_conformance.py runs on Sentinels too; here is what is theirs alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from conftest import redis_program
from idemwatch.demo.servers import RedisServer
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.redis_link import CACHE_TIMEOUT_SECONDS, RedisLink
from idemwatch.idempotency.redis_sentinel import SentinelLink
from support import commands
from support.fake_sentinel import FakeSentinel
from support.fleet import Fleet
from support.outages import Setting, open_setting, seconds_of
from support.redis_topologies import Sentinels, open_sentinels
from support.stores import result, several_subject, wait_until

FAIL_OVER_SECONDS = 8.0
"""A failover takes 1-2 s, and the breaker pauses for up to 5 s."""
LEASE_SECONDS = 20.0
"""Longer than a failover, as in real life: else the key is open before the holder can renew."""


@pytest.fixture(scope="module")
def module_servers() -> Iterator[Sentinels]:
    """With passwords of both kinds: they must be used everywhere."""
    with open_sentinels(
        binary=redis_program(), replicas=2, password="of-data", sentinel_password="of-sentinels"
    ) as servers:
        yield servers


@pytest.fixture
def servers(module_servers: Sentinels) -> Iterator[Sentinels]:
    """Three nodes and three sentinels that all live; a test may harm them."""
    module_servers.flush()
    yield module_servers
    for node in (*module_servers.nodes, *module_servers.sentinels):
        node.thaw()
    module_servers.heal()


@pytest.fixture
def by_redis(servers: Sentinels) -> Iterator[Setting]:
    """Authority redis."""
    with open_setting(servers.url, lease_seconds=LEASE_SECONDS) as found:
        yield found


def link_to(servers: Sentinels, **options: Any) -> SentinelLink:
    link = RedisLink.from_url(servers.url, **options)
    assert isinstance(link, SentinelLink)
    return link


def wait_for_claims(setting: Setting) -> float:
    """How long it takes until a claim is answered."""
    began = time.monotonic()
    wait_until(lambda: setting.answers("any"), FAIL_OVER_SECONDS)
    return time.monotonic() - began


# -- failovers -------------------------------------------------------------------------------------


def test_an_orderly_failover_costs_no_error_past_the_first(servers: Sentinels) -> None:
    with ExitStack() as stack:
        subject = several_subject(stack, servers.url, "orderly")
        subject.hold("before")
        servers.wait_until_replicated()
        servers.fail_over(kill=False)
        wait_until(lambda: _answers(subject.store.ping), FAIL_OVER_SECONDS)
        assert subject.ask("before").outcome == "running"
        assert subject.ask("after").granted


def test_after_the_masters_death_claims_go_on_and_nothing_replicated_is_repeated(
    servers: Sentinels, by_redis: Setting
) -> None:
    by_redis.finish("done before")
    with by_redis.service.once("in flight") as work:
        servers.wait_until_replicated()
        old = servers.fail_over()
        spent = wait_for_claims(by_redis)
        assert by_redis.claim("in flight") == "running"
        work.result = "the holder's"
    assert by_redis.finished("in flight") == "the holder's"
    assert by_redis.claim("done before") == "duplicate"
    assert spent < FAIL_OVER_SECONDS and servers.master is not old


def test_lost_writes_repeat_and_a_late_holder_overwrites_nobody(servers: Sentinels) -> None:
    with ExitStack() as stack:
        subject = several_subject(stack, servers.url, "lost")
        subject.finish("kept", b'"kept"')
        servers.wait_until_replicated()
        servers.hold_replication()
        subject.finish("done and lost", b'"first"')
        late = subject.hold("held and lost")
        servers.fail_over()
        wait_until(lambda: _answers(subject.store.ping), FAIL_OVER_SECONDS)
        assert subject.ask("kept").outcome == "duplicate"
        assert subject.ask("done and lost").outcome == "granted"
        successor = subject.hold("held and lost")
        assert successor.fence > late.fence  # though the record was lost
        assert subject.store.renew([late]) == set()
        assert subject.store.complete(late, result(b'"late"')) == "stale"
        assert subject.store.complete(successor, result(b'"second"')) == "stored"
        assert subject.record("held and lost").result == b'"second"'


def test_a_master_that_stood_still_through_a_failover_is_not_asked_again(
    servers: Sentinels,
) -> None:
    """A connection was open all the while, and answers as if nothing had happened."""
    with ExitStack() as stack:
        early = several_subject(stack, servers.url, "split")
        late = several_subject(stack, servers.url, "split")
        early.hold("connects")
        old = servers.fail_over(freeze=True)
        holder = late.hold("work")
        old.thaw()
        wait_until(old.answers)
        assert early.ask("work").outcome == "running"
        assert late.store.complete(holder, result()) == "stored"
        assert early.ask("work").outcome == "duplicate"


# -- whom to believe -------------------------------------------------------------------------------


@pytest.fixture
def three(new_redis: Callable[..., RedisServer]) -> Iterator[tuple[RedisServer, RedisServer, Any]]:
    """Two masters that know nothing of each other, and three sentinels that say what they must."""
    with ExitStack() as stack:
        sentinels = [stack.enter_context(FakeSentinel()) for _ in range(3)]
        yield new_redis(), new_redis(), sentinels


def link_by(sentinels: list[FakeSentinel], clock: Callable[[], float]) -> SentinelLink:
    link = RedisLink.from_url(f"redis+sentinel://{','.join(s.place for s in sentinels)}/m")
    assert isinstance(link, SentinelLink)
    link._clock = clock
    return link


class Clock:
    """Seconds, as many as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def at(server: RedisServer) -> tuple[str, int]:
    return "127.0.0.1", server.port


def test_a_sentinel_that_was_left_behind_is_not_followed_back(three: Any) -> None:
    old, new, sentinels = three
    clock = Clock()
    link = link_by(sentinels, clock)
    for sentinel in sentinels:
        sentinel.names(7, at(new))
    assert link.call("SET", "where", "new") == b"OK" and link.master == at(new)
    for sentinel in sentinels[:2]:
        sentinel.names(6, at(old))
    clock.now += 2
    assert link.call("GET", "where") == b"new"
    link.drop()
    assert link.call("GET", "where") == b"new"
    sentinels[2].names(6, at(old))  # all of them forgot: they were set up anew
    link.drop()
    assert link.call("GET", "where") is None and link.master == at(old)
    link.close()


def test_a_sentinel_that_talks_nonsense_is_passed_over(three: Any) -> None:
    _, new, sentinels = three
    link = link_by(sentinels, Clock())
    sentinels[0].names("many", at(new))
    sentinels[1].names(7, at(new))
    assert link.call("PING") == b"PONG" and link.master == at(new)
    link.close()


def test_an_older_answer_is_not_enough_while_a_sentinel_is_silent(three: Any) -> None:
    old, new, sentinels = three
    link = link_by(sentinels, Clock())
    for sentinel in sentinels:
        sentinel.names(7, at(new))
    link.call("PING")
    for sentinel in sentinels[:2]:
        sentinel.names(6, at(old))
    sentinels[2].__exit__(None, None, None)  # its connections stay open, and are closed by us
    link.sentinels.close()
    link.drop()
    with pytest.raises(StoreUnavailable, match="a master of the past"):
        link.call("PING")
    sentinels[2].__init__()
    sentinels[2].__enter__()
    link.close()


def test_one_that_says_it_is_a_replica_is_not_followed(three: Any) -> None:
    master, replica, sentinels = three
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", master.port)
    sentinels[0].names(1, at(replica))
    for sentinel in sentinels[1:]:
        sentinel.names(1, at(master))
    link = link_by(sentinels, Clock())
    assert link.call("SET", "x", "1") == b"OK" and link.master == at(master)
    link.close()


def test_the_sentinels_are_asked_once_a_second_and_a_new_master_is_followed(three: Any) -> None:
    first, second, sentinels = three
    clock = Clock()
    link = link_by(sentinels, clock)
    for sentinel in sentinels:
        sentinel.names(1, at(first))
    for _ in range(50):
        link.call("SET", "x", "first")
    assert sum(sentinel.times_asked for sentinel in sentinels) == 1
    for sentinel in sentinels:
        sentinel.names(2, at(second))
    assert link.call("GET", "x") == b"first"
    clock.now += 1.1
    assert link.call("GET", "x") is None and link.master == at(second)
    assert sum(sentinel.times_asked for sentinel in sentinels) == 3  # one to notice, one to connect
    link.close()


# -- what is away or stands still ------------------------------------------------------------------


def test_a_frozen_sentinel_costs_its_time_out_once(servers: Sentinels) -> None:
    link = link_to(servers)
    servers.sentinels[0].freeze()
    first = seconds_of(lambda: link.call("PING"))
    link.drop()
    again = seconds_of(lambda: link.call("PING"))
    assert 0.2 < first < 2.0 and again < 0.25, (first, again)
    link.close()


def test_without_any_sentinel_the_master_that_is_known_is_used_on(servers: Sentinels) -> None:
    link = link_to(servers)
    link.call("SET", "x", "1")
    for sentinel in servers.sentinels:
        sentinel.kill()
    link._ask_at = 0.0
    assert link.call("GET", "x") == b"1"
    assert seconds_of(lambda: link.call("GET", "x")) < 0.25
    link.close()


def test_a_frozen_master_costs_a_claim_no_more_than_its_time_outs(servers: Sentinels) -> None:
    link = link_to(servers, timeout_seconds=CACHE_TIMEOUT_SECONDS)
    link.call("PING")
    servers.master.freeze()
    first = seconds_of(lambda: _answers(lambda: link.call("PING")))
    rest = seconds_of(lambda: [_answers(lambda: link.call("PING")) for _ in range(20)])
    assert first < 2.0 and rest < 1.5, (first, rest)
    link.close()


# -- commands, workers, and the exporter -----------------------------------------------------------


def test_an_operator_lists_forgets_and_asks_why(
    shared_sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDEMWATCH_NAMESPACE", "operator")
    option = ("--redis-url", shared_sentinels.url)
    with ExitStack() as stack:
        subject = several_subject(stack, shared_sentinels.url, "operator")
        subject.finish("finished")
        subject.poison("stuck")
        done = commands.invoke("keys", "list", "--format", "json", *option)
        listed = {one["key"]: one["state"] for one in json.loads(done.stdout)}
        assert listed == {"finished": "done", "stuck": "poisoned"}
        assert commands.invoke("keys", "forget", "stuck", "--yes", *option).exit_code == 0
        assert list(subject.store.poisoned()) == []
        assert subject.ask("stuck").granted


def test_the_doctor_counts_sentinels_and_asks_for_a_master_that_notices_it_is_alone(
    shared_sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    told = commands.invoke("doctor", "--redis-url", shared_sentinels.url).output
    assert "3 sentinels watch the master, quorum 2" in told
    assert "min-replicas-to-write is 0, and Redis decides" in told
    (replica,) = shared_sentinels.replicas
    assert f"the clock of the replica 127.0.0.1:{replica.port} is" in told
    with ExitStack() as stack:
        for node in shared_sentinels.nodes:
            node.call("CONFIG", "SET", "min-replicas-to-write", "1")
            stack.callback(node.call, "CONFIG", "SET", "min-replicas-to-write", "0")
        told = commands.invoke("doctor", "--redis-url", shared_sentinels.url).output
    assert "min-replicas-to-write is 1" in told


def test_the_doctor_tells_of_a_sentinel_and_a_replica_that_do_not_answer(
    servers: Sentinels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDEMWATCH_AUTHORITY", "redis")
    replica, sentinel = servers.replicas[0], servers.sentinels[1]
    replica.kill()
    sentinel.kill()
    told = commands.invoke("doctor", "--redis-url", servers.url).output
    assert f"the replica 127.0.0.1:{replica.port} does not tell its clock" in told
    assert f"sentinel 127.0.0.1:{sentinel.port} does not answer" in told
    assert "the clock of Redis is" in told and "of-data" not in told and "of-sent" not in told


@pytest.mark.worker
def test_a_worker_goes_on_through_a_failover(
    servers: Sentinels, new_fleet: Callable[..., Fleet]
) -> None:
    fleet = new_fleet("redis", redis_url=servers.url, idempotency_lease=LEASE_SECONDS)
    label, gate = fleet.label(), fleet.label()
    held = fleet.send("work", label, gate)
    fleet.wait_for_event(label, "start")
    servers.wait_until_replicated()
    servers.fail_over()
    copy = fleet.send("work", label, gate)
    other = fleet.label()
    assert fleet.result(fleet.send("work", other)) == other
    fleet.open(gate)
    assert [fleet.result(held), fleet.result(copy)] == [label, label]
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"] == fleet.events(other)


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except StoreUnavailable:
        return False
    return True
