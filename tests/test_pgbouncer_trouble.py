"""What a pooler that shares sessions breaks: prepared statements, settings, locks, a lost COMMIT.

The pooler here has one session for each database, so that whoever comes next meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.exporter.refresh import Refresher
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency import IdempotencyService, Settings, StoreUnavailable
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.migrate import current, downgrade, upgrade
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.purge_store import purge
from support.commands import invoke
from support.desk import Desk, in_an_hour
from support.pgbouncer import PgBouncer
from support.proxy import TcpProxy
from support.stores import KEY, wait_until
from support.table import Table
from support.transactions import Connection, act, do, effects, meanwhile, records, waits_for_lock

PREPARED = "SELECT count(*) FROM pg_prepared_statements"
WAITING = """
  FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
# Within a COMMIT, until the test gives its lock back.
SLOW_COMMIT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""


@pytest.fixture(scope="module")
def start_pooler(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PgBouncer]]:
    """Start a pooler; takes the options of `PgBouncer.start`."""
    started: list[PgBouncer] = []

    def start(url: str = postgres_server.url, **options: Any) -> PgBouncer:
        folder = tmp_path_factory.mktemp("pooler")
        started.append(PgBouncer.start(url, folder=folder, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def pooler(start_pooler: Callable[..., PgBouncer]) -> PgBouncer:
    """Before the PostgreSQL of all tests, with one session."""
    return start_pooler(sessions=1)


@pytest.fixture
def pooled(pooler: PgBouncer, database: str) -> str:
    """The URL of the database through the pooler."""
    return pooler.url(database)


@pytest.fixture
def watcher(database: str) -> Iterator[Connection]:
    """Sees what has been committed, past the pooler; the tables are empty."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS effect; DROP FUNCTION IF EXISTS wait")
        connection.execute("CREATE TABLE effect (who text NOT NULL)")
        connection.execute("TRUNCATE idempotency_record, endpoint_stats, schedule CASCADE")
        yield connection


@pytest.fixture
def new_link(pooled: str) -> Iterator[Callable[..., PostgresLink]]:
    links: list[PostgresLink] = []

    def make(url: str = pooled, **options: Any) -> PostgresLink:
        links.append(PostgresLink(url, **options))
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.fixture
def new_service(pooled: str) -> Iterator[Callable[..., IdempotencyService]]:
    yield lambda url=pooled, **changed: IdempotencyService(Settings(database_url=url, **changed))
    close_engines()


def ask(link: PostgresLink, statement: str) -> Any:
    """The first column of the first row that a statement answers."""
    row = link.run(lambda connection: connection.execute(statement.encode()).fetchone())
    assert row is not None
    return row[0]


# -- statements that are prepared ------------------------------------------------------------------


def test_a_pooler_is_found_and_nothing_is_prepared(new_link: Callable[..., PostgresLink]) -> None:
    one, other = new_link(), new_link()
    for _ in range(10):
        assert ask(one, "SELECT 1") == 1 and ask(other, "SELECT 2") == 2
    assert ask(one, PREPARED) == 0
    assert one.pooled and other.pooled


def test_without_a_pooler_statements_are_prepared_unless_it_is_told(
    database: str, new_link: Callable[..., PostgresLink]
) -> None:
    direct, told = new_link(database), new_link(database, pooled=True)
    assert ask(direct, "SELECT 1") == ask(told, "SELECT 1") == 1
    assert (direct.pooled, told.pooled) == (False, True)
    assert ask(direct, PREPARED) > 0 and ask(told, PREPARED) == 0


def test_a_pooler_that_is_taken_for_one_that_keeps_sessions_is_told(
    new_link: Callable[..., PostgresLink],
) -> None:
    one, other = new_link(pooled=False), new_link(pooled=False)
    assert ask(one, "SELECT 1") == 1
    with pytest.raises(StoreUnavailable, match="set idempotency_database_pooled to true"):
        ask(other, "SELECT 2")


def test_a_pooler_whose_server_is_away_is_left_out_and_comes_back(
    start_pooler: Callable[..., PgBouncer],
    tcp_proxy: Callable[[str], TcpProxy],
    database: str,
    new_link: Callable[..., PostgresLink],
) -> None:
    proxy = tcp_proxy(database)
    link = new_link(start_pooler(proxy.url(database)).url(database), answer_seconds=0.3)
    assert ask(link, "SELECT 1") == 1
    proxy.blackhole()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            ask(link, "SELECT 1")
    assert link.breaker.is_open
    proxy.heal()
    proxy.reset()
    wait_until(lambda: _answers(link))


def _answers(link: PostgresLink) -> bool:
    try:
        return bool(ask(link, "SELECT 1") == 1)
    except StoreUnavailable:
        return False


# -- what is set for a session ---------------------------------------------------------------------


@pytest.mark.parametrize("ends_well", [True, False])
def test_what_a_transaction_sets_does_not_reach_the_next_client(
    new_service: Callable[..., IdempotencyService],
    new_link: Callable[..., PostgresLink],
    watcher: Connection,
    ends_well: bool,
) -> None:
    try:
        with new_service().transaction(KEY) as tx:
            tx.connection.execute("SET search_path TO public, nowhere")
            tx.connection.execute("SET statement_timeout = 7000")
            if not ends_well:
                tx.connection.execute("SET ROLE pg_monitor")
                raise KeyError
            tx.result = 1
    except KeyError:
        pass
    link = new_link()
    told = [ask(link, f"SELECT current_setting('{name}')") for name in ("role", "search_path")]
    assert told == ["none", '"$user", public'] and ask(link, "SHOW statement_timeout") == "0"
    assert records(watcher) == ["done"] * ends_well


def test_an_exporter_leaves_nothing_behind_and_all_its_sources_answer(
    pooled: str, new_link: Callable[..., PostgresLink]
) -> None:
    state = State(Settings(database_url=pooled), Options())
    try:
        for refresher in [Refresher(one) for one in state.collectors]:
            refresher.refresh()
            assert refresher.seen().problem is None, refresher.seen().problem
    finally:
        state.close()
    link = new_link()
    assert ask(link, "SHOW statement_timeout") == "0"
    assert ask(link, "SHOW transaction_read_only") == "off"


# -- locks, statistics, purge, beat, migrations ----------------------------------------------------


def test_a_lock_is_waited_for_without_listening(
    new_service: Callable[..., IdempotencyService],
    new_link: Callable[..., PostgresLink],
    watcher: Connection,
) -> None:
    service = new_service()

    def take() -> int:
        with service.lock("door", timeout=20) as lease:
            return lease.fence

    with service.lock("door") as first, meanwhile(take) as second:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
        assert watcher.execute(waiting).fetchone() == (0,)
        assert ask(new_link(), "SELECT count(*) FROM pg_listening_channels()") == 0
        service.engine.release(first)
        assert second() > first.fence
    assert ask(new_link(), "SELECT count(*) FROM pg_listening_channels()") == 0


def test_statistics_and_a_purge_come_through(
    new_service: Callable[..., IdempotencyService],
    new_link: Callable[..., PostgresLink],
    watcher: Connection,
    database: str,
) -> None:
    service = new_service()
    for _ in range(3):
        with service.once(KEY) as work:
            work.result = 1
    assert service.engine.statistics is not None
    service.engine.statistics.flush()
    assert watcher.execute("SELECT records, hits FROM endpoint_stats").fetchall() == [(1, 2)]
    Table(database).add(2500, state="done", expires="-1 hour")
    assert list(purge(new_link())) == [1000, 1000, 500]
    assert records(watcher) == ["done"]


def test_two_beats_fire_once(redis_url: str, pooled: str, watcher: Connection) -> None:
    desk = Desk(redis_url, pooled)
    try:
        desk.beats.append(desk.beat())
        one = desk.add()
        in_an_hour(desk)
        desk.due(one)
        for beat in desk.beats * 2:
            beat.tick()
        assert len(desk.messages()) == 1 and desk.outcomes(one) == ["fired"]
        assert all(beat._link.pooled for beat in desk.beats)
    finally:
        desk.close()


def test_a_migration_is_refused_through_a_pooler_and_reading_is_not(
    pooler: PgBouncer, pooled: str, empty_database_url: str
) -> None:
    through = pooler.url(empty_database_url)
    with pytest.raises(ConfigurationError, match="address of PostgreSQL itself"):
        upgrade(through)
    with pytest.raises(ConfigurationError, match="address of PostgreSQL itself"):
        downgrade(through, "base")
    done = invoke("db", "upgrade", "--database-url", through)
    assert done.exit_code == 1 and "--database-url" in done.output, done.output
    assert current(through) is None and current(pooled) is not None


def test_a_migration_runs_through_a_pooler_that_keeps_sessions_if_that_is_told(
    start_pooler: Callable[..., PgBouncer], empty_database_url: str
) -> None:
    through = start_pooler(mode="session").url(empty_database_url)
    with pytest.raises(ConfigurationError, match="idempotency_database_pooled to false"):
        upgrade(through)
    upgrade(through, pooled=False)
    assert current(through) is not None


# -- a server's connection that is lost, or cancelled ----------------------------------------------


@pytest.mark.parametrize("ending", ["landed", "lands late", "never lands"])
def test_a_connection_lost_behind_the_pooler_in_a_commit_repeats_no_effect(
    start_pooler: Callable[..., PgBouncer],
    tcp_proxy: Callable[[str], TcpProxy],
    new_service: Callable[..., IdempotencyService],
    watcher: Connection,
    database: str,
    ending: str,
) -> None:
    proxy = tcp_proxy(database)
    service = new_service(start_pooler(proxy.url(database)).url(database))
    watcher.execute(SLOW_COMMIT)
    watcher.execute("SELECT pg_advisory_lock(7)")
    with meanwhile(lambda: do(service, "first")) as answer:
        wait_until(lambda: waits_for_lock(watcher))
        if ending == "landed":
            proxy.drop_replies()
            watcher.execute("SELECT pg_advisory_unlock(7)")
            wait_until(lambda: effects(watcher) == ["first"])
        if ending == "never lands":
            watcher.execute(f"SELECT pg_terminate_backend(pid) {WAITING}")
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            answer()
    proxy.heal()
    watcher.execute("SELECT pg_advisory_unlock_all()")
    wait_until(lambda: _open_transactions(watcher) == 0)
    wait_until(lambda: _done(service))
    assert effects(watcher) == ["second" if ending == "never lands" else "first"]
    assert records(watcher) == ["done"]


def _open_transactions(watcher: Connection) -> int:
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _done(service: IdempotencyService) -> bool:
    try:
        do(service, "second")
    except StoreUnavailable:
        return False
    return True


def test_a_cancel_that_was_meant_for_another_is_survived_by_a_claim(
    new_service: Callable[..., IdempotencyService], watcher: Connection, database: str
) -> None:
    service = new_service()

    def claim() -> bool:
        with service.once(KEY) as work:
            return not work.duplicate

    with psycopg.connect(database) as holder:
        with new_service(database).transaction(KEY, connection=holder) as tx:
            act(tx)
        with meanwhile(claim) as granted:
            wait_until(lambda: waits_for_lock(watcher))
            watcher.execute(f"SELECT pg_cancel_backend(pid) {WAITING}")
            holder.rollback()
            assert granted()
    assert records(watcher) == ["done"]


def test_a_statement_that_is_cut_off_cancels_nothing_of_others(
    start_pooler: Callable[..., PgBouncer], database: str, new_link: Callable[..., PostgresLink]
) -> None:
    pooler = start_pooler(sessions=2)
    impatient = new_link(pooler.url(database), answer_seconds=0.2)
    other = new_link(pooler.url(database))
    assert ask(impatient, "SELECT 1") == ask(other, "SELECT 1") == 1

    def give_up() -> bool:
        with pytest.raises(StoreUnavailable):
            ask(impatient, "SELECT pg_sleep(2)")
        return True

    with meanwhile(give_up) as gave_up:
        for _ in range(40):
            assert ask(other, "SELECT 1 FROM pg_sleep(0.02)") == 1
        assert gave_up()
