"""The state exporter: a scrape of 10,000 series, and a refresh beside 1,000,000 records."""

from __future__ import annotations

import gc
import gzip
import time
import urllib.request
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Final

import psycopg
from idemwatch.exporter import endpoint
from idemwatch.exporter.exposition import Exposition
from idemwatch.exporter.refresh import Refresher
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency.settings import Settings
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from support.stores import wait_until

from .lab import Lab
from .measure import Measured, against

SERIES: Final = 10_000
FAMILIES: Final = 10
SCRAPES: Final = 300
REFRESH_SECONDS: Final = 1.0
"""Fifteen times as often as usual, so that refreshes fall into scrapes."""
MILLISECONDS: Final = 1000.0
HEADERS: Final = {  # those of Prometheus
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
    "Accept-Encoding": "gzip",
}
NAMESPACE: Final = Settings().namespace
FEW: Final = 1_000
MANY: Final = 1_000_000
TURNS: Final = 200
"""More than a turn of the census, so that each part of the large table is counted."""
_FILL: Final = """
INSERT INTO idempotency_record
      (key, endpoint, scope, request_hash, authority, state, owner, task_id, attempt, fence,
       lease_until, result, result_type, created_at, completed_at, expires_at)
SELECT %(namespace)s || ':work:' || n, 'app.task' || n %% 50, 'global', md5(n::text), 'postgres',
       'done', md5(n::text), md5(n::text), 0, n, now(), '{"sent": true}', 'application/json',
       now() - n * interval '0.05 seconds', now(), now() + interval '1 day'
  FROM generate_series(1, %(records)s::int) AS n
"""
_STATISTICS: Final = """
INSERT INTO endpoint_stats (endpoint, scope, records, hits)
SELECT 'app.task' || n, 'global', %(records)s::int / 50, n FROM generate_series(0, 49) AS n
"""


class _Table:
    """A collector of so many series, as those of schedules are."""

    name = "bench"

    def collect(self) -> Sequence[Metric]:
        return [self._family(number) for number in range(FAMILIES)]

    def failed(self) -> Sequence[Metric]:
        return ()

    def close(self) -> None:
        pass

    def _family(self, number: int) -> Metric:
        family = GaugeMetricFamily(
            f"idemwatch_bench{number}_timestamp_seconds", "A time", labels=["schedule", "task"]
        )
        for one in range(SERIES // FAMILIES):
            labels = [f"nightly report {one}", f"facility.reports.generate_{one}"]
            family.add_metric(labels, time.time() + one)
        return family


def scrape_10k(lab: Lab) -> Measured:
    """CPU of the whole process, the client's and that of refreshes meanwhile included: 99th of 100.

    Over HTTP, compressed, in the format that Prometheus asks for.
    """
    exposition = Exposition([Refresher(_Table(), interval_seconds=REFRESH_SECONDS)])
    routes = {"/metrics": ("metrics", exposition.metrics)}
    running = endpoint.start("127.0.0.1:0", collect=tuple, routes=routes)
    lab.stack.callback(exposition.close)
    lab.stack.callback(running.close)
    exposition.start()
    wait_until(lambda: not exposition.problems())
    text = gzip.decompress(_scrape(running.url)).decode()
    assert text.count("\nidemwatch_bench") == SERIES, "it tells all of them"
    gc.collect()
    spent = [_cpu(lambda: _scrape(running.url)) for _ in lab.turns(SCRAPES)]
    p99 = quantiles(spent, n=100)[-1] * MILLISECONDS
    return Measured(p99, {}, f"median {median(spent) * MILLISECONDS:.1f} ms")


def _scrape(url: str) -> bytes:
    request = urllib.request.Request(f"{url}/metrics", headers=HEADERS)
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def _cpu(operation: Callable[[], object]) -> float:
    began = time.process_time()
    operation()
    return time.process_time() - began


def refresh_1m(lab: Lab) -> Measured:
    """All collectors of a database in turn, from question to written text, by the clock."""
    few, many = (_refreshed(lab, records) for records in (FEW, MANY))
    return against(many, few, calls=1, turns=lab.turns(TURNS))


def _refreshed(lab: Lab, records: int) -> Callable[[], None]:
    url = lab.new_database(f"records_{records}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, {"namespace": NAMESPACE, "records": records})
        connection.execute(_STATISTICS, {"records": records})
        connection.execute("VACUUM ANALYZE")
    state = State(Settings(database_url=url), Options())
    lab.stack.callback(state.close)
    refreshers = [Refresher(one) for one in state.collectors]

    def refresh() -> None:
        for one in refreshers:
            one.refresh()
            assert one.seen().problem is None, one.seen().problem

    return refresh
