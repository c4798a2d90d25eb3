"""Which checks there are, by what is configured.

Invariant: what is not configured is said to be so, once; each check has connections of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery
from idemwatch.idempotency.app_tasks import import_tasks
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.settings import Settings

from . import doctor_postgres_store as store
from .doctor_findings import Finding, error, info, ok, warning
from .doctor_postgres import Postgres
from .doctor_prometheus import Prometheus, unasked
from .doctor_redis import Redis
from .doctor_run import Check
from .doctor_task_facts import AppFacts, app_facts
from .doctor_tasks import result_finding, task_findings, visibility_findings
from .doctor_versions import check_versions
from .doctor_workers import Workers, directory_findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to look. `settings`: None when they are wrong, which `problem` tells."""

    settings: Settings | None
    problem: str = ""
    app: Any | None = None
    broker_url: str | None = field(default=None, repr=False)
    prometheus_url: str | None = field(default=None, repr=False)
    jobs: tuple[str, ...] = ()


def checks(places: Places) -> list[Check]:
    """All that can be looked at."""
    found = [
        Check("versions", check_versions),
        Check("settings", partial(_settings, places.settings, places.problem)),
    ]
    facts, problem = _facts(places.app)
    found.append(Check("tasks", partial(_tasks, facts, problem)))
    if places.settings is not None:
        found += _of_stores(places.settings, facts)
        if facts is not None:
            found.append(Check("visibility", partial(_visibility, facts, places.settings)))
    found += _of_broker(places, facts)
    found += _of_prometheus(places)
    return found


def _facts(app: Any | None) -> tuple[AppFacts | None, str]:
    if app is None:
        return None, ""
    try:
        import_tasks(app)
        return app_facts(app), ""
    except ConfigurationError as problem:
        return None, str(problem)
    except Exception as problem:  # as a result backend that cannot be imported
        told = f"the app's configuration cannot be used: {type(problem).__name__}"
        return None, told


def _settings(settings: Settings | None, problem: str) -> Iterator[Finding]:
    if settings is None:
        yield error("settings", problem, "correct it: no worker starts with this")
        return
    if settings.store == "memory":
        told = "store is memory: each process has records of its own, and nothing is shared"
        yield error("settings", told, "unset IDEMWATCH_STORE, but in unit tests")
        return
    if settings.database_url is None and settings.redis_url is None:
        told = "neither idempotency_database_url nor idempotency_redis_url is set"
        yield error("settings", told, "set one, or say --database-url or --redis-url")
        return
    if not settings.enabled:
        told = "idempotency_enabled is off: no task is protected"
        yield warning("settings", told, "turn it on again")
    yield ok("settings", f"valid; namespace {settings.namespace}, authority {settings.authority}")
    if settings.database_url is None and settings.authority == "postgres":
        told = "authority is postgres, and idempotency_database_url is not set"
        yield error("settings", told, "set it, or idempotency_authority = 'redis'")
    if settings.redis_url is None and settings.authority == "redis":
        told = "authority is redis, and idempotency_redis_url is not set"
        yield error("settings", told, "set it, or idempotency_authority = 'postgres'")


def _tasks(facts: AppFacts | None, problem: str) -> Iterable[Finding]:
    if problem:
        return [error("tasks", problem, "correct the app, or name it as its workers do (-A)")]
    if facts is None:
        how = "`celery -A proj idemwatch doctor` looks at an app's tasks too"
        return [info("tasks", "not looked at: no app is named", how)]
    return [*task_findings(facts), result_finding(facts)]


def _of_stores(settings: Settings, facts: AppFacts | None) -> Iterator[Check]:
    if settings.store == "memory":
        return
    namespace = settings.namespace
    if settings.database_url is not None:
        postgres = Postgres(settings.database_url, namespace)
        yield Check("postgres", postgres.answers, primary=True)
        yield Check("rights", postgres.rights)
        yield Check("clocks", postgres.clock)
        yield Check("records", postgres.records)
        yield Check("beats", postgres.beats)
    if settings.redis_url is not None:
        authorities = {settings.authority} if facts is None else facts.authorities
        redis = Redis(settings.redis_url, namespace, decides="redis" in authorities)
        yield Check("redis", redis.answers, primary=True)
        yield Check("clocks", redis.clock)
        yield Check("records", redis.records)
        yield Check("metrics", partial(directory_findings, settings.redis_url, namespace))


def _visibility(facts: AppFacts, settings: Settings) -> Iterator[Finding]:
    runs: dict[str, store.Runs] = {}
    if settings.database_url is not None and settings.store != "memory":
        try:
            with store.connected(settings.database_url) as connection:
                names = [one.name for one in facts.tasks]
                runs = store.durations(connection, settings.namespace, names)
        except StoreUnavailable:
            yield info("visibility", "by time limits alone: what runs took was not read")
    yield from visibility_findings(facts, runs)


def _of_broker(places: Places, facts: AppFacts | None) -> Iterator[Check]:
    app, url = places.app, places.broker_url
    if url is None and (app is None or not app.conf.broker_read_url):
        return
    if app is None:
        app = Celery("idemwatch", broker=url, set_as_current=False)
    try:
        workers = Workers(app, url)
    except ConfigurationError as problem:
        told = [error("broker", str(problem), "correct it")]
        yield Check("broker", lambda: told)
        return
    yield Check("broker", workers.broker, primary=True)
    if facts is not None or url is not None:
        yield Check("workers", workers.clocks)


def _of_prometheus(places: Places) -> Iterator[Check]:
    if places.prometheus_url is None:
        yield Check("prometheus", lambda: [unasked()])
        return
    prometheus = Prometheus(places.prometheus_url, places.jobs)
    yield Check("prometheus", prometheus.targets)
    yield Check("prometheus", prometheus.rules)
