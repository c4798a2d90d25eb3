"""A Celery app whose tasks count, for tests of the worker's own metrics.

METERED_BY is `line` (the line of code) or `setting`; METERED_PROBLEM is what readiness reports.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import prometheus_client
from celery import Celery, Task
from idemwatch.exporter import serve_worker_metrics
from idemwatch.exporter.worker import install_signals
from idemwatch.idempotency import metrics

HOST_CLASS = prometheus_client.values.ValueClass
HOSTS_OWN = prometheus_client.Counter("host_things_total", "A metric of the application")


def problems(app: Any) -> list[str]:
    problem = os.environ.get("METERED_PROBLEM")
    return [problem] if problem else []


class Metered(Task):  # type: ignore[misc]
    """Has what the exporter asks of an idempotent task."""

    def announce_metrics(self) -> None:
        metrics.announce(self.name, "global")


app = Celery("metered", task_cls=Metered)
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
if os.environ.get("METERED_BY") == "line":
    serve_worker_metrics(app, "127.0.0.1:0", ready=problems)
else:
    install_signals()


@app.task(name="metered.count")  # type: ignore[untyped-decorator]
def count() -> None:
    HOSTS_OWN.inc()
    if type(HOSTS_OWN._value) is HOST_CLASS is prometheus_client.values.ValueClass:
        metrics.claims("metered.count", "global", "granted").inc()
        metrics.task_seconds("metered.count").observe(0.2)


@app.task(name="metered.die")  # type: ignore[untyped-decorator]
def die() -> None:
    metrics.WRITEBEHIND_PENDING.set(5)
    metrics.claims("metered.die", "global", "granted").inc()
    os.kill(os.getpid(), signal.SIGKILL)
