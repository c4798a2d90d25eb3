"""Purging: expired records go in batches, beside other purges and workers, and all else stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.purge_store import KEPT_DAYS, expired, purge
from idemwatch.idempotency.record import State
from support.stores import DEADLINE_SECONDS, wait_until
from support.table import Table

BUCKET = """
INSERT INTO endpoint_bucket (endpoint, scope, hour)
VALUES ('e', 'global', now() - %s * interval '1 day')
"""


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


@pytest.fixture
def new_link(table: Table) -> Iterator[Callable[[], PostgresLink]]:
    links: list[PostgresLink] = []

    def make() -> PostgresLink:
        links.append(PostgresLink(table.url))
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.fixture
def link(new_link: Callable[[], PostgresLink]) -> PostgresLink:
    return new_link()


def test_expired_records_go_and_all_others_stay(table: Table, link: PostgresLink) -> None:
    gone = [state for state in State if state is not State.POISONED]
    for state in State:
        table.add(2, state=state, expires="1 minute")
        table.add(3, state=state, expires="-1 millisecond")
    assert sum(purge(link)) == 3 * len(gone)
    left = table.execute("SELECT state, count(*) FROM idempotency_record GROUP BY state")
    assert dict(left) == {state: 5 if state is State.POISONED else 2 for state in State}
    assert table.counted() == table.left()


def test_what_would_be_deleted_is_counted_as_what_is_deleted(
    table: Table, link: PostgresLink
) -> None:
    for state in State:
        table.add(3, state=state)
        table.add(1, state=state, expires="1 minute")
    announced = expired(link)
    assert announced == sum(purge(link)) > 0
    assert expired(link) == 0


@pytest.mark.parametrize(
    ("rows", "batches"), [(0, []), (1, [1]), (9, [9]), (10, [10]), (25, [10, 10, 5])]
)
def test_each_batch_has_its_rows(
    table: Table, link: PostgresLink, rows: int, batches: list[int]
) -> None:
    table.add(rows)
    assert list(purge(link, batch_rows=10)) == batches


def test_each_batch_is_committed_by_itself_and_the_oldest_go_first(
    table: Table, link: PostgresLink
) -> None:
    for hours in (2, 3, 1):
        table.add(2, f"{hours} h", expires=f"-{hours} hours")
    left = [
        [table.left("3 h"), table.left("2 h"), table.left("1 h")] for _ in purge(link, batch_rows=2)
    ]
    assert left == [[0, 2, 2], [0, 0, 2], [0, 0, 0]]


def test_a_purge_stops_between_batches(table: Table, link: PostgresLink) -> None:
    table.add(50)
    answers = iter([False, False, True])
    assert list(purge(link, batch_rows=10, stop=lambda: next(answers))) == [10, 10]
    assert table.left() == 30


def test_statistics_of_old_hours_go_with_the_records(table: Table, link: PostgresLink) -> None:
    for days in (0, KEPT_DAYS - 1, KEPT_DAYS + 1, 365):
        table.execute(BUCKET, (days,))
    assert sum(purge(link)) == 0
    ages = table.execute("SELECT now() - hour FROM endpoint_bucket ORDER BY hour DESC")
    assert [age.days for (age,) in ages] == [0, KEPT_DAYS - 1]


def test_statistics_never_count_fewer_records_than_none(table: Table, link: PostgresLink) -> None:
    table.add(5)
    table.execute("UPDATE endpoint_stats SET records = 2")
    table.add(3, "uncounted")
    table.execute("DELETE FROM endpoint_stats WHERE endpoint = 'uncounted'")
    assert sum(purge(link)) == 8
    assert table.counted() == 0


# -- at once ---------------------------------------------------------------------------------------


def test_a_purge_passes_by_the_rows_of_another(
    table: Table, new_link: Callable[[], PostgresLink]
) -> None:
    table.add(5, "slow", expires="-2 hours")
    table.add(7, "quick")
    with ThreadPoolExecutor(1) as pool, table.held("slow") as holder:
        waiting = pool.submit(lambda: list(purge(new_link(), batch_rows=5)))
        wait_until(lambda: table.waiting() == 1)
        assert list(purge(new_link(), batch_rows=5)) == [5, 2]
        assert not waiting.done()
        holder.rollback()
        assert waiting.result(DEADLINE_SECONDS) == [5]
    assert [table.left("slow"), table.left("quick")] == [0, 0]
    assert [table.counted("slow"), table.counted("quick")] == [0, 0]


def test_many_purges_at_once_count_each_record_once(
    table: Table, new_link: Callable[[], PostgresLink]
) -> None:
    for number in range(5):
        table.add(100, f"e{number}")
    table.add(40, "e0", expires="1 hour")
    links = [new_link() for _ in range(6)]
    with ThreadPoolExecutor(len(links)) as pool:
        deleted = sum(pool.map(lambda one: sum(purge(one, batch_rows=7)), links))
    deleted += sum(purge(links[0]))  # each may have passed by what another gave back
    assert deleted == 500
    assert [table.counted(f"e{number}") for number in range(5)] == [40, 0, 0, 0, 0]
    assert table.left("e0") == 40


def test_a_record_that_is_renewed_while_a_purge_looks_stays(
    table: Table, link: PostgresLink
) -> None:
    table.add(1, "renewed", state="running", expires="-2 hours")
    table.add(3)
    with psycopg.connect(table.url) as holder:
        renew = "UPDATE idempotency_record SET expires_at = now() + interval '1 day'"
        holder.execute(f"{renew} WHERE endpoint = 'renewed'".encode())
        assert list(purge(link)) == [3]
        holder.commit()
    assert list(purge(link)) == []
    assert table.left("renewed") == 1


def test_firings_go_when_they_are_old_but_not_what_waits_to_be_published(
    table: Table, link: PostgresLink
) -> None:
    table.execute(
        "INSERT INTO schedule (identifier, task, cron_expression, schedule_hash) "
        "VALUES ('i', 't', '@daily', 'h')"
    )
    table.execute(
        "INSERT INTO schedule_firing (schedule_id, due_at, outcome, publish_until) "
        "SELECT 1, now() - n * interval '1 day', CASE n WHEN 40 THEN 'pending' ELSE 'fired' END, "
        "now() FROM generate_series(1, 60) AS n"
    )
    list(purge(link, batch_rows=7))
    left = table.execute("SELECT count(*), max(now() - due_at) FROM schedule_firing")
    assert (left[0][0], left[0][1].days) == (30, 40)
