"""A small endpoint to scrape, and a client that scrapes it."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterable

from idemwatch.exporter.endpoint import Endpoint
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

Start = Callable[..., Endpoint]


def collect() -> Iterable[Metric]:
    """Fifty series of one counter."""
    family = CounterMetricFamily("test_things", "Things", labels=["n"])
    for number in range(50):
        family.add_metric([str(number)], number)
    return [family]


class Got:
    """A response that was read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def get(
    running: Endpoint,
    path: str,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
) -> Got:
    """One request to a running endpoint."""
    host, port = running.address
    with contextlib.closing(
        http.client.HTTPSConnection(host, port, timeout=30, context=tls)
        if tls
        else http.client.HTTPConnection(host, port, timeout=30)
    ) as connection:
        connection.request(method, path, headers=headers or {})
        return Got(connection.getresponse())
