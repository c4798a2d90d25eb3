"""What is checked when a worker starts: settings, task options, and the servers."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import worker_init

from .app_settings import settings_of
from .engine import close_engines, engine_for
from .errors import ConfigurationError
from .redis_store import RedisStore
from .service import authorities, ready
from .stores import warn_of_eviction

log = logging.getLogger(__name__)


def check(app: Any) -> None:
    """Raise ConfigurationError for any setting or task option that cannot work.

    A server that is away or not migrated is only told: messages wait until it is there.
    """
    engine = engine_for(settings_of(app))
    for problem in ready(app):
        log.warning("tasks wait for their store: %s", problem)
    for authority in authorities(app):
        store = engine.stores.get(authority)
        if isinstance(store, RedisStore):
            warn_of_eviction(store)


def _check_worker(sender: Any, **_: Any) -> None:
    """Celery only logs what a signal handler raises, so a wrong setting ends the process."""
    try:
        check(sender.app)
    except ConfigurationError as error:
        raise SystemExit(f"idemwatch: {error}") from None
    finally:
        close_engines()  # no connection of the parent's goes into its children


worker_init.connect(_check_worker, weak=False)
