"""The app of a simulation's workers: `celery -A idemwatch.demo.simulate_worker worker`.

Invariant: it runs on the servers that its environment names, and on no others; without that
environment it does not run at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from celery.app.utils import find_app
from celery.signals import worker_init
from idemwatch.exporter.worker import install_signals
from idemwatch.idempotency.errors import ConfigurationError

from .simulate_harness import Harness
from .simulate_ledger import Journal
from .simulate_plan import LEASE_SECONDS
from .simulate_redirect import (
    CONF,
    Servers,
    check,
    idempotency_settings,
    override,
    redirect,
    stay_with,
)
from .simulate_tasks import Database, make_app


def load(conf: dict[str, Any]) -> Any:
    """The app, redirected, with the tasks under test watched."""
    servers = Servers(**conf["servers"])
    stay_with(servers)
    journal = Journal(servers.ledger_url, conf["worker"])
    protected = bool(conf["protected"])
    if conf["app"] is None:
        app = make_app(journal, Database(servers.database_url), protected=protected)
    else:
        app = users_app(conf["app"])
    redirect(app, servers, idempotency_settings(servers, LEASE_SECONDS, conf["metrics_dir"]))
    watched = {name: app.tasks[name] for name in conf["tasks"]}
    if conf["app"] is not None:
        _time_lapse(app, watched.values(), protected=protected)
    Harness(journal, writes_effects=conf["app"] is not None).install(watched)
    install_signals()
    worker_init.connect(lambda sender, **_: _require_ours(sender.app, servers), weak=False)
    return app


def users_app(spec: str) -> Any:
    """The app that `celery -A` would find, with all its tasks."""
    app = find_app(spec)
    app.loader.import_default_modules()
    app.finalize()
    return app


def _time_lapse(app: Any, watched: Iterable[Any], *, protected: bool) -> None:
    """Short leases for the tasks under test; protected or not; and no backend of a task's own."""
    options: dict[str, object] = {"lease": timedelta(seconds=LEASE_SECONDS)}
    override(watched, options if protected else {**options, "enabled": False})
    for task in app.tasks.values():
        task.backend = None


def _require_ours(app: Any, servers: Servers) -> None:
    """Celery only logs what a signal's handler raises, unless it ends the process."""
    try:
        check(app, servers)
    except ConfigurationError as error:
        raise SystemExit(f"idemwatch: {error}") from None


if CONF not in os.environ:
    raise ConfigurationError(CONF, "is not set: only `idemwatch simulate` starts this")
app = load(json.loads(os.environ[CONF]))
