"""State exporters as the tests run them: in here, or as the command that operators start."""

from __future__ import annotations

import base64
import re
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from idemwatch.exporter import endpoint
from idemwatch.exporter.state import Options, State
from idemwatch.idempotency.settings import Settings
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from .commands import PROGRAM
from .stores import DEADLINE_SECONDS
from .venv import clean_environ

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Fake:
    """A collector that gives what it is told to, fails when told to, and hangs while `hold`."""

    def __init__(self, name: str = "fake", families: Sequence[Metric] = ()) -> None:
        self.name = name
        self.families: Iterable[Metric] = families
        self.instead: Sequence[Metric] = ()
        self.error: BaseException | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.entered = threading.Event()
        self.asked = 0
        self.closed = 0

    def collect(self) -> Iterable[Metric]:
        self.asked += 1
        self.entered.set()
        self.goes_on.wait(DEADLINE_SECONDS)
        if self.error is not None:
            raise self.error
        return self.families

    def failed(self) -> Iterable[Metric]:
        return self.instead

    def close(self) -> None:
        self.closed += 1


def gauge(name: str, values: Mapping[str, float], label: str = "n") -> GaugeMetricFamily:
    """A family with a label."""
    family = GaugeMetricFamily(name, f"Help of {name}", labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def series(text: str, *, openmetrics: bool = False) -> Series:
    """What an exposition tells, by name and labels."""
    parse = parse_openmetrics if openmetrics else text_string_to_metric_families
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(found: Series, name: str, /, **labels: str) -> float | None:
    """The value of one series; None when it is absent."""
    return found.get((f"idemwatch_{name}", frozenset(labels.items())))


def success(found: Series) -> dict[str, float]:
    """`idemwatch_collector_success` by collector."""
    return {
        dict(labels)["collector"]: number
        for (name, labels), number in found.items()
        if name == "idemwatch_collector_success"
    }


class Client:
    """Scrapes an exporter at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tls: ssl.SSLContext | None = None
        self.login: tuple[str, str] | None = None

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, str]:
        """Status and body of one request."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        if self.login is not None:
            token = base64.b64encode(":".join(self.login).encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def series(self) -> Series:
        """What a scrape tells."""
        status, text = self.get()
        assert status == 200, text
        return series(text)

    def success(self) -> dict[str, float]:
        """Which collectors succeed."""
        return success(self.series())

    def healthy(self) -> bool:
        """Whether all collectors succeed."""
        return set(self.success().values()) == {1.0}


@contextmanager
def open_exporter(
    settings: Settings, options: Options | None = None, app: Any | None = None
) -> Iterator[Client]:
    """A state exporter in this process."""
    state = State(settings, options or Options(refresh_seconds=1), app)
    running = endpoint.start(
        "127.0.0.1:0", collect=tuple, ready=state.problems, routes=state.routes()
    )
    try:
        state.start()
        yield Client(running.url)
    finally:
        running.close()
        state.close()


class ExporterProcess(Client):
    """`idemwatch exporter` as a process of its own, on a free port."""

    def __init__(
        self, *arguments: str, program: Sequence[str] = (PROGRAM,), **environ: str
    ) -> None:
        self._process = subprocess.Popen(
            [*program, "exporter", "--web.listen-address", "127.0.0.1:0", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environ(**environ), text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.told = self._process.stdout.readline()
        match = re.search(r"(https?://\S+)/metrics", self.told)
        if match is None:
            _, errors = self._process.communicate(timeout=DEADLINE_SECONDS)
            raise AssertionError(f"the exporter did not start: {self.told}{errors}")
        super().__init__(match[1])

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> ExporterProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal: exit code, and all that it logged."""
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=DEADLINE_SECONDS)
        return self._process.returncode, errors
