"""One GET of the doctor's: bounded in time and size, without redirects or proxies.

Invariant: the password of an address is sent to that address alone, and is in no error; what comes
back is anyone's, and only read as text.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError

FETCH_SECONDS: Final = 5.0
MOST_BYTES: Final = 20_000_000


class NotFetched(IdempotencyError):
    """There is no page. `status`: what HTTP said, 0 when nobody answered."""

    def __init__(self, where: str, reason: str, status: int = 0) -> None:
        super().__init__(where, reason, status)
        self.where, self.reason, self.status = where, reason, status

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: nobody is sent elsewhere with a password."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def shown(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def checked(url: str, name: str) -> str:
    """The address of a server over HTTP. Raises ConfigurationError, without repeating it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isprintable() or " " in url:
        raise ConfigurationError(name, "is no address such as http://prometheus:9090")
    return url.rstrip("/")


def fetch(url: str) -> str:
    """The text of a page. Raises NotFetched."""
    parts = urlsplit(url)
    where = shown(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    login = _login(parts.username, parts.password)
    request = urllib.request.Request(bare, headers=login)  # noqa: S310  http or https, see checked
    opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=FETCH_SECONDS) as answer:
            body: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise NotFetched(where, f"HTTP {error.code}", error.code) from None
    except urllib.error.URLError as error:
        raise NotFetched(where, _reason(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotFetched(where, _reason(error)) from None
    if len(body) > MOST_BYTES:
        raise NotFetched(where, f"more than {MOST_BYTES:,} bytes")
    return body.decode(errors="replace")


def _login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _reason(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted here"
    if isinstance(error, TimeoutError):
        return f"no answer within {FETCH_SECONDS:g} s"
    return " ".join(str(error).split())[:150] or type(error).__name__
