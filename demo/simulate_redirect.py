"""Turns a Celery app of the user's away from all servers that it knows, to those of the simulation.

Invariants: no broker, result backend or store of idemwatch but ours is connected to, however and
whenever the app names its own; a worker that would do so does not start. What the tasks themselves
connect to is beyond reach, and is said before they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from idemwatch.idempotency.app_settings import reread_settings
from idemwatch.idempotency.engine import Engine
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings

from .simulate_plan import VISIBILITY_SECONDS

CONF: Final = "SIMULATE_CONF"
"""The variable that tells a worker its part, as JSON."""
QUEUE: Final = "celery"
VARIABLES: Final = ("IDEMWATCH_", "SIMULATE_")
"""The beginnings of those that a worker gets from us alone."""
CELERY_VARIABLES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
)


_TIME_LAPSE: Final[Mapping[str, object]] = {
    "broker_transport": None,
    "broker_use_ssl": None,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        "visibility_timeout": VISIBILITY_SECONDS,
        # Without these a redelivery comes only with every hundredth turn of the loop.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "result_backend_transport_options": {},
    "redis_backend_use_ssl": None,
    "task_always_eager": False,
    "task_default_queue": QUEUE,
    "task_default_exchange": None,
    "task_default_routing_key": None,
    "task_queues": None,
    "task_routes": None,
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Where one play takes place. `ledger_url`: the PostgreSQL of `database_url`, never harmed."""

    broker_url: str
    backend_url: str
    redis_url: str
    database_url: str
    ledger_url: str

    def environment(self) -> dict[str, str]:
        """What Celery lets win over an app's own configuration."""
        return {
            **dict.fromkeys(CELERY_VARIABLES, self.broker_url),
            "CELERY_RESULT_BACKEND": self.backend_url,
            "IDEMWATCH_REDIS_URL": self.redis_url,
            "IDEMWATCH_DATABASE_URL": self.database_url,
        }

    def as_dict(self) -> dict[str, str]:
        """For the worker's processes."""
        return asdict(self)


def stay_with(servers: Servers) -> None:
    """Before the user's modules are imported: whatever settings an engine is given, it stays here.

    A service that was made with an app's own settings is caught too.
    """
    made = Engine.__init__

    def init(self: Engine, settings: Settings) -> None:
        made(self, here(settings, servers))

    Engine.__init__ = init  # type: ignore[method-assign]


def idempotency_settings(
    servers: Servers, lease_seconds: float, metrics_dir: str
) -> dict[str, object]:
    """Those of idemwatch, over the app's."""
    return {
        "idempotency_redis_url": servers.redis_url,
        "idempotency_database_url": servers.database_url,
        "idempotency_store": "servers",
        "idempotency_lease": lease_seconds,
        "idempotency_metrics_address": "127.0.0.1:0",
        "idempotency_metrics_advertise": None,
        "idempotency_metrics_web_config": None,
        "idempotency_metrics_dir": metrics_dir,
    }


def here(settings: Settings, servers: Servers) -> Settings:
    """The same settings, with our stores."""
    return replace(
        settings, redis_url=servers.redis_url, database_url=servers.database_url, store="servers"
    )


def redirect(app: Any, servers: Servers, more: Mapping[str, object]) -> None:
    """Point the app at our servers, with one queue, the settings of a time-lapse, and `more`."""
    ours = {
        **_TIME_LAPSE,
        **dict.fromkeys(("broker_url", "broker_read_url", "broker_write_url"), servers.broker_url),
        "result_backend": servers.backend_url,
        "accept_content": sorted({*map(str, app.conf.accept_content), "json"}),
        **more,
    }
    app.conf.update(ours)
    if app.namespace:  # then it asks for CELERY_BROKER_URL first
        app.conf.update({f"{app.namespace}_{name.upper()}": ours[name] for name in ours})
    _forget_connections(app)
    reread_settings()


def _forget_connections(app: Any) -> None:
    """Those that the user's modules may have made when they were imported."""
    app.backend_cls = app._backend_cache = app._pool = None
    app._local.__dict__.pop("backend", None)
    app.__dict__.pop("amqp", None)  # with its queues and its pool of producers


def override(tasks: Iterable[Any], options: Mapping[str, object]) -> None:
    """Idempotency options over those that the tasks themselves give."""
    for task in tasks:
        task._given = {**task._given, **options}
        task._resolved = None


def check(app: Any, servers: Servers) -> None:
    """Raise ConfigurationError if the app would still connect to another server."""
    asked = {
        "broker_url": (app.connection_for_read().as_uri(include_password=True), servers.broker_url),
        "broker_write_url": (
            app.connection_for_write().as_uri(include_password=True),
            servers.broker_url,
        ),
        "result_backend": (app.backend.as_uri(include_password=True), servers.backend_url),
    }
    for name, (found, ours) in asked.items():
        if _place(str(found)) != _place(ours):
            raise ConfigurationError(
                name, "the app connects to a server of its own, and will not be run"
            )


def _place(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port
