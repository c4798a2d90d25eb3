"""A Celery app in need of a doctor: some of its tasks have faulty options.

Its conf comes from DOCTOR_CONF (JSON).
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from celery import Celery
from idemwatch.idempotency import IdempotentTask

app = Celery("sick", set_as_current=False)
app.conf.update(json.loads(os.environ.get("DOCTOR_CONF", "{}")))


def add(name: str, **options: Any) -> None:
    @app.task(name=f"sick.{name}", **options)  # type: ignore[untyped-decorator]
    def run() -> None:
        """Never run here."""


add("sound", base=IdempotentTask)
add("early", base=IdempotentTask, acks_late=False)
add("dropped", base=IdempotentTask, reject_on_worker_lost=False)
add("short", base=IdempotentTask, idempotency_ttl=timedelta(minutes=5))
add("hasty", base=IdempotentTask, time_limit=20, idempotency_lease=timedelta(seconds=60))
add("long", base=IdempotentTask, time_limit=7200)
add("plain")
add("plain_long", acks_late=True, time_limit=9000)
add(
    "far", base=IdempotentTask, autoretry_for=(OSError,), retry_backoff=60, retry_backoff_max=7200,
    max_retries=9,
)  # fmt: skip
