"""Listen addresses: their form, and a socket that listens there.

Invariant: without a host an endpoint listens on the loopback address, never on all.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
_FORM: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s]*)):(?P<port>\d{1,5})"
)
_BACKLOG: Final = 128

Address = tuple[str, int]


def parse_address(text: str, name: str = "web.listen-address") -> Address:
    """Host and port of `host:port`, `:port` (loopback) or `[::1]:port`. Port 0 is any free one."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        hint = "; put an IPv6 address in brackets" if text.count(":") > 1 else ""
        raise ConfigurationError(name, f"{text!r} is not HOST:PORT, such as 127.0.0.1:9912{hint}")
    port = int(match["port"])
    if port > 65535:
        raise ConfigurationError(name, f"port {port} is above 65535")
    return match["six"] or match["host"] or LOOPBACK, port


def format_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(
    address: Address, *, further: int = 0, name: str = "web.listen-address"
) -> socket.socket:
    """A listening socket; when the port is taken, one of the `further` next ports.

    Raises ConfigurationError, which names the address and what to do.
    """
    host, port = address
    last = min(port + further, 65535) if port else 0
    for candidate in range(port, last + 1):
        try:
            listener = _listen(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == last:
                raise ConfigurationError(name, _problem(address, last, error)) from error
            continue
        if candidate != port:
            log.warning("port %s of %s is taken; listening on %s", port, host, candidate)
        return listener
    raise AssertionError("the last candidate returns or raises")


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, target = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _problem(address: Address, last: int, error: OSError) -> str:
    shown = format_address(address)
    if error.errno == errno.EADDRINUSE:
        ports = f" with the ports up to {last}" if last > address[1] else ""
        return f"{shown}{ports} is in use; end what listens there, or give another port"
    if error.errno == errno.EACCES:
        return f"may not listen on {shown}; ports below 1024 are privileged, give a higher one"
    return f"cannot listen on {shown} ({error.strerror}); give an address of this host"
