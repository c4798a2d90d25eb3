"""The workers' part of `idemwatch doctor`: do they answer, are their clocks right, are their
metrics reachable.

Clocks are read from heartbeats that are asked for: one that comes was written between the question
and its arrival, so the round trip is known. Invariant: all of it ends within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final

from idemwatch.idempotency.errors import StoreUnavailable

from .broker import Broker
from .doctor_clock import Look, clock_finding, skew
from .doctor_fetch import NotFetched, fetch
from .doctor_findings import Finding, Level, error, info, listed, ok, warning
from .doctor_redis_store import connected, is_refused
from .worker_collector import LIVE_SECONDS
from .worker_directory_store import Listed, WorkerDirectory

LISTEN_SECONDS: Final = 3.0
MOST_FETCHED: Final = 20
MOST_CLOCKS: Final = 1000


class Workers:
    """The checks on the workers of an app, by its broker."""

    def __init__(self, app: Any, broker_url: str | None) -> None:
        self._app, self._broker = app, Broker(app, broker_url)

    def broker(self) -> Iterator[Finding]:
        """Does the broker answer."""
        self._broker.ping()
        yield ok("broker", "the broker answers")

    def clocks(self) -> Iterator[Finding]:
        """The clocks of the workers' hosts."""
        with self._broker.connected() as connection:
            found = self._heartbeats(connection)
        yield from heartbeat_findings(found)

    def _heartbeats(self, connection: Any) -> dict[str, list[Look]]:
        """By worker; each tells its host's time."""
        found: dict[str, list[Look]] = {}

        def heard(event: Mapping[str, Any]) -> None:
            name, told = event.get("hostname"), event.get("timestamp")
            if isinstance(name, str) and isinstance(told, int | float) and len(found) < MOST_CLOCKS:
                found.setdefault(name, []).append(Look(asked, float(told), time.time()))

        asked = time.time()
        receiver = self._app.events.Receiver(connection, handlers={"worker-heartbeat": heard})
        # As it was sent: Celery shifts it by the difference of two time zones.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        deadline = time.monotonic() + LISTEN_SECONDS
        with suppress(TimeoutError):  # nothing more comes
            for _ in receiver.itercapture(limit=None, timeout=LISTEN_SECONDS, wakeup=True):
                if time.monotonic() > deadline:
                    break
        return found


def heartbeat_findings(found: Mapping[str, Sequence[Look]]) -> Iterator[Finding]:
    """One finding for all clocks that are right, one for each that is not."""
    if not found:
        yield warning(
            "workers", f"no worker sent a heartbeat within {LISTEN_SECONDS:g} s",
            "start workers, or see whether they run without heartbeat (--without-heartbeat)",
        )  # fmt: skip
        return
    each = {name: clock_finding(name, skew(looks)) for name, looks in sorted(found.items())}
    right = [name for name, finding in each.items() if finding.level is Level.OK]
    if right:
        yield ok("clocks", f"workers that go by this host's time: {listed(right)}")
    yield from (one for one in each.values() if one.level is not Level.OK)


def directory_findings(url: str, namespace: str) -> Iterator[Finding]:
    """Workers as they registered in Redis, and whether their metrics are reached from here."""
    try:
        with connected(url) as link, closing(WorkerDirectory(link, namespace)) as directory:
            listed_ones = directory.workers()
    except StoreUnavailable as problem:
        if not is_refused(problem):
            raise
        yield info("metrics", "which workers are registered is not told (this user may not ask)")
        return
    live = [one for one in listed_ones if one.ago_seconds < LIVE_SECONDS]
    if not live:
        yield info(
            "metrics", "no worker is registered in Redis",
            "idempotency_metrics_address lets workers serve their metrics, and register",
        )  # fmt: skip
    dead = [one.node for one in listed_ones if one.ago_seconds >= LIVE_SECONDS]
    if dead:
        told = f"registered, but not seen for {LIVE_SECONDS:g} s: {listed(dead)}"
        yield warning("metrics", told, "see whether these workers died")
    yield from (fetched(one) for one in live[:MOST_FETCHED])


def fetched(worker: Listed) -> Finding:
    """Whether its metrics are there."""
    if worker.target is None:
        told = f"{worker.node} serves its metrics for its own host only"
        return info("metrics", told, "idempotency_metrics_advertise says where it is reached")
    url = f"{worker.scheme}://{worker.target}/metrics"
    change = "see the log of the worker, and whether a firewall is in between"
    if worker.scheme == "https":
        change += "; a certificate of your own is trusted here by SSL_CERT_FILE"
    try:
        page = fetch(url)
    except NotFetched as problem:
        if problem.status == 401:
            return ok("metrics", f"{worker.node} answers at {worker.target}, and wants a password")
        return error("metrics", f"metrics of {worker.node} are not reached: {problem}", change)
    if "idemwatch_" not in page:
        told = f"what answers at {url} are no metrics of idemwatch"
        return error("metrics", told, "another service may have its port: restart the worker")
    return ok("metrics", f"{worker.node} serves at {worker.target}")
