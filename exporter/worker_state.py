"""What a worker's main process knows about itself: its tasks in hand and its pool.

Invariant: a scrape reads what the worker keeps in memory; nothing is asked of children or a broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.worker import state
from celery.worker.request import Request
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


def families(consumer: Any) -> Iterator[Metric]:
    """Gauges of the worker behind `consumer`."""
    tasks = GaugeMetricFamily(
        "idemwatch_worker_tasks", "Tasks that the worker holds", labels=["state"]
    )
    active = len(state.active_requests)
    tasks.add_metric(["active"], active)
    tasks.add_metric(["reserved"], max(len(state.reserved_requests) - active, 0))
    tasks.add_metric(["scheduled"], _scheduled(consumer))
    yield tasks
    yield GaugeMetricFamily(
        "idemwatch_worker_pool_processes", "Processes that run tasks", value=_processes(consumer)
    )


def _scheduled(consumer: Any) -> int:
    """Messages that wait for their ETA. Celery 5.6 knows them by the timer's queue alone."""
    requests = getattr(state, "scheduled_requests", None)
    if requests is not None:
        return len(requests)
    return sum(_is_request(event.entry) for event in list(consumer.timer.schedule.queue))


def _is_request(entry: Any) -> bool:
    return bool(entry.args) and isinstance(entry.args[0], Request)


def _processes(consumer: Any) -> int:
    """Children of a prefork pool; the other pools run their tasks in this process."""
    children = getattr(getattr(consumer.pool, "_pool", None), "_pool", None)
    return len(children) if isinstance(children, list) else 1
