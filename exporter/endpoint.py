"""The HTTP endpoint that worker and state exporter share: /metrics, probes and a landing page.

Invariants: /-/healthy and /-/ready need no password; everything else does, unknown paths too, as
soon as the web config names a user. No client can hold up another's scrape.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from .addresses import Address, format_address, listen, parse_address
from .connections import Connection, Server
from .formats import encoder_for
from .pages import landing
from .requests import HEAD_SECONDS, Answer, BadRequest, Request, read_request, send_answer
from .web_config import WatchedWebConfig, WebConfig
from .web_tls import client_allowed

log = logging.getLogger(__name__)

Collect = Callable[[], Iterable[Metric]]
Ready = Callable[[], Sequence[str]]
Route = Callable[[Request], Answer]

PROBES: Final = ("/-/healthy", "/-/ready")
READY_SECONDS: Final = 5.0
"""How long a probe waits for another one that is asking the stores."""
READY_AGE_SECONDS: Final = 1.0
"""Probes need no password, so a flood of them asks the stores once in this time."""
LINKS: Final = {
    "/metrics": "metrics, in the Prometheus or OpenMetrics text format",
    "/-/healthy": "the process lives",
    "/-/ready": "its stores answer",
}


class Endpoint:
    """A running endpoint. `address` is where it listens, with the real port; `bound`: its IP."""

    def __init__(self, server: Server, address: Address, bound: str, *, tls: bool) -> None:
        self._server = server
        self.address, self.bound = address, bound
        self.url = _url(address, tls=tls)

    def close(self) -> None:
        self._server.close()


def start(
    address: str,
    *,
    collect: Collect,
    ready: Ready | None = None,
    web_config: Path | None = None,
    further: int = 0,
    title: str = "idemwatch",
    routes: Mapping[str, tuple[str, Route]] | None = None,
    name: str = "web.listen-address",
) -> Endpoint:
    """Listen on `address` and serve, in threads of its own.

    `further` next ports are tried when the port is taken. `routes` maps a further path to its text
    on the landing page and its answer. Raises ConfigurationError, with `name` for the address.
    """
    config = WatchedWebConfig(web_config)
    target = parse_address(address, name)
    site = _Site(collect, ready or tuple, title, routes or {})
    listener = listen(target, further=further, name=name)
    bound, port, *_ = listener.getsockname()
    server = Server(listener, _Exchange(config, site).serve)
    server.start()
    return Endpoint(server, (target[0], port), bound, tls=config.current().context is not None)


def _url(address: Address, *, tls: bool) -> str:
    host, port = address
    shown = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104  it is only compared
    return f"{'https' if tls else 'http'}://{format_address((shown, port))}"


class _Site:
    """What there is to be had, whoever asks."""

    def __init__(
        self, collect: Collect, ready: Ready, title: str, routes: Mapping[str, tuple[str, Route]]
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(collect))
        self._collecting = threading.Lock()
        self._readiness = _Readiness(ready)
        page = landing(title, LINKS | {path: text for path, (text, _) in routes.items()})
        self._page = Answer(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
        self._routes: dict[str, Route] = {
            "/": lambda _: self._page,
            "/metrics": self._metrics,
            "/-/healthy": lambda _: Answer.text(HTTPStatus.OK, "healthy"),
            "/-/ready": lambda _: self._readiness.answer(),
            **{path: route for path, (_, route) in routes.items()},
        }

    def answer(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            text = f"{request.method[:20]} is not answered here"
            return Answer.text(HTTPStatus.METHOD_NOT_ALLOWED, text, ("Allow", "GET, HEAD"))
        route = self._routes.get(request.path)
        if route is None:
            return Answer.text(HTTPStatus.NOT_FOUND, "not found; / has links to what is here")
        try:
            return route(request)
        except Exception:
            log.exception("%s failed", request.path)
            text = f"{request.path} failed; the log of this process says why"
            return Answer.text(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    def _metrics(self, request: Request) -> Answer:
        encode, content_type = encoder_for(request)
        with self._collecting:  # side by side they would only take each other's time
            return Answer(HTTPStatus.OK, encode(self._registry), content_type)


class _Collector:
    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        return ()


class _Readiness:
    """The answer of the last look at the stores, or of a new one if that is old."""

    def __init__(self, ready: Ready) -> None:
        self._ready = ready
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._problems: tuple[str, ...] = ()

    def answer(self) -> Answer:
        problems = self._current()
        if not problems:
            return Answer.text(HTTPStatus.OK, "ready")
        return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(problems))

    def _current(self) -> Sequence[str]:
        if not self._lock.acquire(timeout=READY_SECONDS):
            return ("the look at the stores has not ended yet",)
        try:
            if time.monotonic() - self._looked_at > READY_AGE_SECONDS:
                self._problems = self._look()
                self._looked_at = time.monotonic()
            return self._problems
        finally:
            self._lock.release()

    def _look(self) -> tuple[str, ...]:
        try:
            return tuple(self._ready())
        except Exception as error:
            log.exception("the look at the stores failed")
            return (f"the look at the stores failed: {type(error).__name__}",)


class _Exchange:
    """One connection from its handshake to its answer."""

    def __init__(self, config: WatchedWebConfig, site: _Site) -> None:
        self._config = config
        self._site = site

    def serve(self, connection: Connection) -> None:
        config = self._config.current()
        deadline = time.monotonic() + HEAD_SECONDS
        if config.context is not None and not _secure(connection, config.context, deadline):
            return
        try:
            request = read_request(connection.sock, deadline)
        except BadRequest as error:
            send_answer(connection.sock, Answer.text(error.status, str(error)))
            return
        connection.waits(False)
        answer = self._allowed(connection, request, config) or self._site.answer(request)
        connection.waits(True)
        send_answer(connection.sock, answer, request, config.headers)

    def _allowed(
        self, connection: Connection, request: Request, config: WebConfig
    ) -> Answer | None:
        """None if the client may have what it asks for, else what it is told."""
        if isinstance(connection.sock, ssl.SSLSocket):
            certificate = connection.sock.getpeercert()
            if not client_allowed(certificate, config.allowed_sans):
                return Answer.text(HTTPStatus.FORBIDDEN, "this certificate may not")
        if request.path in PROBES or config.auth.allows(request.header("Authorization")):
            return None
        challenge = ("WWW-Authenticate", 'Basic realm="idemwatch", charset="UTF-8"')
        return Answer.text(HTTPStatus.UNAUTHORIZED, "unauthorized", challenge)


def _secure(connection: Connection, context: ssl.SSLContext, deadline: float) -> bool:
    """The TLS handshake, in the connection's own thread and time."""
    connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        secured = context.wrap_socket(
            connection.sock, server_side=True, do_handshake_on_connect=False
        )
        connection.sock = secured
        secured.do_handshake()
        return True
    except OSError as error:
        log.debug("no TLS with %s: %s", connection.peer, error)
        return False
