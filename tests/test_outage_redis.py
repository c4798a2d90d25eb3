"""Redis killed, frozen, emptied, and failed over: what each authority then still promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
import redis
from idemwatch.demo.servers import PostgresServer, RedisServer
from idemwatch.idempotency.errors import StoreUnavailable
from support.outages import LEASE_SECONDS, Setting, open_setting, seconds_of
from support.proxy import TcpProxy
from support.stores import wait_until

NewRedis = Callable[..., RedisServer]


@pytest.fixture
def server(new_redis: NewRedis) -> RedisServer:
    return new_redis()


@pytest.fixture
def by_postgres(server: RedisServer, database_url: str) -> Iterator[Setting]:
    """Authority postgres, with a Redis of its own."""
    with open_setting(server.url, database_url) as found:
        yield found


@pytest.fixture
def by_redis(server: RedisServer) -> Iterator[Setting]:
    """Authority redis."""
    with open_setting(server.url) as found:
        yield found


def keys(server: RedisServer) -> list[bytes]:
    """All keys of a Redis, asked directly."""
    with redis.Redis.from_url(server.url) as client:
        return list(client.scan_iter())


def sets(server: RedisServer) -> int:
    """How many SET commands a Redis has run, those of scripts too."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"])


# -- authority postgres: nothing changes but speed ---------------------------------------------


def test_postgresql_goes_on_while_redis_is_a_closed_port(
    by_postgres: Setting, server: RedisServer
) -> None:
    by_postgres.finish("done before")
    server.kill()
    assert by_postgres.finished("done before") == "first"
    with by_postgres.service.once("new") as work:
        work.result = "second"
    assert by_postgres.finished("new") == "second"
    with by_postgres.service.once("new") as work:
        assert work.duplicate and work.result == "second"


def test_a_claim_takes_less_than_50_ms_once_the_breaker_is_open(
    by_postgres: Setting, server: RedisServer
) -> None:
    server.kill()
    by_postgres.finished("opens the breaker")
    spent = sorted(seconds_of(partial(by_postgres.claim, f"key{n}")) for n in range(20))
    assert spent[10] < 0.05, spent


def test_a_frozen_redis_costs_one_time_out_and_not_one_a_claim(
    by_postgres: Setting, server: RedisServer
) -> None:
    by_postgres.finished("connects")
    server.freeze()
    first = seconds_of(lambda: by_postgres.claim("first"))
    rest = seconds_of(lambda: [by_postgres.claim(f"key{n}") for n in range(10)])
    server.thaw()
    assert first < 1.5, first
    assert rest < 1.5, rest


def test_a_redis_that_is_back_is_used_again(by_postgres: Setting, server: RedisServer) -> None:
    server.kill()
    by_postgres.finish("work")
    server.restart()

    def cached() -> bool:
        by_postgres.claim("work")
        return keys(server) != []

    wait_until(cached)


def test_an_emptied_redis_repeats_nothing(by_postgres: Setting, server: RedisServer) -> None:
    by_postgres.finish("work")
    server.restart(empty=True)
    assert by_postgres.claim("work") == "duplicate"


def test_a_stale_cache_does_not_outlive_a_transaction_that_postgresql_lost(
    by_postgres: Setting, server: RedisServer, database_url: str
) -> None:
    with by_postgres.service.transaction("paid") as tx:
        tx.result = 1
    assert keys(server) == []
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM idempotency_record")
    with by_postgres.service.transaction("paid") as tx:
        assert not tx.duplicate


# -- authority redis: away is unavailable, emptied may repeat ----------------------------------


@pytest.mark.parametrize("failure", ["kill", "freeze"])
def test_without_its_redis_a_key_is_unavailable(
    by_redis: Setting, server: RedisServer, failure: str
) -> None:
    by_redis.finish("done before")
    getattr(server, failure)()
    with pytest.raises(StoreUnavailable, match="redis"), by_redis.service.once("new"):
        pytest.fail("it ran without a decision")
    with pytest.raises(StoreUnavailable, match="redis"):
        by_redis.service.check_duplicate("done before")


def test_a_restart_that_kept_the_data_repeats_nothing(
    by_redis: Setting, server: RedisServer
) -> None:
    by_redis.finish("work")
    server.restart(empty=False)
    wait_until(lambda: by_redis.answers("work"))
    assert by_redis.claim("work") == "duplicate"


def test_a_holder_whose_redis_was_emptied_writes_its_result_again(
    by_redis: Setting, server: RedisServer
) -> None:
    with by_redis.service.once("work") as work:
        server.restart(empty=True)
        work.result = "kept"
    wait_until(lambda: by_redis.answers("work"))
    assert by_redis.finished("work") == "kept"


def test_a_fence_grows_though_the_record_was_lost(by_redis: Setting, server: RedisServer) -> None:
    with by_redis.service.once("work") as first:
        server.restart(empty=True)
        wait_until(lambda: by_redis.answers("other"))
        with by_redis.service.once("work") as second:
            assert second.fence > first.fence
            second.result = "the successor's"
    assert by_redis.finished("work") == "the successor's"


def test_the_last_writes_lost_in_a_failover_repeat_and_never_replay_wrongly(
    by_redis: Setting,
    server: RedisServer,
) -> None:
    by_redis.finish("kept")
    server.restart(empty=False)  # what a replica has
    wait_until(lambda: by_redis.answers("kept"))
    by_redis.finish("lost")
    server.kill()
    server.restart(empty=False)  # the replica is the master now
    wait_until(lambda: by_redis.answers("kept"))
    assert by_redis.claim("kept") == "duplicate"
    assert by_redis.claim("lost") == "granted"


def test_a_lease_outlives_a_short_freeze(by_redis: Setting, server: RedisServer) -> None:
    with by_redis.service.once("work") as work:
        lease_until = by_redis.lease_until("work")
        server.freeze()
        assert not by_redis.answers("work")
        server.thaw()
        wait_until(lambda: by_redis.lease_until("work") > lease_until, LEASE_SECONDS * 5)
        work.check()
        work.result = "whole"
    assert by_redis.finished("work") == "whole"


def test_a_claim_whose_reply_never_came_is_given_back(
    new_redis: NewRedis, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    server = new_redis()
    proxy = tcp_proxy(server.url)
    with ExitStack() as stack:
        behind = stack.enter_context(open_setting(proxy.url(server.url)))
        direct = stack.enter_context(open_setting(server.url))
        behind.finish("connects, and loads the scripts")
        before = sets(server)
        proxy.drop_replies()
        with pytest.raises(StoreUnavailable), behind.service.once("work"):
            pytest.fail("it ran without a decision")
        assert sets(server) > before  # it got through
        proxy.heal()
        wait_until(lambda: direct.service.show("work") is None)
        assert direct.claim("work") == "granted"


def test_no_error_shows_a_password(new_redis: NewRedis) -> None:
    server = new_redis(config={"requirepass": "hunter2"})
    with open_setting(server.url) as setting:
        server.kill()
        with pytest.raises(StoreUnavailable) as caught:
            setting.service.check_duplicate("work")
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


def test_both_away_is_unavailable_and_nothing_runs(
    new_redis: NewRedis, new_postgres: Callable[..., PostgresServer], migrate: Callable[..., None]
) -> None:
    postgres, server = new_postgres(), new_redis()
    migrate(postgres.url)
    with open_setting(server.url, postgres.url) as setting:
        setting.finish("done before")
        server.kill()
        postgres.kill()
        with pytest.raises(StoreUnavailable, match="postgres"), setting.service.once("new"):
            pytest.fail("it ran without a decision")
        postgres.restart()
        server.restart()
        wait_until(lambda: setting.answers("done before"))
        assert setting.claim("done before") == "duplicate"
        assert setting.claim("new") == "granted"


def test_a_redis_that_came_back_without_our_scripts_is_used_again(
    by_redis: Setting, server: RedisServer
) -> None:
    by_redis.finish("loads the scripts")
    server.kill()
    assert not by_redis.answers("work")
    server.restart(empty=True)
    wait_until(lambda: by_redis.answers("work"))
    assert by_redis.claim("work") == "granted"
