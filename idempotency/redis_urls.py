"""The addresses of Redis: one server, a master under Sentinels, or a Cluster.

    redis://[user:password@]host:port/db              also rediss:// (TLS) and unix:///path
    redis+sentinel://[user:password@]host:port,host:port/service[/db][?sentinel_password=...]
    redis+cluster://[user:password@]host:port,host:port

Invariant: no error repeats a part of the URL that may be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from .errors import ConfigurationError

SETTING: Final = "idempotency_redis_url"
SINGLE: Final = ("redis", "rediss", "unix")
SEVERAL: Final = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
SCHEMES: Final = (*SINGLE, *SEVERAL)
SENTINEL_FORM: Final = "redis+sentinel://host:26379,host:26379/service/0"
CLUSTER_FORM: Final = "redis+cluster://host:6379,host:6379"
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]+")
_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+")
_SENTINEL_PORT, _PORT = 26379, 6379
_OWN: Final = {"sentinel_username": "username", "sentinel_password": "password"}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, repr=False)
class Places:
    """Where to ask. `addresses`: of sentinels or of nodes; `login` ends in @, or is empty."""

    kind: Literal["sentinel", "cluster"]
    tls: bool
    addresses: tuple[Address, ...]
    login: str
    service: str
    database: str
    query: tuple[tuple[str, str], ...]

    def url_of(self, address: Address) -> str:
        """The URL of one server that keeps data."""
        query = [(name, value) for name, value in self.query if name not in _OWN]
        return self._url(address, self.login, self.database, query)

    def sentinel_url(self, address: Address) -> str:
        """The URL of one sentinel: its own login, and the same options of TLS."""
        own = [(_OWN[name], value) for name, value in self.query if name in _OWN]
        tls = [(name, value) for name, value in self.query if name.startswith("ssl_")]
        return self._url(address, "", "0", own + tls)

    def _url(self, address: Address, login: str, db: str, query: list[tuple[str, str]]) -> str:
        host, port = address
        shown = f"[{host}]" if ":" in host else host
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{login}{shown}:{port}/{db}" + (f"?{urlencode(query)}" if query else "")


def places_of(url: str, name: str = SETTING) -> Places | None:
    """Where a URL of several servers leads; None for one of a single server.

    Raises ConfigurationError, which says what to write.
    """
    try:
        parts = urlsplit(url.replace("[", "%5B").replace("]", "%5D"))  # it takes one [host] at most
    except ValueError as error:
        raise ConfigurationError(name, f"not a URL ({type(error).__name__})") from None
    if parts.scheme not in SEVERAL:
        return None
    tls, kind = parts.scheme.startswith("rediss"), parts.scheme.partition("+")[2]
    login, at, hosts = parts.netloc.rpartition("@")
    hosts = hosts.replace("%5B", "[").replace("%5D", "]")
    if "@" in login or parts.fragment:
        raise ConfigurationError(
            name, "a password with @, / or # in it is written with %40, %2F or %23"
        )
    query = tuple(parse_qsl(parts.query, keep_blank_values=True))
    if kind == "sentinel":
        addresses = _addresses(name, hosts, _SENTINEL_PORT, SENTINEL_FORM)
        service, database = _service(name, parts.path)
        _check_query(name, query, sentinel=True)
        return Places("sentinel", tls, addresses, login + at, service, database, query)
    addresses = _addresses(name, hosts, _PORT, CLUSTER_FORM)
    if parts.path not in ("", "/", "/0") or dict(query).get("db", "0") != "0":
        raise ConfigurationError(name, f"a cluster has database 0 alone: write {CLUSTER_FORM}")
    _check_query(name, query, sentinel=False)
    return Places("cluster", tls, addresses, login + at, "", "0", query)


def _addresses(name: str, hosts: str, port: int, form: str) -> tuple[Address, ...]:
    found = tuple(_address(one, port) for one in hosts.split(","))
    if None in found:
        raise ConfigurationError(
            name, f"names no servers, or one without a valid host or port: write {form}"
        )
    return tuple(one for one in found if one is not None)


def _address(text: str, default_port: int) -> Address | None:
    host = _HOST.match(text)
    if host is None:
        return None
    colon, digits = text[host.end() :][:1], text[host.end() + 1 :]
    if not colon:
        return host[0].strip("[]"), default_port
    if colon != ":" or not digits.isascii() or not digits.isdigit() or len(digits) > 5:
        return None
    return (host[0].strip("[]"), int(digits)) if 0 < int(digits) < 65536 else None


def _service(name: str, path: str) -> tuple[str, str]:
    service, _, database = path.removeprefix("/").partition("/")
    service = unquote(service)
    if not _SERVICE.fullmatch(service):
        raise ConfigurationError(
            name, f"names no service (the master's name at the sentinels): write {SENTINEL_FORM}"
        )
    if database and not (database.isascii() and database.isdigit()):
        raise ConfigurationError(name, f"the database is a number: write {SENTINEL_FORM}")
    return service, database or "0"


def _check_query(name: str, query: tuple[tuple[str, str], ...], *, sentinel: bool) -> None:
    known = tuple(_OWN) if sentinel else ()
    for option, _ in query:
        if option.startswith("sentinel_") and option not in known:
            told = f"knows {' and '.join(known)}" if known else "has no sentinels"
            raise ConfigurationError(name, f"no such option as {option[:40]!r}: this URL {told}")
