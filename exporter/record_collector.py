"""What PostgreSQL knows of idempotency: records by state, and endpoints by their duplicates.

Invariants: what a refresh costs does not grow with the number of records; text from the database
is anyone's, so a label is cut, and a scope that is none of ours is told as another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from idemwatch.idempotency.metrics import OTHER
from idemwatch.idempotency.postgres_link import Connection, PostgresLink
from idemwatch.idempotency.record import State
from idemwatch.idempotency.settings import SCOPES
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .census import Census, Group
from .labels import label
from .read_only_store import read

MOST_ENDPOINTS: Final = 50
STAYS: Final = 1.1
"""An endpoint that is told stays until another has 10% more hits: so series do not churn."""
STATES: Final = tuple(state.value for state in State)

ENDPOINTS: Final = """
SELECT count(DISTINCT endpoint), count(DISTINCT endpoint) FILTER (WHERE hits > 0)
  FROM endpoint_stats
"""
# As numbers: a time that Python has no value for, as 'infinity', is one all the same.
TOP: Final = """
SELECT endpoint, scope, records, hits, max_hit_count,
       extract(epoch FROM first_seen)::float8, extract(epoch FROM last_hit)::float8
  FROM endpoint_stats ORDER BY hits DESC, endpoint, scope LIMIT %(most)s
"""
# The partial index idempotency_record_poisoned holds these and nothing else.
POISONED: Final = """
SELECT count(*) FROM idempotency_record
 WHERE state = 'poisoned' AND starts_with(key, %(head)s)
"""
OF_RECORDS: Final = (
    "Live records that PostgreSQL holds; a large table is counted a part at a time, so each part "
    "as it was at most a turn ago"
)
POISONED_TEXT: Final = "Keys that are refused until an operator forgets them, by who decides them"
_OF_ENDPOINTS: Final = {
    "records": "Records of the endpoint",
    "hits": "Duplicates that met a record of the endpoint",
    "max_hits": "Most duplicates that met one record of the endpoint",
    "first_seen_timestamp_seconds": "When the endpoint was seen first",
    "last_hit_timestamp_seconds": "When a duplicate of the endpoint came last",
}


class Endpoint(NamedTuple):
    """A row of the statistics; times in seconds since 1970."""

    task: str
    scope: str
    records: int
    hits: int
    max_hits: int
    first_seen: float | None
    last_hit: float | None

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.scope

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """In the order of their families."""
        return self.records, self.hits, self.max_hits, self.first_seen, self.last_hit


class RecordCollector:
    """Records and endpoints, as PostgreSQL has them."""

    name = "records"

    def __init__(self, link: PostgresLink, namespace: str, census: Census | None = None) -> None:
        self._link = link
        self._head = f"{namespace}:"
        self._census = census or Census(self._head)
        self._scopes = {"global"}
        self._told: frozenset[tuple[str, str]] = frozenset()

    def collect(self) -> list[Metric]:
        return read(self._link, self._families)

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        self._link.close()

    def _families(self, connection: Connection) -> list[Metric]:
        self._census.look(connection)
        top = connection.execute(TOP, {"most": 2 * MOST_ENDPOINTS}).fetchall()
        rows = [Endpoint(task, _known(scope), *rest) for task, scope, *rest in top]
        told = top_endpoints(rows, self._told)
        self._told = frozenset(one.key for one in told)
        endpoints, duplicated = connection.execute(ENDPOINTS).fetchone() or (0, 0)
        (poisoned,) = connection.execute(POISONED, {"head": self._head}).fetchone() or (0,)
        return [
            self._records(self._census.counts()),
            poisoned_family("postgres", poisoned),
            GaugeMetricFamily(
                "idemwatch_endpoints", "Tasks that have checked a key", value=endpoints
            ),
            GaugeMetricFamily(
                "idemwatch_duplicate_endpoints", "Tasks that have met a duplicate", value=duplicated
            ),
            *of_endpoints(told),
        ]

    def _records(self, counts: dict[Group, int]) -> Metric:
        found: Counter[Group] = Counter()
        for (scope, state), count in counts.items():
            found[_known(scope), state] += count
        self._scopes.update(scope for scope, _ in found)
        family = GaugeMetricFamily("idemwatch_records", OF_RECORDS, labels=["scope", "state"])
        for scope in sorted(self._scopes):
            for state in STATES:
                family.add_metric([scope, state], found[scope, state])
        return family


def top_endpoints(
    rows: Sequence[Endpoint], told: Collection[tuple[str, str]] = (), most: int = MOST_ENDPOINTS
) -> list[Endpoint]:
    """The rows with the most hits; those that were `told` before stay until clearly outdone."""
    first: dict[tuple[str, str], Endpoint] = {}
    for one in sorted(rows, key=lambda one: -one.hits * (STAYS if one.key in told else 1)):
        first.setdefault(one.key, one)
    return list(first.values())[:most]


def of_endpoints(endpoints: Sequence[Endpoint]) -> Iterator[Metric]:
    """The table of Top Duplicates."""
    for number, (name, text) in enumerate(_OF_ENDPOINTS.items()):
        family = GaugeMetricFamily(
            f"idemwatch_endpoint_{name}",
            f"{text}; the {MOST_ENDPOINTS} with the most duplicates",
            labels=["task", "scope"],
        )
        for one in endpoints:
            value = one.numbers[number]
            if value is not None:
                family.add_metric([label(one.task), one.scope], value)
        yield family


def _known(scope: str) -> str:
    return scope if scope in SCOPES else OTHER


def poisoned_family(authority: str, number: int) -> Metric:
    """The poisoned keys of one authority; each is told by a collector of its own."""
    family = GaugeMetricFamily("idemwatch_records_poisoned", POISONED_TEXT, labels=["authority"])
    family.add_metric([authority], number)
    return family
