"""The web config file, in the format of the Prometheus exporter-toolkit: TLS, passwords, headers.

Invariants: an unknown or wrong key is an error that names the file, the line and the dotted key; a
file that goes bad while it is served leaves the last good one in force.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError

from .web_auth import HASH, BasicAuth
from .web_section import Section, read
from .web_tls import CLIENT_AUTH, CURVES, UNVERIFIED, VERSIONS, TlsConfig, make_context

log = logging.getLogger(__name__)

HEADERS: Final = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What an endpoint asks of its clients. The default asks nothing."""

    context: ssl.SSLContext | None = None
    allowed_sans: tuple[str, ...] = ()
    auth: BasicAuth = field(default_factory=lambda: BasicAuth({}))
    headers: tuple[tuple[str, str], ...] = ()
    files: tuple[Path, ...] = ()
    """All files it was read from; when one changes, it is read again."""


def load(path: Path) -> WebConfig:
    """Read a web config. Raises ConfigurationError, which names the file, line and key."""
    root = read(path)
    root.check_keys(("tls_server_config", "basic_auth_users", "http_server_config"))
    tls_section = root.section("tls_server_config")
    tls = _tls(tls_section) if tls_section else None
    return WebConfig(
        context=make_context(tls, tls_section.refuse) if tls and tls_section else None,
        allowed_sans=tls.client_allowed_sans if tls else (),
        auth=BasicAuth(_users(root.section("basic_auth_users"))),
        headers=_headers(root.section("http_server_config")),
        files=(path, *(tls.files if tls else ())),
    )


class WatchedWebConfig:
    """The web config of a running endpoint: read again when one of its files has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._files: tuple[Path, ...] = ()
        self._config = WebConfig()
        if path is not None:
            self._read(path)

    def current(self) -> WebConfig:
        path = self._path
        if path is None:
            return self._config
        with self._lock:
            if _stamp(self._files) != self._seen:
                self._reload(path)
            return self._config

    def _read(self, path: Path) -> None:
        # The stamp is taken first: a file that changes while it is read is then read again.
        before = _stamp((path,))
        config = load(path)
        self._seen = before | _stamp(config.files[1:])
        self._config, self._files = config, config.files

    def _reload(self, path: Path) -> None:
        seen = _stamp(self._files)
        try:
            self._read(path)
            log.info("web config %s was read again", path)
        except ConfigurationError as error:
            log.error("the web config as it was stays in force: %s", error)
            self._seen = seen


def _stamp(files: Iterable[Path]) -> frozenset[tuple[Path, int, int, int]]:
    return frozenset(_stamps(files))


def _stamps(files: Iterable[Path]) -> Iterator[tuple[Path, int, int, int]]:
    for file in files:
        try:
            stat = file.stat()
            yield file, stat.st_mtime_ns, stat.st_size, stat.st_ino
        except OSError:
            yield file, 0, 0, 0


def _tls(section: Section) -> TlsConfig:
    section.check_keys(TlsConfig.__dataclass_fields__)
    cert_file, key_file = section.file("cert_file"), section.file("key_file")
    if cert_file is None:
        raise section.refuse("cert_file", "is missing")
    if key_file is None:
        raise section.refuse("key_file", "is missing")
    for curve in (curves := section.texts("curve_preferences")):
        if curve not in CURVES:
            problem = f"{curve!r} is not one of {', '.join(CURVES)}"
            raise section.refuse("curve_preferences", problem)
    return TlsConfig(
        cert_file=cert_file,
        key_file=key_file,
        client_auth_type=_client_auth(section),
        client_ca_file=section.file("client_ca_file"),
        client_allowed_sans=section.texts("client_allowed_sans"),
        min_version=section.choice("min_version", VERSIONS, "TLS12"),
        max_version=section.choice("max_version", VERSIONS, "TLS13"),
        cipher_suites=section.texts("cipher_suites"),
        curve_preferences=curves,
        prefer_server_cipher_suites=section.flag("prefer_server_cipher_suites", default=True),
    )


def _client_auth(section: Section) -> str:
    if section.text("client_auth_type") in UNVERIFIED:
        problem = "would take unverified certificates, which Python cannot; verify them instead"
        raise section.refuse("client_auth_type", problem)
    return section.choice("client_auth_type", CLIENT_AUTH, "NoClientCert")


def _users(section: Section | None) -> Mapping[str, str]:
    users: dict[str, str] = {}
    if section is None:
        return users
    for user in section.keys:
        hashed = section.text(user)
        if not HASH.fullmatch(hashed):
            problem = "is not a bcrypt hash; make one with `htpasswd -nBC 10 USER`"
            raise section.refuse(user, problem)
        users[user] = hashed
    return users


def _headers(section: Section | None) -> tuple[tuple[str, str], ...]:
    if section is None:
        return ()
    section.check_keys(("http2", "headers"))
    section.flag("http2", default=True)  # taken, since the toolkit's files have it; we speak 1.1
    headers = section.section("headers")
    if headers is None:
        return ()
    headers.check_keys(HEADERS)
    for name in headers.keys:
        if not headers.text(name).isprintable():
            raise headers.refuse(name, "must be one line")
    return tuple((name, headers.text(name)) for name in headers.keys)
