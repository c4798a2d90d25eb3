"""The beat entry that purges: import this module in the app, and schedule `idemwatch.purge`.

app.conf.include = ["idemwatch.idempotency.purge_task"]
app.conf.beat_schedule = {"purge": {"task": "idemwatch.purge", "schedule": 3600}}
"""

from __future__ import annotations

import time

from celery import current_app, shared_task

from .app_settings import settings_of
from .engine import engine_for
from .errors import ConfigurationError
from .purge_store import purge


@shared_task(name="idemwatch.purge", ignore_result=True)  # type: ignore[untyped-decorator]
def purge_expired(max_seconds: float = 300.0) -> int:
    """Delete expired records for at most `max_seconds`; returns how many."""
    link = engine_for(settings_of(current_app)).stores.lender()
    if link is None:
        raise ConfigurationError("idempotency_database_url", "is not set: nothing to purge")
    deadline = time.monotonic() + max_seconds
    return sum(purge(link, stop=lambda: time.monotonic() > deadline))
