"""The app of `celery -A support.facility_app`: the facility tasks, with results."""

from __future__ import annotations

from idemwatch.demo import facility as _facility  # noqa: F401  its tasks
from idemwatch.demo.celery_app import app

app.conf.task_ignore_result = False

__all__ = ["app"]
