"""Which collectors there are, by what is configured, and what they share.

Invariant: each collector has links of its own, so that one that hangs takes no connection from
another; what is not configured has no collector, and no metric that says it is away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from celery import Celery
from idemwatch.alerts.thresholds import Thresholds
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.clock import zone_of

from . import service_discovery
from .beat_collector import BeatCollector
from .broker import Broker
from .collector import Collector
from .constant_metrics import constants
from .endpoint import Route
from .exposition import Exposition
from .poisoned_collector import PoisonedCollector
from .queue_collector import QueueCollector, queues_of
from .record_collector import RecordCollector
from .refresh import INTERVAL_SECONDS, LEAST_KEPT_SECONDS, Refresher
from .requests import Answer, Request
from .schedule_collector import ScheduleCollector
from .schedule_source import ScheduleSource
from .store_collector import (
    DEADLINE_SECONDS,
    StoreCollector,
    broker_collector,
    postgres_collector,
    redis_collector,
)
from .worker_capacity import WorkerCapacity
from .worker_collector import WorkerCollector
from .worker_directory_store import WorkerDirectory

ANSWER_SECONDS: Final = 60.0
"""Longer than a read may take by the server's clock, which ends it better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says, beside the settings."""

    refresh_seconds: float = INTERVAL_SECONDS
    source: str | None = None
    capacity: float | None = None
    zone: str = "UTC"
    queues: tuple[str, ...] = ()
    broker_url: str | None = field(default=None, repr=False)
    thresholds: Thresholds = field(default_factory=Thresholds)


class State:
    """The exporter's collectors and what it serves. Nothing is asked before `start`.

    Raises ConfigurationError or InvalidSchedule for what can never work.
    """

    def __init__(self, settings: Settings, options: Options, app: Any | None = None) -> None:
        self._settings, self._options, self._app = settings, options, app
        zone_of(options.zone)
        self._workers = self._worker_collector()
        self.collectors = tuple(self._collectors())
        if not self.collectors:
            raise ConfigurationError(
                "nothing to look at",
                "set IDEMWATCH_DATABASE_URL or IDEMWATCH_REDIS_URL (--database-url, --redis-url), "
                "or give a broker (--broker-url), schedules (--source) or an app (celery -A proj "
                "idemwatch exporter)",
            )
        refreshers = [self._refresher(one) for one in self.collectors]
        self._exposition = Exposition(refreshers, constants(options.thresholds))
        self.start, self.close = self._exposition.start, self._exposition.close
        self.problems, self.text = self._exposition.problems, self._exposition.text

    def routes(self) -> Mapping[str, tuple[str, Route]]:
        """What the endpoint serves beside its probes."""
        found = _unknown if self._workers is None else service_discovery.route(self._workers)
        text = "metrics of stores, schedules, queues and workers"
        return {
            "/metrics": (text, self._exposition.metrics),
            service_discovery.PATH: (service_discovery.TEXT, found),
        }

    def _refresher(self, collector: Collector) -> Refresher:
        return Refresher(
            collector,
            interval_seconds=self._options.refresh_seconds,
            deadline_seconds=DEADLINE_SECONDS if isinstance(collector, StoreCollector) else None,
        )

    def _collectors(self) -> Iterator[Collector]:
        namespace = self._settings.namespace
        if self._settings.database_url is not None:
            yield postgres_collector(self._database())
            yield RecordCollector(self._database(), namespace)
            yield BeatCollector(self._database())
        if self._workers is not None:
            yield redis_collector(self._redis())
            yield PoisonedCollector(self._redis(), namespace)
            yield self._workers
        yield from self._of_schedules()
        yield from self._of_broker()

    def _of_schedules(self) -> Iterator[Collector]:
        link = None if self._settings.database_url is None else self._database()
        if self._options.source is None and self._app is None and link is None:
            return
        source = ScheduleSource(
            self._options.source, app=self._app, settings=self._settings, link=link
        )
        source.check()
        capacity = WorkerCapacity(self._options.capacity, self._workers, self._settings)
        yield ScheduleCollector(
            source.read, capacity, link,
            zone=self._options.zone, namespace=self._settings.namespace,
        )  # fmt: skip

    def _of_broker(self) -> Iterator[Collector]:
        app, url, queues = self._app, self._options.broker_url or None, self._options.queues
        if url is None and (app is None or not app.conf.broker_read_url):
            if queues:
                raise ConfigurationError(
                    "--queue", "needs a broker: --broker-url, CELERY_BROKER_URL or an app with one"
                )
            return
        if not all(queues):
            raise ConfigurationError("--queue", "a queue has a name")
        if app is None:
            app = Celery("idemwatch", broker=url, set_as_current=False)
        broker = Broker(app, url)
        yield broker_collector(broker)
        yield QueueCollector(broker, queues or queues_of(app))

    def _worker_collector(self) -> WorkerCollector | None:
        if self._settings.redis_url is None:
            return None
        directory = WorkerDirectory(self._redis(), self._settings.namespace)
        kept = max(LEAST_KEPT_SECONDS, 4 * self._options.refresh_seconds)
        return WorkerCollector(directory, stale_seconds=kept)

    def _database(self) -> PostgresLink:
        settings = self._settings
        url = settings.database_url or ""
        return PostgresLink(url, ANSWER_SECONDS, pooled=settings.database_pooled)

    def _redis(self) -> RedisLink:
        return RedisLink.from_url(self._settings.redis_url or "")


def _unknown(_: Request) -> Answer:
    text = "workers register in Redis, and no Redis is configured: set IDEMWATCH_REDIS_URL"
    return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, text)
