"""A hundred thousand schedules and a million firings: each statement finds its rows by an index.

As tests/test_indexes.py has it: PostgreSQL tells the plan of each statement that the code sends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency.purge_store import purge
from idemwatch.idempotency.statistics_store import duplicates_last_hour
from idemwatch.scheduler.beat import _step
from idemwatch.scheduler.changes import Change
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.firing import Mark
from idemwatch.scheduler.firing_store import FiringStore
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.rows import NAMES, schedule_of_row
from idemwatch.scheduler.schedule_store import ScheduleStore
from idemwatch.scheduler.table_source import durations
from idemwatch.scheduler.table_store import fetch_rows
from idemwatch.scheduler.uniqueness_store import ScheduleUniquenessService
from support.plans import EXPLAINING, ExplainedLink, Plans
from support.stores import NAMESPACE

pytestmark = pytest.mark.million

SCHEDULES = 100_000
FIRINGS = 1_000_000
PENDING = 1000
TASKS = 50
OF_ALL_TASKS = Inventory(
    "table",
    tuple(
        Schedule(id=str(n), task=f"app.task{n}", timing=timing_of("@daily")) for n in range(TASKS)
    ),
)
FILL = f"""
INSERT INTO schedule (identifier, task, args, cron_expression, asset_id, client_id, schedule_hash,
    status, next_due_at, misfire_grace_seconds, updated_at)
SELECT 's' || n, 'app.task' || n % {TASKS}, json_build_array(n), n % 60 || ' * * * *',
       'asset' || n / 10, 'client', md5(n::text),
       CASE n % 10 WHEN 9 THEN 'PAUSED' ELSE 'PENDING' END,
       date_trunc('minute', now()) + n % 2 * interval '1 day', 3600, now()
  FROM generate_series(1, {SCHEDULES}) AS n;
INSERT INTO schedule_firing (schedule_id, due_at, outcome, record_key, message, publish_until,
    publish_after)
SELECT 1 + n % {SCHEDULES}, date_trunc('minute', now()) - n * interval '3 seconds',
       CASE WHEN n % {FIRINGS // PENDING} = 0 THEN 'pending' ELSE 'fired' END, 'work:' || n,
       '{{"task":"t","args":[],"kwargs":{{}},"options":{{}},"also":{{}}}}', 'infinity',
       now() - n * interval '3 seconds'
  FROM generate_series(1, {FIRINGS}) AS n;
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, created_at, completed_at, expires_at)
SELECT '{NAMESPACE}:work:' || n, 'app.task' || n % {TASKS}, 'global', '', 'postgres', 'done', '',
       '', 0, n, now(), now() - n * interval '3 seconds', now(), now() + interval '1 day'
  FROM generate_series(1, {SCHEDULES}) AS n;
INSERT INTO endpoint_bucket (endpoint, scope, hour, checks, hits)
SELECT 'app.task' || n, 'global', date_trunc('hour', now()) - h * interval '1 hour', 5, 1
  FROM generate_series(0, {TASKS - 1}) AS n, generate_series(0, 30 * 24 + 1) AS h;
INSERT INTO schedule_change (change_id, schedule_id, changed_by, reason, before, after)
SELECT n / 10, n, 'me', 'move', '{{}}', '{{}}' FROM generate_series(1, {SCHEDULES}) AS n;
SELECT setval('schedule_change_id', {SCHEDULES});
"""
BIG = ("schedule", "schedule_firing", "schedule_change", "idempotency_record", "endpoint_bucket")
_numbers = itertools.count(1)


@dataclass
class Setting:
    """What the operations are done with. Nothing that they need before is in their plans."""

    link: ExplainedLink

    def __post_init__(self) -> None:
        self.beat = FiringStore(self.link, "beat")
        self.store = ScheduleStore(self.link)
        self.number = next(_numbers)

    def forget_plans(self) -> None:
        self.link.plans.statements.clear()

    def schedule(self, number: int) -> Schedule:
        """One that is in the table."""
        statement = f"SELECT {', '.join(NAMES)} FROM schedule WHERE id = {number}"
        (row,) = self.link.run(lambda connection: fetch_rows(connection, statement))
        for name in ("args", "kwargs", "options"):
            row[name] = row[name] if isinstance(row[name], str) else None
        self.forget_plans()
        return schedule_of_row(row)

    def new(self, number: int = 0, **changed: Any) -> Schedule:
        given = {"id": "", "name": "new", "task": f"new{self.number}", "args": f"[{number}]"}
        return Schedule(**{**given, "timing": timing_of("7 3 * * *"), **changed})

    def advance(self) -> None:
        rows = self.beat.due(100)
        self.forget_plans()
        self.beat.advance([_step(row, 1) for row in rows])

    def mark(self) -> None:
        with self.beat.outbox(20) as outbox:
            self.forget_plans()
            outbox.mark([Mark(one, "fired", "key") for one in outbox.firings])

    def runs_before(self) -> None:
        with self.beat.outbox(1) as outbox:
            self.forget_plans()
            outbox.runs_before(outbox.firings[0])

    def outbox(self) -> None:
        with self.beat.outbox(20) as outbox:
            assert len(outbox.firings) == 20

    def ensure(self) -> None:
        free = timing_of(f"{(10 * self.number + 30) % 60} 3 * * *")
        one = self.new(asset_id=f"asset{self.number}", client_id="client", timing=free)
        ScheduleUniquenessService(self.link).ensure_unique_schedule(one)

    def insert(self) -> None:
        assert all(self.store.insert([self.new(number) for number in range(50)]))

    def _change(self) -> Change:
        before = self.schedule(50_000 + self.number)
        return Change(before, replace(before, timing=timing_of("59 23 1 1 *")), "move")

    def apply(self) -> None:
        self.store.apply([self._change()], "me")

    def revert(self) -> None:
        change = self.store.apply([self._change()], "me")
        self.forget_plans()
        self.store.revert(change, "me")

    def purge(self) -> None:
        assert next(iter(purge(self.link, batch_rows=1000)), 0) == 0
        # The last statement: that of the firings.
        del self.link.plans.statements[:-1]


Operation = Callable[[Setting], object]
Explain = Callable[[str, Operation], Plans]


@dataclass(frozen=True)
class Case:
    """An operation, the index that is kept for it, and how many rows of big tables it may read.

    `whole`: tables that it reads from end to end, since it asks for all that is in them.
    """

    run: Operation
    index: str
    most_read: int
    whole: frozenset[str] = frozenset()


PRIMARY, FIRING = "schedule_pkey", "schedule_firing_pkey"
CASES: dict[str, Case] = {
    "due": Case(lambda s: s.beat.due(100), "schedule_due", 300),
    "advance": Case(Setting.advance, PRIMARY, 400),
    "outbox": Case(Setting.outbox, "schedule_firing_pending", 100),
    "mark": Case(Setting.mark, PRIMARY, 200),
    "runs before": Case(Setting.runs_before, FIRING, 100),
    "wake": Case(lambda s: s.beat.wake_seconds(), "schedule_due", 4),
    "wake for a message": Case(lambda s: s.beat.wake_seconds(), "schedule_firing_pending", 4),
    "tick": Case(lambda s: s.beat.tick(), "schedule_beat_pkey", 0),
    "ensure unique": Case(Setting.ensure, "schedule_active_hash", 40),
    "room on an asset": Case(Setting.ensure, "schedule_resource", 40),
    "insert": Case(Setting.insert, "schedule_active_hash", 50),
    "known": Case(Setting.insert, "schedule_inactive_hash", 50),
    "apply": Case(Setting.apply, PRIMARY, 20),
    "revert": Case(Setting.revert, "schedule_change_pkey", 30),
    "latest changes": Case(lambda s: s.store.changes(), "schedule_change_pkey", 1000),
    "revert once": Case(Setting.revert, "schedule_change_reverted_once", 30),
    "changes": Case(lambda s: s.store.changes(7), "schedule_change_pkey", 100),
    "purge of firings": Case(Setting.purge, "schedule_firing_due_at", 3000),
    "durations": Case(
        lambda s: durations(s.link, NAMESPACE, OF_ALL_TASKS),
        "idempotency_record_endpoint",
        1_000_000,
        whole=frozenset(("schedule", "schedule_firing", "idempotency_record")),
    ),
    "duplicates of the last hour": Case(
        lambda s: duplicates_last_hour(s.link), "endpoint_bucket_hour", 2 * TASKS
    ),
}
each_plan = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@pytest.fixture(scope="module")
def schedules_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    url = postgres_server.create_database("schedules", template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL.encode())
        connection.execute("ANALYZE")
        for name, value in EXPLAINING.items():
            connection.execute(f"ALTER DATABASE schedules SET {name} = '{value}'".encode())
    yield url
    postgres_server.drop_database("schedules")


@pytest.fixture
def explain(schedules_url: str) -> Iterator[Explain]:
    links: list[ExplainedLink] = []
    with psycopg.connect(schedules_url, autocommit=True) as connection:

        def run(mode: str, operation: Operation) -> Plans:
            connection.execute(f"ALTER DATABASE schedules SET plan_cache_mode = {mode}".encode())
            links.append(ExplainedLink(schedules_url))
            setting = Setting(links[-1])
            setting.beat.tick()  # the schema is checked before
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
    assert not (plans.scanned - case.whole) & set(BIG)
    assert plans.rows_read(BIG) <= case.most_read


def test_each_index_is_kept_for_a_query(schedules_url: str) -> None:
    listed = "SELECT indexname FROM pg_indexes WHERE tablename LIKE 'schedule%'"
    with psycopg.connect(schedules_url) as connection:
        found = {name for (name,) in connection.execute(listed)}
    assert found <= {case.index for case in CASES.values()}
