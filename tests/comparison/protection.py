"""How each system protects a task's body, with the settings that systems.py tells.

All of them acknowledge late and give the message back when a child dies. The peers are imported by
name, since only `make comparison` installs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

import redis
from celery import Celery
from idemwatch.idempotency import IdempotentTask

from .systems import LEASE_SECONDS, ONCE, PLAIN, POSTGRES, POWERTOOLS, REDIS, SINGLETON

LATE: Final = {"acks_late": True, "reject_on_worker_lost": True}
RECORD_SECONDS: Final = 3600
_IDEMPOTENCY: Final = "aws_lambda_powertools.utilities.idempotency"


@dataclass(frozen=True)
class Kind:
    """A task's name, how long a peer's lock on it lasts, the one argument that is its key (None:
    all), and options that are Celery's own."""

    name: str
    hold_seconds: int
    key: str | None = None
    celery: dict[str, Any] = field(default_factory=dict)


Body = Callable[..., Any]


def protect(system: str, app: Celery, store: str, kind: Kind, body: Body) -> Any:
    """The task `kind.name` of an app: `body` as the system protects it, on the Redis `store`."""
    return _PROTECTIONS[system](app, store, kind, body)


def conf(system: str, store: str, database: str) -> dict[str, Any]:
    """What a system wants to find in the app's conf."""
    if system in (POSTGRES.name, REDIS.name):
        return {
            "idempotency_authority": "postgres" if system == POSTGRES.name else "redis",
            "idempotency_redis_url": store,
            "idempotency_database_url": database,
            "idempotency_lease": LEASE_SECONDS,
        }
    backend = {"backend": "celery_once.backends.Redis", "settings": {"url": store}}
    return {"ONCE": backend, "singleton_backend_url": store}


def _idemwatch(app: Celery, store: str, kind: Kind, body: Body) -> Any:
    key = {} if kind.key is None else {"idempotency_key": _picked(kind.key)}
    return app.task(name=kind.name, base=IdempotentTask, bind=True, **key, **kind.celery)(body)


def _picked(name: str) -> Callable[..., str]:
    def key(task: Any, *args: Any, **kwargs: Any) -> str:
        bound = inspect.signature(task.run).bind(*args, **kwargs)
        return f"{task.name}/{bound.arguments[name]}"

    return key


def _once(app: Celery, store: str, kind: Kind, body: Body) -> Any:
    base = import_module("celery_once").QueueOnce
    once: dict[str, Any] = {
        "graceful": False,
        "unlock_before_run": False,
        "timeout": kind.hold_seconds,
    }
    if kind.key is not None:
        once["keys"] = [kind.key]
    options = {**LATE, **kind.celery}
    return app.task(name=kind.name, base=base, bind=True, once=once, **options)(body)


def _singleton(app: Celery, store: str, kind: Kind, body: Body) -> Any:
    base = import_module("celery_singleton").Singleton
    unique_on = None if kind.key is None else [kind.key]
    guard = {"lock_expiry": kind.hold_seconds, "unique_on": unique_on}
    return app.task(name=kind.name, base=base, bind=True, **guard, **LATE, **kind.celery)(body)


def _plain(app: Celery, store: str, kind: Kind, body: Body) -> Any:
    return app.task(name=kind.name, bind=True, **LATE, **kind.celery)(body)


def _powertools(app: Celery, store: str, kind: Kind, body: Body) -> Any:
    errors = import_module(f"{_IDEMPOTENCY}.exceptions")
    again = (
        errors.IdempotencyAlreadyInProgressError,
        errors.IdempotencyInconsistentStateError,
        errors.IdempotencyPersistenceLayerError,
    )
    names = list(inspect.signature(body).parameters)[1:]

    @cache
    def once() -> Any:
        """Made in the child: no connection is shared by a fork."""
        return _powertools_function(redis.Redis.from_url(store), kind, body)

    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(body).bind(self, *args, **kwargs)
        bound.apply_defaults()
        return once()(task=self, data={name: bound.arguments[name] for name in names})

    return app.task(
        name=kind.name,
        bind=True,
        autoretry_for=again,
        retry_kwargs={"countdown": 1},
        max_retries=None,
        **LATE,
        **kind.celery,
    )(guarded)


def _powertools_function(client: redis.Redis, kind: Kind, body: Body) -> Any:
    def worked(*, task: Any, data: dict[str, Any]) -> Any:
        return body(task, **data)

    package = import_module(_IDEMPOTENCY)
    layer = import_module(f"{_IDEMPOTENCY}.persistence.cache").CachePersistenceLayer(client=client)
    config = package.IdempotencyConfig(
        expires_after_seconds=RECORD_SECONDS,
        lambda_context=_Context(kind.hold_seconds),
        event_key_jmespath="" if kind.key is None else kind.key,
        payload_validation_jmespath="" if kind.key is None else "@",
    )
    return package.idempotent_function(
        worked,
        data_keyword_argument="data",
        persistence_store=layer,
        config=config,
        key_prefix=kind.name,
    )


@dataclass(frozen=True)
class _Context:
    """What tells Powertools how long an execution may take."""

    seconds: int

    def get_remaining_time_in_millis(self) -> int:
        return self.seconds * 1000


_PROTECTIONS: Final[dict[str, Callable[[Celery, str, Kind, Body], Any]]] = {
    POSTGRES.name: _idemwatch,
    REDIS.name: _idemwatch,
    ONCE.name: _once,
    SINGLETON.name: _singleton,
    POWERTOOLS.name: _powertools,
    PLAIN.name: _plain,
}
