"""The Celery app of the facility application, pointed at its servers.

The servers come by the settings IDEMWATCH_* and CELERY_BROKER_URL (else the broker is the same
Redis); everything in them bears the namespace, so that the demo can share a Redis with others.
"""

from __future__ import annotations

import os
from typing import Final

from celery import Celery
from idemwatch.exporter.worker import serve_worker_metrics
from idemwatch.idempotency import Settings
from idemwatch.idempotency.settings import load

VISIBILITY: Final = "DEMO_VISIBILITY_SECONDS"
"""How long the broker waits for a message to be acknowledged. Short, it makes duplicates."""
SHORT_VISIBILITY_SECONDS: Final = 2


def configure(app: Celery, settings: Settings) -> None:
    """Point `app` at the servers of `settings`; all keys in Redis begin with the namespace.

    Celery itself lets CELERY_BROKER_URL win over what is set here.
    """
    app.conf.update(
        broker_url=(settings.redis_url or "").replace("unix://", "redis+socket://", 1) or None,
        broker_transport_options={
            "global_keyprefix": f"{settings.namespace}:",
            # Without the last two a redelivery comes only with every hundredth turn of the loop.
            "visibility_timeout": float(os.environ.get(VISIBILITY, SHORT_VISIBILITY_SECONDS)),
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        broker_connection_retry_on_startup=True,
        task_default_queue=settings.namespace,
        task_ignore_result=True,
        worker_prefetch_multiplier=4,
    )


app = Celery("demo")
configure(app, load())
serve_worker_metrics(app)
