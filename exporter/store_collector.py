"""Whether the stores answer: `idemwatch_store_up`, by a collector for each of them.

A store that does not answer is 0, whether it refuses, times out or hangs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from idemwatch.idempotency.errors import SchemaMismatch
from idemwatch.idempotency.postgres_link import Connection, PostgresLink, check_schema
from idemwatch.idempotency.redis_link import RedisLink
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .broker import Broker

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 10.0
"""After so long without an answer a store is not up."""


class StoreCollector:
    """One store; `ask` raises when it does not answer."""

    def __init__(self, name: str, ask: Callable[[], object], close: Callable[[], object]) -> None:
        self.name = name
        self._ask, self._close = ask, close

    def collect(self) -> Sequence[Metric]:
        self._ask()
        return (self._family(1),)

    def failed(self) -> Sequence[Metric]:
        return (self._family(0),)

    def close(self) -> None:
        self._close()

    def _family(self, value: int) -> Metric:
        family = GaugeMetricFamily(
            "idemwatch_store_up", "1 for a store that answers, else 0", labels=["store"]
        )
        family.add_metric([self.name], value)
        return family


def postgres_collector(link: PostgresLink) -> StoreCollector:
    """PostgreSQL. One that is not migrated is up, and the log says what is missing."""
    return StoreCollector("postgres", _Postgres(link).ask, link.close)


def redis_collector(link: RedisLink) -> StoreCollector:
    """Redis; of a cluster all masters."""
    return StoreCollector("redis", lambda: link.each("PING"), link.close)


def broker_collector(broker: Broker) -> StoreCollector:
    """The broker, asked by a connection of its own each time."""
    return StoreCollector("broker", broker.ping, lambda: None)


class _Postgres:
    """Asks, and logs it once when the schema is not that of this code."""

    def __init__(self, link: PostgresLink) -> None:
        self._link = link
        self._told = ""

    def ask(self) -> None:
        problem = ""
        try:
            self._link.run(_ping)
        except SchemaMismatch as error:
            problem = error.reason
        if problem and problem != self._told:
            log.warning("PostgreSQL answers, but %s", problem)
        self._told = problem


def _ping(connection: Connection) -> None:
    connection.execute("SELECT 1")
    check_schema(connection)
