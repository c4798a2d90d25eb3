"""A worker registers itself, so that Prometheus finds it and its end is noticed.

A thread of the worker's main process writes to Redis each 15 s and keeps no connection in between,
so that no child inherits one. Invariants: work never waits for it; while Redis is away it goes on
trying, and the link's breaker logs that once, as a refusal is logged here; an orderly end takes the
worker out, if Redis answers within the link's time-outs.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import threading
from collections.abc import Callable
from functools import cache
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError, StoreUnavailable
from idemwatch.idempotency.redis_link import RedisLink

from .addresses import Address, format_address
from .worker_directory_store import LONGEST_NODE, Facts, WorkerDirectory, is_target

log = logging.getLogger(__name__)

SETTING: Final = "idempotency_metrics_advertise"
INTERVAL_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 5.0
END_SECONDS: Final = 5.0
"""How long an orderly end waits for a registration that is under way."""
_FORM: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:\s]+)(?::(?P<port>[0-9]{1,5}))?")


def parse_advertised(text: str) -> tuple[str, int | None]:
    """Host (IPv6 in brackets) and port of HOST or HOST:PORT; None: the port that it listens on.

    Raises ConfigurationError.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not is_target(f"{match['host']}:{match['port'] or 1}"):
        hint = "; put an IPv6 address in brackets" if text.count(":") > 1 else ""
        raise ConfigurationError(
            SETTING, f"{text!r} is not HOST or HOST:PORT, such as 10.0.0.5 or web-1:9912{hint}"
        )
    return match["host"], int(match["port"]) if match["port"] else None


def target_of(advertised: str | None, listens: Address, bound: str | None = None) -> str | None:
    """Where others scrape a worker that listens there; None when that is for this host only.

    What is advertised is taken at its word, a loopback host too. `bound`: the IP address that a
    host by name has become: the name of this very host may well be a loopback one.
    """
    if advertised is not None:
        host, port = parse_advertised(advertised)
        return f"{host}:{port or listens[1]}"
    bound = bound or listens[0]
    host = listens[0] if not _is(bound, "is_unspecified") else own_name()
    if host == "localhost" or _is(bound, "is_loopback"):
        return None
    target = format_address((host, listens[1]))
    return target if is_target(target) else None


def own_name() -> str:
    """The name of this host, as others may know it."""
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def _is(host: str, what: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return False
    return bool(getattr(getattr(address, "ipv4_mapped", None) or address, what))


def tell_target(target: str | None) -> None:
    """Say where the worker is scraped, or why it is not."""
    if target is None:
        log.info(
            "this worker's metrics are for this host only, so Prometheus is not told of them; set "
            "%s to the HOST or HOST:PORT at which it reaches them", SETTING,
        )  # fmt: skip
    else:
        log.info("registered for service discovery as %s", target)


class Registration:
    """Registers a worker until `stop`. `facts` is asked each time: a pool may grow."""

    def __init__(
        self,
        directory: WorkerDirectory,
        facts: Callable[[], Facts],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._directory, self._facts, self._interval = directory, facts, interval_seconds
        self._last: Facts | None = None
        self._told = self._told_twin = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._loop, name="idemwatch-registration", daemon=True
        )

    def start(self) -> None:
        """Begin; the first registration is written in the background too."""
        self._thread.start()

    def stop(self) -> None:
        """Take the worker out, as far as Redis answers; within seconds in any case."""
        self._stopped.set()
        self._thread.join(END_SECONDS)
        try:
            if self._last is not None:
                self._directory.remove(self._last)
        except Exception as error:
            log.info("this worker stays registered for a while: %s", _reason(error))
        finally:
            self._directory.close()

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = self._interval if self._register() else min(RETRY_SECONDS, self._interval)

    def _register(self) -> bool:
        """Whether it is done. Nothing that goes wrong may end the thread: it tries again."""
        try:
            facts = self._facts()
            if self._stopped.is_set():  # to ask for one's own name may take a while
                return True
            again = self._last is not None
            self._last = facts  # before it is written: without a reply it is removed too
            if not self._directory.register(facts) and again:
                self._tell_of_twin(facts.node)
        except Exception as error:
            self._tell(error)
            return False
        finally:
            self._directory.drop()
        if self._told:
            log.info("this worker is registered now")
        self._told = False
        return True

    def _tell(self, error: Exception) -> None:
        """Once; that Redis is away is told by its breaker."""
        if self._told or (isinstance(error, StoreUnavailable) and self._directory.is_left_out):
            log.debug("this worker could not register: %s", _reason(error))
            return
        self._told = True
        log.warning(
            "this worker is not registered, so neither found nor missed (it tries again): %s",
            _reason(error),
        )

    def _tell_of_twin(self, node: str) -> None:
        """Once: two that go by one name take each other's place again and again."""
        if not self._told_twin:
            self._told_twin = True
            log.warning(
                "another worker is named %s too, so only one of the two is found and counted; "
                "name each one differently (celery worker -n)", node,
            )  # fmt: skip


def _reason(error: Exception) -> str:
    """An error of ours as it is; the message of another may hold anything."""
    return str(error) if isinstance(error, IdempotencyError) else type(error).__name__


def begin(
    redis_url: str,
    namespace: str,
    *,
    node: str,
    advertised: str | None,
    listens: Address,
    scheme: str,
    concurrency: Callable[[], int],
    bound: str | None = None,
) -> Registration:
    """Register the worker of this process, which listens there; `bound`: see `target_of`."""
    name, instance = node[:LONGEST_NODE], secrets.token_hex(8)

    @cache
    def target() -> str | None:
        """In the thread: to ask for one's own name may take a while."""
        found = target_of(advertised, listens, bound)
        tell_target(found)
        return found

    def facts() -> Facts:
        return Facts(name, target(), scheme, concurrency(), instance)

    directory = WorkerDirectory(RedisLink.from_url(redis_url), namespace)
    registration = Registration(directory, facts)
    registration.start()
    return registration
