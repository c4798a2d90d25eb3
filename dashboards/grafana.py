"""Grafana's HTTP API, as far as boards need it: read one, its last change, write one.

Invariants: the token goes to the given address alone, since redirects are not followed, and is
in no message; every answer comes within a time-out or is an error that says what to do.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

TIMEOUT_SECONDS: Final = 15.0
MOST_BYTES: Final = 32 * 1024 * 1024
_LONGEST_MESSAGE: Final = 300
_NO_API: Final = (
    "{} does not answer as Grafana's API does: is it the whole address of Grafana, with its path, "
    "and does nothing before it ask for a login?"
)


class GrafanaError(Exception):
    """Grafana did not do what it was asked; the text says why and what to do."""


class BadAddressError(ValueError):
    """No address of a Grafana. The text has no password in it."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the token to wherever it is led."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,  # noqa: ARG002
        headers: Message, newurl: str,  # noqa: ARG002
    ) -> None:  # fmt: skip
        return None


def address(url: str) -> str:
    """The base of all requests. Raises BadAddressError; a password in `url` is not repeated."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadAddressError("the URL cannot be read: write https://HOST[:PORT][/PATH]") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise BadAddressError(
            "a user name or password in the URL would be seen by others: "
            "put a service account's token into a file and name it with --token-file"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise BadAddressError(f"{url!r} is no URL of a Grafana: write https://HOST[:PORT][/PATH]")
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise BadAddressError("the URL must end with the host, or the path that Grafana has there")
    return url.rstrip("/")


class Grafana:
    """One Grafana, at `url`, which `address` has checked."""

    def __init__(self, url: str, token: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._token = token
        self._timeout = timeout_seconds
        self._opener = urllib.request.build_opener(_NoRedirects())

    def board(self, uid: str) -> dict[str, Any] | None:
        """`dashboard` and `meta` of a board; None if there is none."""
        status, found = self._ask("GET", f"/api/dashboards/uid/{quote(uid, safe='')}")
        if status == HTTPStatus.NOT_FOUND and "dashboard" in _told(found).lower():
            return None
        if not isinstance(found.get("dashboard"), dict):
            raise GrafanaError(_NO_API.format(self._url))
        return found

    def last_message(self, uid: str, version: int) -> str:
        """What was written beside the change that made this version; "" if nobody can tell."""
        path = f"/api/dashboards/uid/{quote(uid, safe='')}/versions?limit=5"
        status, found = self._ask("GET", path, denied_is_none=True)
        listed = found.get("versions", []) if status == HTTPStatus.OK else []
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and one.get("version") == version:
                return str(one.get("message") or "")
        return ""

    def save(self, payload: Mapping[str, Any]) -> int:
        """Write a board; its new version."""
        status, found = self._ask("POST", "/api/dashboards/db", payload)
        if status == HTTPStatus.NOT_FOUND:
            raise GrafanaError(f"Grafana has no such folder: {self._hidden(_told(found))}")
        version = found.get("version")
        return version if isinstance(version, int) else 0

    def _ask(
        self, method: str, path: str, payload: Any = None, *, denied_is_none: bool = False
    ) -> tuple[int, dict[str, Any]]:
        data = None if payload is None else json.dumps(payload).encode()
        request = urllib.request.Request(  # noqa: S310  `address` lets only http and https pass
            self._url + path, data=data, method=method, headers=self._headers()
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return HTTPStatus.OK, self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, denied_is_none=denied_is_none)
        except (OSError, http.client.HTTPException) as error:
            raise GrafanaError(f"cannot reach {self._url}: {_reason(error)}") from error

    def _headers(self) -> dict[str, str]:
        return {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
        }

    def _read(self, answer: IO[bytes]) -> dict[str, Any]:
        body = answer.read(MOST_BYTES)
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if isinstance(found, list):
            return {"versions": found}  # how Grafana before 12 lists versions
        if isinstance(found, dict):
            return found
        raise GrafanaError(_NO_API.format(self._url))

    def _refused(
        self, error: urllib.error.HTTPError, *, denied_is_none: bool
    ) -> tuple[int, dict[str, Any]]:
        if 300 <= error.code < 400:
            raise GrafanaError(f"{self._url} leads elsewhere: give the address that it leads to")
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise GrafanaError("Grafana does not know the token: make a new one, or look whether "
                               "the URL is that of its Grafana")  # fmt: skip
        if error.code in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND) and denied_is_none:
            return error.code, {}
        found = self._read(error)
        if error.code == HTTPStatus.NOT_FOUND:
            return error.code, found
        raise GrafanaError(self._meaning(error.code, self._hidden(_told(found))))

    def _meaning(self, code: int, told: str) -> str:
        if code == HTTPStatus.FORBIDDEN:
            return (f"the token may not do this ({told}): it needs the role Editor, or "
                    "dashboards:read, dashboards:write and dashboards:create there")  # fmt: skip
        if code == HTTPStatus.PRECONDITION_FAILED:
            return f"Grafana did not save it ({told}): somebody changed it just now, run it again"
        return f"Grafana answered {code}: {told}"

    def _hidden(self, text: str) -> str:
        return text.replace(self._token, "***")


def _told(found: Mapping[str, Any]) -> str:
    return " ".join(str(found.get("message", "")).split())[:_LONGEST_MESSAGE]


def _reason(error: OSError | http.client.HTTPException) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason) or type(reason).__name__
    return f"{text} (SSL_CERT_FILE names a CA of your own)" if "CERTIFICATE" in text else text
