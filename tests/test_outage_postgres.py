"""PostgreSQL killed, restarted and left away, under authority postgres and transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import (
    ANSWER_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    Connection,
    PostgresLink,
)
from support.outages import LEASE_SECONDS, Setting, open_setting, seconds_of
from support.proxy import TcpProxy
from support.stores import DEADLINE_SECONDS, wait_until


@pytest.fixture
def server(
    new_postgres: Callable[..., PostgresServer], migrate: Callable[[str], None]
) -> PostgresServer:
    server = new_postgres()
    migrate(server.url)
    return server


@pytest.fixture
def setting(server: PostgresServer, redis_url: str) -> Iterator[Setting]:
    with open_setting(redis_url, server.url) as found:
        yield found


def test_finished_work_is_answered_by_redis_while_postgresql_is_away(
    setting: Setting, server: PostgresServer
) -> None:
    setting.finish("done before")
    server.kill()
    assert setting.claim("done before") == "duplicate"
    assert setting.finished("done before") == "first"


def test_new_work_is_unavailable_and_never_decided_by_redis(
    setting: Setting, server: PostgresServer
) -> None:
    setting.finish("connects")
    server.kill()
    with pytest.raises(StoreUnavailable, match="postgres"), setting.service.once("new"):
        pytest.fail("it ran without a decision")
    with pytest.raises(StoreUnavailable, match="postgres"):
        setting.service.forget("connects")
    with pytest.raises(StoreUnavailable, match="postgres"), setting.service.transaction("new"):
        pytest.fail("it ran without a decision")
    server.restart()
    wait_until(lambda: setting.answers("new"))
    assert setting.claim("new") == "granted"


def test_an_open_breaker_makes_refusals_quick(setting: Setting, server: PostgresServer) -> None:
    setting.finish("connects")
    server.kill()
    setting.answers("opens the breaker")
    spent = sorted(seconds_of(partial(setting.answers, f"key{n}")) for n in range(20))
    assert spent[10] < 0.05, spent


def test_the_first_claim_after_a_restart_is_decided(
    setting: Setting, server: PostgresServer
) -> None:
    setting.finish("work")
    server.restart()
    assert setting.claim("another") == "granted"
    assert setting.claim("work") == "duplicate"


def test_a_restart_costs_one_transaction_at_most(setting: Setting, server: PostgresServer) -> None:
    together = threading.Barrier(3)

    def transact(key: str, party: threading.Barrier | None = None) -> None:
        with setting.service.transaction(key) as tx:
            assert not tx.duplicate
            if party is not None:
                party.wait(DEADLINE_SECONDS)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: transact(f"before {n}", together), range(3)))
    server.restart()
    with suppress(StoreUnavailable):
        transact("meets it")
    transact("after")


def test_a_result_waits_for_postgresql_within_its_lease(
    setting: Setting, server: PostgresServer
) -> None:
    with setting.service.once("work") as work:
        server.restart()
        work.result = "kept"
    assert setting.finished("work") == "kept"


def test_a_result_is_stored_though_postgresql_was_away_for_longer_than_the_lease(
    setting: Setting, server: PostgresServer
) -> None:
    with setting.service.once("work") as work:
        server.kill()
        work.result = "kept"
    assert not setting.answers("work")
    server.restart()
    wait_until(lambda: setting.answers("work") and setting.finished("work") == "kept")
    assert setting.claim("work") == "duplicate"


def test_a_lease_outlives_a_restart(setting: Setting, server: PostgresServer) -> None:
    with setting.service.once("work") as work:
        lease_until = setting.lease_until("work")
        server.restart()
        wait_until(lambda: setting.lease_until("work") > lease_until, LEASE_SECONDS * 5)
        work.check()


def test_a_transaction_cut_off_leaves_neither_effect_nor_record(
    setting: Setting, server: PostgresServer
) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE payment (id int)")
    with pytest.raises(Exception) as caught, setting.service.transaction("pay") as tx:
        tx.connection.execute("INSERT INTO payment VALUES (1)")
        server.restart()
        tx.result = "paid"
    assert isinstance(caught.value, StoreUnavailable | psycopg.Error), caught.value
    assert setting.service.show("pay") is None
    with setting.service.transaction("pay") as tx:
        assert not tx.duplicate
        tx.connection.execute("INSERT INTO payment VALUES (1)")
        tx.result = "paid"
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM payment").fetchone() == (1,)
    with setting.service.transaction("pay") as tx:
        assert tx.duplicate and tx.result == "paid"


def test_a_frozen_postgresql_decides_after_its_thaw(
    setting: Setting, server: PostgresServer
) -> None:
    """A server that is stopped answers nothing; whoever asked goes on where he was."""
    from concurrent.futures import ThreadPoolExecutor

    setting.finish("done before")
    server.freeze()
    assert setting.claim("done before") == "duplicate"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(setting.claim, "new")
        assert not asked.done()
        server.thaw()
        assert asked.result(30) == "granted"


def test_a_postgresql_that_stays_frozen_is_given_up_and_locks_nobody_out(
    setting: Setting, server: PostgresServer
) -> None:
    setting.finish("warm")  # so that there is a connection, which would be waited for
    server.freeze()
    try:
        took = seconds_of(lambda: refused(lambda: setting.claim("new")))
    finally:
        server.thaw()
    assert took < 2 * ANSWER_SECONDS + CONNECT_TIMEOUT_SECONDS + DEADLINE_SECONDS
    wait_until(lambda: setting.answers("new"))
    wait_until(lambda: setting.claim("new") == "granted")


def test_a_reply_that_never_comes_is_waited_for_twice_and_no_longer(
    server: PostgresServer, tcp_proxy: Callable[[str], TcpProxy]
) -> None:
    """A tunnel that lost what it had: its connections stay open, and nothing comes through."""
    proxy = tcp_proxy(server.url)
    link = PostgresLink(proxy.url(server.url), answer_seconds=0.3)
    try:
        assert link.run(_one) == 1
        proxy.drop_replies()
        took = seconds_of(lambda: refused(lambda: link.run(_one)))
        assert took < 0.6 + CONNECT_TIMEOUT_SECONDS + DEADLINE_SECONDS
        proxy.heal()
        wait_until(lambda: _answers(link))
    finally:
        link.close()


def _one(connection: Connection) -> int:
    row = connection.execute("SELECT 1").fetchone()
    return 0 if row is None else int(row[0])


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(StoreUnavailable):
        work()


def _answers(link: PostgresLink) -> bool:
    try:
        return link.run(_one) == 1
    except StoreUnavailable:
        return False


def test_a_lock_is_given_back_though_postgresql_restarted(
    setting: Setting, server: PostgresServer
) -> None:
    with setting.service.lock("day", timeout=1):
        server.restart()
    with setting.service.lock("day", timeout=LEASE_SECONDS * 3):
        pass


def test_no_error_shows_a_password(setting: Setting, server: PostgresServer) -> None:
    password = server.url.split(":")[2].split("@")[0]
    server.kill()
    with pytest.raises(StoreUnavailable) as caught:
        setting.service.check_duplicate("work")
    assert password not in str(caught.value) + repr(caught.value.__cause__)
