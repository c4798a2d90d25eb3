"""The Celery app of the worker benches: the same no-op task plain, protected, and by the peers.

BENCH_REDIS and BENCH_DATABASE (or nothing) are its stores.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import redis
from celery import Celery
from idemwatch.exporter import serve_worker_metrics
from idemwatch.idempotency import IdempotentTask

from .peers import celery_conf, celery_tasks, powertools_function, powertools_layer

REDIS = os.environ["BENCH_REDIS"]
DATABASE = os.environ.get("BENCH_DATABASE")

app = Celery("bench", broker=REDIS)
app.conf.update(
    broker_connection_retry_on_startup=True,
    idempotency_redis_url=REDIS,
    idempotency_database_url=DATABASE,
    idempotency_authority="postgres" if DATABASE else "redis",
    **celery_conf(REDIS),
)
serve_worker_metrics(app, "127.0.0.1:0")


def work(number: int) -> None:
    """A task that does nothing."""


plain: Any = app.task(name="bench.plain", acks_late=True)(work)
protected: Any = app.task(name="bench.protected", base=IdempotentTask)(work)
peers: dict[str, Any] = celery_tasks(app, work)


@cache
def _powertools() -> Any:
    """Made in the child: no connection is shared by a fork."""
    return powertools_function(powertools_layer(redis.Redis.from_url(REDIS)), work)


@app.task(name="bench.powertools", acks_late=True)  # type: ignore[untyped-decorator]
def powertools(number: int) -> None:
    """The same, once by Powertools."""
    _powertools()(number)
