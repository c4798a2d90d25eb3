"""Basic auth against bcrypt hashes.

Invariants: a password is compared by bcrypt alone, and an unknown user costs as much as a known
one; a scrape pays for bcrypt once, since a password that was right is remembered as a keyed digest;
a flood of wrong passwords keeps one core and a few threads busy at most.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import threading
from collections.abc import Mapping
from typing import Final

HASH: Final = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
MAX_PASSWORD: Final = 72
"""bcrypt reads no further, and its newer releases refuse more."""
MAX_WAITING: Final = 8
"""Further passwords that are not known yet are turned away while so many are being compared."""


class BasicAuth:
    """The users of one web config."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {user: hashed.encode() for user, hashed in users.items()}
        self._nobody = _unmatchable(self._users)
        self._secret = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._one_at_a_time = threading.Lock()

    def allows(self, authorization: str | None) -> bool:
        """Whether the value of an `Authorization` header names a user and their password."""
        if not self._users:
            return True
        credentials = _decode(authorization)
        if credentials is None:
            return False
        user, password = credentials
        digest = self._digest(user, password)
        if digest in self._right:
            return True
        if not self._matches(user, password):
            return False
        self._right.add(digest)
        return True

    def _digest(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._secret, user.encode() + b"\0" + password, "sha256")

    def _matches(self, user: str, password: bytes) -> bool:
        import bcrypt

        if not self._waiting.acquire(blocking=False):
            return False
        hashed = self._users.get(user)
        try:
            with self._one_at_a_time:
                same = bcrypt.checkpw(password, hashed or self._nobody)
        finally:
            self._waiting.release()
        return same and hashed is not None


def _unmatchable(users: Mapping[str, bytes]) -> bytes:
    """A hash as dear as a user's own, to compare with when the user is unknown."""
    for hashed in users.values():
        return hashed[:-31] + b"." * 31
    return b""


def _decode(authorization: str | None) -> tuple[str, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        raw = base64.b64decode(encoded.strip(), validate=True)
        user, colon, password = raw.partition(b":")
        if not colon or len(password) > MAX_PASSWORD or b"\0" in password:
            return None
        return user.decode(), password
    except (binascii.Error, ValueError):
        return None
