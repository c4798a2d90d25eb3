"""The peers' own way to do the same on Redis, with redis-py's client, one key a call.

Only what they do in the store: the time they take to make a key is not in it, but for Powertools,
which cannot do without. They are imported by name, since only `make bench` installs them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import redis

from .measure import Operation, names
from .work import RESULT, TASK_ID

ONCE: Final = "celery-once"
SINGLETON: Final = "celery-singleton"
POWERTOOLS: Final = "powertools"
PYTHON_REDIS_LOCK: Final = "python-redis-lock"
POTTERY: Final = "pottery"
REDIS_PY: Final = "redis-py Lock"
HASHED: Final = "hash spread"
JITTERED: Final = "random jitter"
PEERS: Final = (ONCE, SINGLETON, POWERTOOLS, PYTHON_REDIS_LOCK, POTTERY, REDIS_PY, HASHED, JITTERED)

SECONDS: Final = 30
_PACKAGES: Final = (
    "celery_once",
    "celery_singleton",
    "aws_lambda_powertools",
    "redis_lock",
    "cronstable",
)
_IDEMPOTENCY: Final = "aws_lambda_powertools.utilities.idempotency"


def missing() -> list[str]:
    """The peers' packages that are not installed."""
    return [package for package in _PACKAGES if find_spec(package) is None]


class Peers:
    """Operations of the peers on one Redis; `client` is for those that are given one."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        logging.getLogger("redis_lock").setLevel(logging.WARNING)
        self._url, self._client = url, client

    @cached_property
    def _once(self) -> Any:
        return import_module("celery_once.backends.redis").Redis({"url": self._url})

    @cached_property
    def _singleton(self) -> Any:
        return import_module("celery_singleton.backends.redis").RedisBackend(self._url)

    @cached_property
    def _powertools(self) -> Any:
        layer = powertools_layer(self._client)
        layer.configure(powertools_config(), function_name="bench")
        return layer

    def claim_new(self) -> dict[str, Operation]:
        """Take a key that nobody has."""
        once, singleton, layer = self._once, self._singleton, self._powertools
        keys = names("bench:new")
        return {
            ONCE: lambda: once.raise_or_lock(next(keys), SECONDS),
            SINGLETON: lambda: singleton.lock(next(keys), TASK_ID, expiry=SECONDS),
            POWERTOOLS: lambda: layer.save_inprogress({"key": next(keys)}, SECONDS * 1000),
        }

    def claim_complete(self) -> dict[str, Operation]:
        """Take a key and finish. The Celery peers keep no result: they delete the key."""
        once, singleton, layer = self._once, self._singleton, self._powertools
        keys = names("bench:complete")

        def once_both() -> None:
            key = next(keys)
            once.raise_or_lock(key, SECONDS)
            once.clear_lock(key)

        def singleton_both() -> None:
            key = next(keys)
            singleton.lock(key, TASK_ID, expiry=SECONDS)
            singleton.unlock(key)

        def powertools_both() -> None:
            data = {"key": next(keys)}
            layer.save_inprogress(data, SECONDS * 1000)
            layer.save_success(data, RESULT)

        return {ONCE: once_both, SINGLETON: singleton_both, POWERTOOLS: powertools_both}

    def duplicate(self) -> dict[str, Operation]:
        """Meet a key that is taken, or, in Powertools, finished, and read what is there."""
        once, singleton, layer = self._once, self._singleton, self._powertools
        queued = import_module("celery_once.tasks").AlreadyQueued
        exists = import_module(f"{_IDEMPOTENCY}.exceptions").IdempotencyItemAlreadyExistsError
        once_key, singleton_key = next(names("bench:once")), next(names("bench:singleton"))
        data = {"key": next(names("bench:powertools"))}
        once.raise_or_lock(once_key, 3600)
        singleton.lock(singleton_key, TASK_ID, expiry=3600)
        layer.save_inprogress(data, SECONDS * 1000)
        layer.save_success(data, RESULT)

        def singleton_duplicate() -> None:
            assert not singleton.lock(singleton_key, TASK_ID, expiry=3600)
            assert singleton.get(singleton_key) == TASK_ID

        def powertools_duplicate() -> None:
            _expect(exists, lambda: layer.save_inprogress(data, SECONDS * 1000))
            layer.get_record(data)

        return {
            ONCE: lambda: _expect(queued, lambda: once.raise_or_lock(once_key, 3600)),
            SINGLETON: singleton_duplicate,
            POWERTOOLS: powertools_duplicate,
        }

    def lock(self) -> dict[str, Operation]:
        """Acquire and release a lock; python-redis-lock renews it, as ours does."""
        client, keys = self._client, names("bench:lock")
        redis_py_lock = import_module("redis.lock").Lock
        python_redis_lock = import_module("redis_lock").Lock

        def redis_py() -> None:
            lock = redis_py_lock(client, next(keys), timeout=SECONDS)
            assert lock.acquire()
            lock.release()

        def renewed() -> None:
            lock = python_redis_lock(client, next(keys), expire=SECONDS, auto_renewal=True)
            assert lock.acquire()
            lock.release()

        return {REDIS_PY: redis_py, PYTHON_REDIS_LOCK: renewed, **_pottery(client)}


def _pottery(client: redis.Redis) -> dict[str, Operation]:
    """pottery's Redlock on one server, where it is installed: `make comparison` does that."""
    if find_spec("pottery") is None:
        return {}
    redlock, keys = import_module("pottery").Redlock, names("bench:redlock")

    def lock() -> None:
        lock = redlock(key=next(keys), masters={client}, auto_release_time=SECONDS)
        assert lock.acquire()
        lock.release()

    return {POTTERY: lock}


def celery_tasks(app: Any, work: Callable[..., None]) -> dict[str, Any]:
    """Tasks of the Celery peers, on the Redis that the app's conf names."""
    once = import_module("celery_once").QueueOnce
    singleton = import_module("celery_singleton").Singleton
    return {
        ONCE: app.task(name="bench.once", base=once, acks_late=True)(work),
        SINGLETON: app.task(name="bench.singleton", base=singleton, acks_late=True)(work),
    }


def celery_conf(url: str) -> dict[str, Any]:
    """What the Celery peers want to find in an app's conf."""
    settings = {"url": url, "default_timeout": 3600}
    return {
        "ONCE": {"backend": "celery_once.backends.Redis", "settings": settings},
        "singleton_backend_url": url,
        "singleton_lock_expiry": 3600,
    }


def powertools_layer(client: redis.Redis) -> Any:
    """Powertools' records in Redis."""
    return import_module(f"{_IDEMPOTENCY}.persistence.cache").CachePersistenceLayer(client=client)


def powertools_config() -> Any:
    """Records for a day, as ours; in Lambda, the context tells how long the claim holds."""
    return import_module(_IDEMPOTENCY).IdempotencyConfig(
        expires_after_seconds=86400, lambda_context=_LambdaContext()
    )


def powertools_function(layer: Any, work: Callable[[int], None]) -> Callable[[int], None]:
    """`work`, once for each number."""

    def worked(*, data: dict[str, int]) -> None:
        work(data["number"])

    idempotent = import_module(_IDEMPOTENCY).idempotent_function
    once = idempotent(
        worked, data_keyword_argument="data", persistence_store=layer, config=powertools_config()
    )
    return lambda number: once(data={"number": number})


class _LambdaContext:
    def get_remaining_time_in_millis(self) -> int:
        return SECONDS * 1000


def _expect(error: type[Exception], operation: Operation) -> None:
    try:
        operation()
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")
