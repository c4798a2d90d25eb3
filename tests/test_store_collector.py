"""`idemwatch_store_up`: one collector a store, 1 only for a store that answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
from celery import Celery
from idemwatch.demo.servers import RedisServer
from idemwatch.exporter.broker import Broker
from idemwatch.exporter.store_collector import (
    StoreCollector,
    broker_collector,
    postgres_collector,
    redis_collector,
)
from idemwatch.idempotency.errors import StoreUnavailable
from idemwatch.idempotency.migrate import upgrade
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.redis_link import RedisLink
from prometheus_client.metrics_core import Metric

NOBODY = {
    "postgres": lambda: postgres_collector(PostgresLink("postgresql://u:s3cret@127.0.0.1:1/db")),
    "redis": lambda: redis_collector(RedisLink.from_url("redis://:s3cret@127.0.0.1:1/0")),
    "broker": lambda: broker_collector(
        Broker(Celery(broker="redis://:s3cret@127.0.0.1:1/0", set_as_current=False))
    ),
}


def told(families: Sequence[Metric]) -> dict[str, float]:
    (family,) = families
    assert family.name == "idemwatch_store_up"
    return {sample.labels["store"]: sample.value for sample in family.samples}


def test_a_store_that_answers_is_up(database_url: str, redis_url: str) -> None:
    app = Celery(broker=redis_url, set_as_current=False)
    for collector in (
        postgres_collector(PostgresLink(database_url)),
        redis_collector(RedisLink.from_url(redis_url)),
        broker_collector(Broker(app)),
    ):
        assert told(collector.collect()) == {collector.name: 1}
        collector.close()


@pytest.mark.parametrize("make", NOBODY.values(), ids=NOBODY)
def test_a_store_that_is_away_fails_and_is_told_as_0(make: Callable[[], StoreCollector]) -> None:
    collector = make()
    with pytest.raises(StoreUnavailable) as caught:
        collector.collect()
    assert "s3cret" not in str(caught.value)
    assert told(collector.failed()) == {collector.name: 0}
    collector.close()


def test_a_wrong_password_is_not_repeated(
    database_url: str, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis(config={"requirepass": "right"})
    head, _, rest = database_url.partition("@")
    wrong = (
        f"{head.partition('://')[0]}://{head.partition('://')[2].partition(':')[0]}:s3cret@{rest}"
    )
    for collector in (
        postgres_collector(PostgresLink(wrong)),
        redis_collector(RedisLink.from_url(server.url.replace("right", "s3cret"))),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            collector.collect()
        assert "s3cret" not in str(caught.value), collector.name


def test_a_database_that_is_not_migrated_is_up_and_the_log_says_once_what_to_do(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    collector = postgres_collector(PostgresLink(empty_database_url))
    for _ in range(3):
        assert told(collector.collect()) == {"postgres": 1}
    assert caplog.text.count("run `idemwatch db upgrade`") == 1
    upgrade(empty_database_url)
    caplog.clear()
    assert told(collector.collect()) == {"postgres": 1}
    assert caplog.text == ""
    collector.close()
