"""The app of `celery -A support.troubled_app`: the demo's, whose messages may ask for trouble."""

from __future__ import annotations

from idemwatch.demo import app as _demo
from idemwatch.demo.celery_app import app

app.conf.task_ignore_result = False
journal = _demo.journal

__all__ = ["app", "journal"]
