"""Wires the metrics endpoint into a Celery worker, by one line of code or one setting.

The main process serves, and registers itself in Redis so that Prometheus finds it; each child of a
prefork pool keeps its counts in the file of its slot.
Invariants: without the line and without the setting nothing happens; a wrong address or file stops
the worker at its start, with the reason; importing this module is cheap, since Celery's command
does it at every start.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from .endpoint import Endpoint
    from .node_directory import NodeDirectory
    from .registration import Registration

log = logging.getLogger(__name__)

ADDRESS_SETTING: Final = "idempotency_metrics_address"
DEFAULT_ADDRESS: Final = "127.0.0.1:9912"
FURTHER_PORTS: Final = 100
_SLOTS_VARIABLE: Final = "_IDEMWATCH_SLOTS"
"""Tells children that are started as new interpreters, not forked, where their files go."""

Ready = Callable[[Any], Sequence[str]]


def serve_worker_metrics(app: Any, address: str | None = None, ready: Ready | None = None) -> None:
    """Serve /metrics from the workers of `app`.

    `address` is HOST:PORT; else the setting idempotency_metrics_address; else 127.0.0.1:9912. When
    the port is taken, the next free one of a hundred is, and the log says which. `ready(app)` gives
    the problems that /-/ready reports; by default the service's stores are asked.
    """
    _asked[_identity(app)] = (address, ready)
    install_signals()


def install_signals() -> None:
    """Connect to the worker's signals. They do nothing for apps that did not ask for metrics."""
    for signal, handler in (
        (signals.worker_init, _on_worker_init),
        (signals.worker_process_init, _on_process_init),
        (signals.worker_ready, _on_ready),
        (signals.worker_shutdown, _on_shutdown),
    ):
        signal.connect(handler, weak=False, dispatch_uid=f"idemwatch.{handler.__name__}")


def stores_ready(app: Any) -> Sequence[str]:
    """The problems of the service's stores. Imported late: it brings the drivers."""
    problems: Sequence[str] = import_module("idemwatch.idempotency.service").ready(app)
    return problems


class WorkerMetrics:
    """The metrics of one running worker, in its main process."""

    def __init__(self, worker: Any, settings: Settings, address: str, ready: Ready) -> None:
        from idemwatch.idempotency import slots

        from .addresses import parse_address
        from .node_directory import claim
        from .web_config import WatchedWebConfig

        self.pid = os.getpid()
        self._app, self._ready, self._address = worker.app, ready, address
        self._web_config = (
            Path(settings.metrics_web_config) if settings.metrics_web_config else None
        )
        self._settings, self._node = settings, str(worker.hostname)
        parse_address(address, ADDRESS_SETTING)
        if settings.metrics_advertise:
            from .registration import parse_advertised

            parse_advertised(settings.metrics_advertise)
        WatchedWebConfig(self._web_config)
        _announce(self._app)  # it may refuse a task's options, so it comes before the directory
        self.directory: NodeDirectory = claim(_path(settings.metrics_dir), worker.hostname)
        self._endpoint: Endpoint | None = None
        self._registration: Registration | None = None
        slots.merge_from(self.directory.path)

    @property
    def url(self) -> str | None:
        return self._endpoint.url if self._endpoint else None

    def serve(self, consumer: Any) -> None:
        """Start to listen. A restarted consumer is served by the same endpoint."""
        self._consumer = consumer
        if self._endpoint is not None:
            return
        from .endpoint import start

        self._endpoint = start(
            self._address,
            collect=self._collect,
            ready=lambda: self._ready(self._app),
            web_config=self._web_config,
            further=FURTHER_PORTS,
            title="idemwatch worker",
            name=ADDRESS_SETTING,
        )
        (self.directory.path / "url").write_text(f"{self._endpoint.url}\n")
        log.info("metrics are served at %s/metrics", self._endpoint.url)
        self._register(self._endpoint)

    def _register(self, endpoint: Endpoint) -> None:
        """Without Redis nobody asks; the main process alone does it, its children never."""
        if self._settings.redis_url is None:
            return
        from .registration import begin

        self._registration = begin(
            self._settings.redis_url,
            self._settings.namespace,
            node=self._node,
            advertised=self._settings.metrics_advertise,
            listens=endpoint.address,
            bound=endpoint.bound,
            scheme=endpoint.url.partition(":")[0],
            concurrency=lambda: _concurrency(self._consumer.pool),
        )

    def stop(self) -> None:
        from idemwatch.idempotency import slots

        if self._registration is not None:
            self._registration.stop()
        if self._endpoint is not None:
            self._endpoint.close()
        slots.merge_from(None)
        self.directory.release()

    def _collect(self) -> Iterator[Metric]:
        from idemwatch.idempotency.slots import REGISTRY

        from .worker_state import families

        return chain(REGISTRY.collect(), families(self._consumer))


def _path(setting: str | None) -> Path | None:
    return Path(setting) if setting else None


def _announce(app: Any) -> None:
    """Every series of every registered task at 0, before there are children to count."""
    from idemwatch.idempotency import metrics

    metrics.build_info(_version("idemwatch"), platform.python_version(), _version("celery"))
    metrics.announce_process()
    for task in list(app.tasks.values()):
        announce = getattr(task, "announce_metrics", None)
        if announce is not None:
            announce()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


_asked: Final[dict[int, tuple[str | None, Ready | None]]] = {}
_running: WorkerMetrics | None = None


def _identity(app: Any) -> int:
    """The same for an app and for a proxy of it, such as `current_app`."""
    return id(app._get_current_object() if hasattr(app, "_get_current_object") else app)


def _wanted(app: Any) -> bool:
    return _identity(app) in _asked or bool(
        app.conf.get(ADDRESS_SETTING) or os.environ.get("IDEMWATCH_METRICS_ADDRESS")
    )


def _on_worker_init(sender: Any, **_: object) -> None:
    global _running
    app = sender.app
    if not _wanted(app):
        return
    from idemwatch.idempotency.app_settings import settings_of

    address, ready = _asked.get(_identity(app), (None, None))
    with _stops_the_worker():
        settings = settings_of(app)
        address = address or settings.metrics_address or DEFAULT_ADDRESS
        _running = WorkerMetrics(sender, settings, address, ready or stores_ready)
    os.environ[_SLOTS_VARIABLE] = str(_running.directory.path)
    # A cold shutdown sends no signal.
    atexit.register(_on_shutdown)


def _on_process_init(**_: object) -> None:
    """In a child: from now on count into the file of this child's place in the pool."""
    from billiard.process import current_process

    index = getattr(current_process(), "index", None)
    directory = os.environ.get(_SLOTS_VARIABLE)
    if index is None or directory is None:
        return  # solo sends this signal too, from the main process
    from idemwatch.idempotency import slots

    slots.bind(Path(directory), str(index))


def _on_ready(sender: Any, **_: object) -> None:
    if _running is not None:
        with _stops_the_worker():
            _running.serve(sender)


def _on_shutdown(**_: object) -> None:
    global _running
    if _running is not None and _running.pid == os.getpid():
        _running.stop()
        os.environ.pop(_SLOTS_VARIABLE, None)
        _running = None


def _concurrency(pool: Any) -> int:
    """How many tasks it runs at once; 0 while there is no pool.

    Celery 5.6 takes for the `num_processes` of a green pool the greenlets that run right now.
    """
    green = getattr(pool, "is_green", False)
    return int(getattr(pool, "limit" if green else "num_processes", None) or 0)


@contextlib.contextmanager
def _stops_the_worker() -> Iterator[None]:
    """Celery logs what a signal's handler raises and goes on, unless it is SystemExit."""
    try:
        yield
    except ConfigurationError as error:
        log.critical("%s", error)
        raise SystemExit(f"idemwatch: {error}") from error


def _forked() -> None:
    global _running
    if _running is not None:
        _running.directory.forget()
        _running = None


os.register_at_fork(after_in_child=_forked)
