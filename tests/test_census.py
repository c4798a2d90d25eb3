"""The census of records: exact on small tables, bounded on large ones, right in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.exporter.census import Census, shuffled
from idemwatch.exporter.read_only_store import read
from idemwatch.idempotency.errors import SchemaMismatch
from idemwatch.idempotency.postgres_link import PostgresLink
from support.plans import EXPLAINING, ExplainedLink
from support.table import Table

HEAD = "test:"
DONE, RUNNING = ("global", "done"), ("global", "running")
LIVE = "1 hour"


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


@pytest.fixture
def look(link: PostgresLink) -> Callable[[Census], dict[tuple[str, str], int]]:
    """One refresh."""

    def run(census: Census) -> dict[tuple[str, str], int]:
        read(link, census.look)
        return census.counts()

    return run


Look = Callable[[Census], dict[tuple[str, str], int]]


def pages(table: Table) -> int:
    found = table.execute("SELECT pg_relation_size('idempotency_record') / 8192")
    return int(found[0][0])


def turn(census: Census, look: Look, table: Table, part: int) -> dict[tuple[str, str], int]:
    """As many looks as the table has parts."""
    counts = {}
    for _ in range(-(-pages(table) // part)):
        counts = look(census)
    return counts


def test_an_empty_table_has_none(look: Look) -> None:
    census = Census(HEAD)
    assert look(census) == {} and census.complete


def test_a_small_table_is_counted_exactly_at_each_look(table: Table, look: Look) -> None:
    census = Census(HEAD)
    for number in range(1, 4):
        table.add(100, expires=LIVE, prefix=f"a{number}:")
        table.add(number, state="running", expires=LIVE, prefix=f"b{number}:")
        assert look(census) == {DONE: 100 * number, RUNNING: number * (number + 1) // 2}
        assert census.complete
    table.execute("DELETE FROM idempotency_record WHERE state = 'running'")
    assert look(census) == {DONE: 300}


def test_what_has_expired_and_what_another_namespace_has_does_not_count(
    table: Table, look: Look
) -> None:
    table.add(5, expires=LIVE)
    table.add(7, expires="-1 second")
    table.execute("UPDATE idempotency_record SET key = 'testing:' || key WHERE key LIKE '%:1'")
    assert look(Census(HEAD)) == {DONE: 4}
    assert look(Census("testing:")) == {DONE: 1}


def test_a_larger_table_is_scaled_at_first_and_exact_after_a_turn(table: Table, look: Look) -> None:
    table.add(3000, expires=LIVE)
    assert pages(table) > 20
    census = Census(HEAD, pages=4)
    first = look(census)
    assert not census.complete
    assert first[DONE] == pytest.approx(3000, rel=0.1), "of some parts the whole is estimated"
    assert turn(census, look, table, 4) == {DONE: 3000} and census.complete


def test_a_change_of_a_larger_table_is_seen_within_a_turn(table: Table, look: Look) -> None:
    table.add(3000, expires=LIVE)
    census = Census(HEAD, pages=4)
    turn(census, look, table, 4)
    table.execute("UPDATE idempotency_record SET expires_at = now() WHERE key LIKE '%:7%'")
    seven = 1000 + 100 + 10 + 1  # numbers of up to 3000 that begin with it, less those over 3000
    gone = table.execute("SELECT count(*) FROM idempotency_record WHERE expires_at <= now()")[0][0]
    assert 0 < gone <= seven
    assert turn(census, look, table, 4) == {DONE: 3000 - gone}


def test_a_table_that_grew_is_scaled_for_what_was_not_counted_yet(table: Table, look: Look) -> None:
    table.add(1500, expires=LIVE, prefix="a:")
    census = Census(HEAD, pages=4)
    turn(census, look, table, 4)
    table.add(1500, expires=LIVE, prefix="b:")
    assert look(census)[DONE] == pytest.approx(3000, rel=0.15)
    for _ in range(2):
        counts = turn(census, look, table, 4)
    assert counts == {DONE: 3000} and census.complete


def test_a_table_that_shrank_loses_the_parts_beyond_its_end(table: Table, look: Look) -> None:
    table.add(3000, expires=LIVE)
    census = Census(HEAD, pages=4)
    turn(census, look, table, 4)
    table.execute("DELETE FROM idempotency_record WHERE key NOT LIKE '%:1__'")
    table.execute("VACUUM FULL idempotency_record")
    kept = table.left()
    assert kept == 100 and pages(table) <= 4
    assert look(census) == {DONE: 100} and census.complete
    table.execute("TRUNCATE idempotency_record")
    assert look(census) == {} and census.complete


def test_a_turn_reads_each_part_once() -> None:
    assert sorted(shuffled(50)) == list(range(50)) and shuffled(0) == []


def test_a_part_whose_count_failed_is_as_it_was(table: Table, link: PostgresLink) -> None:
    table.add(50, expires=LIVE)
    census = Census(HEAD)
    read(link, census.look)
    table.execute("ALTER TABLE idempotency_record RENAME COLUMN scope TO scopes")
    with pytest.raises(SchemaMismatch):
        read(link, census.look)
    assert census.counts() == {DONE: 50}


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
def explained(
    postgres_server: PostgresServer, database_url: str, request: pytest.FixtureRequest
) -> Iterator[ExplainedLink]:
    """A link to a database with a table of some size, with and without values in the plans."""
    table = Table(database_url)
    table.add(20_000, expires=LIVE)
    table.execute("ANALYZE")
    name = database_url.rsplit("/", 1)[1].partition("?")[0]
    for option, value in {**EXPLAINING, "plan_cache_mode": request.param}.items():
        table.execute(f"ALTER DATABASE {name} SET {option} = '{value}'")
    link = ExplainedLink(database_url)
    yield link
    link.close()


def test_a_part_is_read_by_its_pages(explained: ExplainedLink) -> None:
    census = Census(HEAD, pages=20)
    read(explained, census.look)
    explained.plans.statements.clear()
    read(explained, census.look)
    (scan,) = [n for n in explained.plans.nodes if n.get("Relation Name") == "idempotency_record"]
    assert scan["Node Type"] == "Tid Range Scan"
    assert explained.plans.rows_read(["idempotency_record"]) < 2_000
