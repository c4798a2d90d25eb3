"""What the state exporter tells of records: every state from the start, and no text unbounded."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from idemwatch.exporter.labels import LONGEST_LABEL, label
from idemwatch.exporter.poisoned_collector import MOST, PoisonedCollector
from idemwatch.exporter.record_collector import (
    MOST_ENDPOINTS,
    STATES,
    Endpoint,
    RecordCollector,
    of_endpoints,
    top_endpoints,
)
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.statistics_store import Statistics
from support.promtool import faults, told
from support.stores import NAMESPACE, Subject, postgres_subject, redis_subject
from support.table import Table

OF_ENDPOINTS = ("records", "hits", "max_hits", "first_seen_timestamp_seconds",
                "last_hit_timestamp_seconds")  # fmt: skip
NAMES = {
    "records", "records_poisoned", "endpoints", "duplicate_endpoints",
    *(f"endpoint_{name}" for name in OF_ENDPOINTS),
}  # fmt: skip


@pytest.fixture
def collector(database_url: str) -> Iterator[RecordCollector]:
    collector = RecordCollector(PostgresLink(database_url), NAMESPACE)
    yield collector
    collector.close()


@pytest.fixture
def postgres(database_url: str) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield postgres_subject(stack, database_url)


@pytest.fixture
def in_redis(redis_url: str) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield redis_subject(stack, redis_url)


# -- PostgreSQL ------------------------------------------------------------------------------------


def test_a_new_database_has_every_series_at_0(collector: RecordCollector) -> None:
    found = told(collector.collect())
    assert set(found) == NAMES
    assert found["records"] == {("global", state): 0 for state in STATES}
    assert found["records_poisoned"] == {("postgres",): 0}
    assert (found["endpoints"], found["duplicate_endpoints"]) == ({(): 0}, {(): 0})
    assert all(found[f"endpoint_{name}"] == {} for name in OF_ENDPOINTS)


def test_records_are_told_by_scope_and_state(collector: RecordCollector, postgres: Subject) -> None:
    for number in range(3):
        postgres.finish(f"done:{number}")
    postgres.hold("running", scope="user", user_id="u")
    postgres.poison("poisoned")
    found = told(collector.collect())
    assert found["records"]["global", "done"] == 3
    assert found["records"]["global", "poisoned"] == 1
    assert found["records"]["user", "running"] == 1
    assert found["records"]["user", "done"] == 0, "every state of a scope that was seen"
    assert found["records_poisoned"] == {("postgres",): 1}
    postgres.store.forget("poisoned")
    postgres.lose("running")
    found = told(collector.collect())
    assert found["records_poisoned"] == {("postgres",): 0}
    assert found["records"]["user", "running"] == 0, "a scope that is empty again goes on at 0"


def test_poisoned_keys_of_another_namespace_do_not_count(
    collector: RecordCollector, database_url: str
) -> None:
    with ExitStack() as stack:
        postgres_subject(stack, database_url, "testing").poison()
    assert told(collector.collect())["records_poisoned"] == {("postgres",): 0}


def test_a_scope_that_is_none_of_ours_is_told_as_another(
    collector: RecordCollector, database_url: str
) -> None:
    table = Table(database_url)
    table.add(4, expires="1 hour")
    table.execute("UPDATE idempotency_record SET scope = 'scope of ' || key")
    found = told(collector.collect())
    assert found["records"]["__other__", "done"] == 4
    assert {scope for scope, _ in found["records"]} == {"__other__", "global"}


def test_endpoints_are_told_with_their_duplicates(
    collector: RecordCollector, link: PostgresLink, postgres: Subject
) -> None:
    postgres.finish("one", endpoint="app.one")
    statistics = Statistics(link, NAMESPACE)
    statistics.checked("app.one", "global", new=True)
    statistics.checked("app.two", "user", new=True)
    for _ in range(3):
        statistics.hit("one", "app.one", "global")
    statistics.stop()
    found = told(collector.collect())
    assert (found["endpoints"], found["duplicate_endpoints"]) == ({(): 2}, {(): 1})
    one, two = ("global", "app.one"), ("user", "app.two")
    assert found["endpoint_records"] == {one: 1, two: 1}
    assert found["endpoint_hits"] == {one: 3, two: 0}
    assert found["endpoint_max_hits"] == {one: 3, two: 0}
    assert set(found["endpoint_first_seen_timestamp_seconds"]) == {one, two}
    assert set(found["endpoint_last_hit_timestamp_seconds"]) == {one}
    assert found["endpoint_last_hit_timestamp_seconds"][one] == pytest.approx(
        found["endpoint_first_seen_timestamp_seconds"][one], abs=60
    )


def test_promtool_finds_no_fault(
    collector: RecordCollector, database_url: str, in_redis: Subject, redis_url: str
) -> None:
    Table(database_url).add(3, expires="1 hour")
    Table(database_url).execute("UPDATE endpoint_stats SET hits = 1, last_hit = 'infinity'")
    poisoned = PoisonedCollector(RedisLink.from_url(redis_url), NAMESPACE)
    families = collector.collect()
    names = {family.name for family in families}
    assert faults(families) == ""
    assert faults(poisoned.collect()) == "" and {one.name for one in poisoned.collect()} < names
    poisoned.close()


def test_a_hostile_row_is_told_as_any_other(collector: RecordCollector, database_url: str) -> None:
    table = Table(database_url)
    long = "x" * 300
    for name in (f"{long}1", f"{long}2", 'quote"\n\\', "früh 早"):
        table.add(1, endpoint=name, expires="1 hour")
    table.execute("UPDATE endpoint_stats SET first_seen = '-infinity'")
    table.execute(
        "INSERT INTO endpoint_stats (endpoint, scope) "
        "SELECT 'twice', n FROM generate_series(1, 3) AS n"
    )
    found = told(collector.collect())["endpoint_records"]
    assert len(found) == 5 and ("__other__", "twice") in found
    assert all(len(value) <= LONGEST_LABEL for labels in found for value in labels)


def test_a_database_that_is_away_is_an_error(database_url: str) -> None:
    collector = RecordCollector(PostgresLink("postgresql://nobody@127.0.0.1:1/none"), NAMESPACE)
    with pytest.raises(StoreUnavailable):
        collector.collect()
    assert list(collector.failed()) == []
    collector.close()


# -- the table of endpoints ------------------------------------------------------------------------


def endpoint(number: int, hits: int) -> Endpoint:
    return Endpoint(f"app.task{number}", "global", 1, hits, 1, 0.0, None)


def test_the_endpoints_with_the_most_hits_are_told() -> None:
    rows = [endpoint(n, hits=n) for n in range(100)]
    chosen = top_endpoints(rows)
    assert [one.hits for one in chosen] == list(range(99, 99 - MOST_ENDPOINTS, -1))


def test_an_endpoint_stays_until_another_is_clearly_ahead() -> None:
    rows = [endpoint(n, hits=1000) for n in range(MOST_ENDPOINTS)]
    shown = {one.key for one in rows}
    rival = endpoint(1000, hits=1050)
    assert rival not in top_endpoints([*rows, rival], shown)
    assert rival in top_endpoints([*rows, rival]), "where nothing was told before, hits decide"
    assert top_endpoints([*rows, endpoint(1000, hits=1101)], shown)[0].hits == 1101


def test_what_is_told_is_capped(collector: RecordCollector, database_url: str) -> None:
    Table(database_url).execute(
        "INSERT INTO endpoint_stats (endpoint, scope, hits) "
        "SELECT 'app.task' || n, 'global', n FROM generate_series(1, 300) AS n"
    )
    found = told(collector.collect())
    assert len(found["endpoint_hits"]) == MOST_ENDPOINTS
    assert min(found["endpoint_hits"].values()) == 251
    assert found["endpoints"] == {(): 300}


def test_labels_that_are_cut_stay_apart() -> None:
    chosen = random.Random(1)
    texts = ["".join(chosen.choices(string.ascii_letters, k=n)) for n in (1, 199, 200, 201, 5000)]
    assert [label(one) == one for one in texts] == [True, True, True, False, False]
    alike = {label("x" * 250 + str(n)) for n in range(100)}
    assert len(alike) == 100 and {len(one) for one in alike} == {LONGEST_LABEL}


def test_each_number_stands_in_its_own_family() -> None:
    row = Endpoint("t", "global", 1, 2, 3, 4.0, 5.0)
    values = [family.samples[0].value for family in of_endpoints([row])]
    assert values == [1, 2, 3, 4, 5]


# -- Redis -----------------------------------------------------------------------------------------


@pytest.fixture
def poisoned(redis_url: str) -> Iterator[PoisonedCollector]:
    collector = PoisonedCollector(RedisLink.from_url(redis_url), NAMESPACE)
    yield collector
    collector.close()


def number(collector: PoisonedCollector) -> float:
    return told(collector.collect())["records_poisoned"]["redis",]


def test_poisoned_keys_of_redis_are_counted(poisoned: PoisonedCollector, in_redis: Subject) -> None:
    assert number(poisoned) == 0
    in_redis.poison("one")
    in_redis.poison("two")
    in_redis.finish("three")
    assert number(poisoned) == 2
    in_redis.store.forget("one")
    assert number(poisoned) == 1


def test_a_key_that_is_listed_and_not_poisoned_does_not_count(
    poisoned: PoisonedCollector, in_redis: Subject, redis_url: str
) -> None:
    in_redis.poison("one")
    in_redis.finish("two")
    link = RedisLink.from_url(redis_url)
    link.call("SADD", f"{NAMESPACE}:poisoned", "two", "three", b"\xff", "four")
    link.call("LPUSH", f"{NAMESPACE}:{{four}}", "no record")
    link.close()
    assert number(poisoned) == 1


def test_of_very_many_the_rest_counts_as_listed(
    poisoned: PoisonedCollector, redis_url: str
) -> None:
    link = RedisLink.from_url(redis_url)
    link.call("SADD", f"{NAMESPACE}:poisoned", *range(MOST + 500))
    link.close()
    assert number(poisoned) == 500


def test_a_redis_that_is_away_is_an_error() -> None:
    collector = PoisonedCollector(RedisLink.from_url("redis://127.0.0.1:1"), NAMESPACE)
    with pytest.raises(StoreUnavailable):
        collector.collect()
    collector.close()
