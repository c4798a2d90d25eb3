"""A million records: what our code asks is answered by an index, and each index answers something.

PostgreSQL itself tells the plan of each statement that the code sends (auto_explain), once planned
for the values sent and once for any values, as prepared statements become after some executions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency import migrate
from idemwatch.idempotency.listing_store import PostgresListing
from idemwatch.idempotency.postgres_store import PostgresStore
from idemwatch.idempotency.purge_store import expired, purge
from idemwatch.idempotency.record import Claim
from idemwatch.idempotency.statistics_store import Statistics
from idemwatch.idempotency.store import Held
from idemwatch.idempotency.transaction_store import TransactionStore
from support.plans import EXPLAINING, ExplainedLink, Plans
from support.stores import ENDED_US, NAMESPACE, Subject, result

pytestmark = pytest.mark.million

RECORDS = 1_000_000
TASKS = 50
EXPIRED = 1000
POISONED = 100
LEASES = 500
FILL = f"""
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, result, result_type, created_at, completed_at, expires_at)
SELECT '{NAMESPACE}:work:' || n, 'app.task' || n % {TASKS}, 'global', md5(n::text), 'postgres',
       CASE WHEN n % {RECORDS // POISONED} = 0 THEN 'poisoned' WHEN n % 1000 = 1 THEN 'running'
            ELSE 'done' END,
       md5(n::text), md5(n::text), 0, n, now(), '{{"sent": true}}', 'application/json',
       now() - n * interval '0.08 seconds', now(),
       CASE WHEN n % {RECORDS // POISONED} = 0 THEN '9999-01-01'
            WHEN n % {RECORDS // EXPIRED} = 2 THEN now() - interval '1 hour'
            ELSE now() + interval '1 day' - n * interval '0.08 seconds' END
  FROM generate_series(1, {RECORDS}) AS n;
INSERT INTO endpoint_stats (endpoint, scope, records, hits)
SELECT 'app.task' || n, 'global', {RECORDS // TASKS}, 7 FROM generate_series(0, {TASKS - 1}) AS n;
INSERT INTO endpoint_bucket (endpoint, scope, hour, checks)
SELECT 'app.task' || n, 'global', date_trunc('hour', now()) - h * interval '1 hour', 5
  FROM generate_series(0, {TASKS - 1}) AS n, generate_series(0, 30 * 24 + 1) AS h;
"""
BIG = ("idempotency_record", "endpoint_bucket")
IN_USE = """
SELECT FROM idempotency_record WHERE expires_at <= now() ORDER BY key LIMIT %(left)s FOR UPDATE
"""
KEY = "work:500000"
PRIMARY = "idempotency_record_pkey"
_numbers = itertools.count()


@dataclass
class Setting:
    """What the operations are done with. Nothing that they need before is in their plans."""

    link: ExplainedLink

    def __post_init__(self) -> None:
        store = PostgresStore(self.link, NAMESPACE, "here")
        self.subject = Subject(store, "postgres", str)
        self.key = f"new:{next(_numbers)}"

    @property
    def store(self) -> Any:
        return self.subject.store

    def forget_plans(self) -> None:
        self.link.plans.statements.clear()

    def held(self, **changed: Any) -> Held:
        held = self.subject.hold(**{"key": self.key, **changed})
        self.forget_plans()
        return held

    def complete(self) -> None:
        self.store.complete(self.held(), result())

    def park(self) -> None:
        self.store.park(self.held(), fingerprint="", open_after_us=1)

    def release(self) -> None:
        self.store.release(self.held())

    def abandon(self) -> None:
        held = self.held()
        self.store.abandon(held.key, held.claim.owner)

    def put_done(self) -> None:
        claim = self.subject.claim(self.key)
        self.store.put_done(Held(claim=claim, fence=0, created_us=0), result())

    def take_over(self) -> None:
        self.held(lease_us=ENDED_US)
        assert self.subject.ask(self.key).granted

    def renew(self) -> None:
        many = [self.subject.hold(f"held:{n}") for n in range(LEASES)]
        self.forget_plans()
        assert len(self.store.renew(many)) == LEASES
        statements = list(self.link.plans.statements)
        for one in many:
            self.store.release(one)
        self.link.plans.statements[:] = statements

    def transact(self) -> None:
        store = TransactionStore(self.link, self.link, NAMESPACE)
        claim = Claim(key=self.key, owner="one", authority="transaction")
        assert store.finished(claim) is None
        with store.begin(timedelta(seconds=1)) as connection:
            fence = store.claim(connection, claim).fence
            store.complete(connection, claim, fence, result())

    def count_hits(self, keys: int) -> None:
        statistics = Statistics(self.link, NAMESPACE)
        statistics._awaken = lambda: None  # type: ignore[method-assign]
        for number in range(3, 3 + keys):
            statistics.hit(f"work:{number}", f"app.task{number % TASKS}", "global")
        statistics.flush()

    def purge(self) -> None:
        assert list(itertools.islice(purge(self.link, batch_rows=100), 1)) == [100]
        del self.link.plans.statements[0]  # that of the statistics

    def purge_hours(self) -> None:
        assert list(purge(self.link, stop=lambda: True)) == []

    def purge_the_last(self) -> None:
        """As a purge ends: what is left is less than a batch."""
        found = expired(self.link)
        self.forget_plans()
        with psycopg.connect(self.link.url) as other:
            other.execute(IN_USE, {"left": found - 10})
            assert list(purge(self.link)) == [10]
        del self.link.plans.statements[0]

    def list(self, **chosen: Any) -> None:
        asked = {"state": None, "task": None, "limit": 50, **chosen}
        PostgresListing(self.link, NAMESPACE).entries(**asked)


Operation = Callable[[Setting], object]
Explain = Callable[[str, Operation], Plans]


@dataclass(frozen=True)
class Case:
    """An operation, the index that is kept for it, and how many rows of big tables it may read."""

    run: Operation
    index: str = PRIMARY
    most_read: int = 4


def listing(index: str, most_read: int, **chosen: Any) -> Case:
    return Case(lambda s: s.list(**chosen), index, most_read)


OF_TASK, OF_POISONED = "idempotency_record_endpoint", "idempotency_record_poisoned"
OF_EXPIRY = "idempotency_record_expires_at"
CASES: dict[str, Case] = {
    "claim of a new key": Case(lambda s: s.subject.hold(s.key)),
    "claim of a finished key": Case(lambda s: s.subject.ask(KEY)),
    "claim after a lease": Case(Setting.take_over),
    "complete": Case(Setting.complete),
    "park": Case(Setting.park),
    "release": Case(Setting.release),
    "abandon": Case(Setting.abandon),
    "renew many": Case(Setting.renew, most_read=2 * LEASES),
    "find": Case(lambda s: s.store.find(KEY)),
    "store a result": Case(Setting.put_done),
    "forget": Case(lambda s: s.store.forget("work:499999")),
    "wait for a lock": Case(lambda s: s.store.wait_released("free", 0.01)),
    "transaction": Case(Setting.transact),
    "poisoned keys": Case(lambda s: list(s.store.poisoned()), OF_POISONED, POISONED),
    "count a hit": Case(lambda s: s.count_hits(1)),
    "count hits": Case(lambda s: s.count_hits(200), most_read=800),
    "count many hits": Case(lambda s: s.count_hits(4000), most_read=16_000),
    "statistics of endpoints": Case(lambda s: s.count_hits(2), "endpoint_stats_pkey", 16),
    "statistics of hours": Case(lambda s: s.count_hits(2), "endpoint_bucket_pkey", 16),
    "purge": Case(Setting.purge, OF_EXPIRY, 300),
    "purge of the last": Case(Setting.purge_the_last, OF_EXPIRY, 2 * EXPIRED),
    "purge of hours": Case(Setting.purge_hours, "endpoint_bucket_hour", 2 * TASKS),
    "count the expired": Case(lambda s: expired(s.link), OF_EXPIRY, EXPIRED),
    "show": Case(lambda s: PostgresListing(s.link, NAMESPACE).get(KEY)),
    "list of all": listing(OF_TASK, 50 * TASKS + 2 * TASKS + 2),
    "list poisoned": listing(OF_POISONED, POISONED, state="poisoned"),
    "list of a task": listing(OF_TASK, 50, task="app.task7"),
    "list finished of a task": listing(OF_TASK, 100, task="app.task7", state="done"),
    "list running of a task": listing(OF_TASK, RECORDS // TASKS, task="app.task1", state="running"),
}
each_plan = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@pytest.fixture(scope="module")
def million_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A million records, filled before their indexes are built, as a big table is upgraded."""
    url = postgres_server.create_database("million")
    migrate.upgrade(url, "0001")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL.encode())
        migrate.upgrade(url)
        connection.execute("ANALYZE")
        for name, value in EXPLAINING.items():
            connection.execute(f"ALTER DATABASE million SET {name} = '{value}'".encode())
    yield url
    postgres_server.drop_database("million")


@pytest.fixture
def explain(million_url: str) -> Iterator[Explain]:
    links: list[ExplainedLink] = []
    with psycopg.connect(million_url, autocommit=True) as connection:

        def run(mode: str, operation: Operation) -> Plans:
            connection.execute(f"ALTER DATABASE million SET plan_cache_mode = {mode}".encode())
            links.append(ExplainedLink(million_url))
            setting = Setting(links[-1])
            setting.store.find(KEY)  # the schema is checked before
            setting.forget_plans()
            operation(setting)
            return setting.link.plans

        yield run
        for link in links:
            link.close()


@each_plan
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_index_is_used(explain: Explain, case: Case, mode: str) -> None:
    plans = explain(mode, case.run)
    assert case.index in plans.indexes
    assert not plans.scanned & set(BIG)
    assert plans.rows_read(BIG) <= case.most_read


def test_each_index_is_kept_for_a_query(million_url: str) -> None:
    listed = """
        SELECT indexname FROM pg_indexes
         WHERE schemaname = 'public' AND tablename NOT LIKE 'schedule%'
    """  # those of schedules: tests/test_schedule_indexes.py
    with psycopg.connect(million_url) as connection:
        found = {name for (name,) in connection.execute(listed)}
    assert found - {"idemwatch_alembic_version_pkc"} == {case.index for case in CASES.values()}
