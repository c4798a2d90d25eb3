"""Settings: one frozen dataclass, read from the Celery app's conf over the environment.

`idempotency_<name>` in the conf wins over `IDEMWATCH_<NAME>` in the environment; a secret may also
stand in a file named by `IDEMWATCH_<NAME>_FILE`. An unknown or wrong value is an error at start.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .redis_urls import SCHEMES, places_of

AUTHORITIES: Final = ("postgres", "redis")
SCOPES: Final = ("global", "user", "device", "task")
ON_DUPLICATE: Final = ("replay", "skip", "raise")
ON_RUNNING: Final = ("wait", "skip", "raise")
WHEN_UNAVAILABLE: Final = ("retry", "run")
MAX_TTL: Final = timedelta(days=366)
MAX_LEASE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process. Durations are `timedelta`, or seconds where the name says so."""

    redis_url: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    database_pooled: bool | None = None
    store: str = "servers"
    enabled: bool = True
    namespace: str = "idemwatch"
    authority: str = "postgres"
    scope: str = "global"
    ttl: timedelta = timedelta(hours=24)
    lease: timedelta = timedelta(seconds=30)
    max_crashes: int = 3
    on_duplicate: str = "replay"
    on_running: str = "wait"
    when_unavailable: str = "retry"
    max_result_bytes: int = 1_000_000
    region: str = ""
    metrics_address: str | None = None
    metrics_advertise: str | None = None
    metrics_web_config: str | None = None
    metrics_dir: str | None = None
    schedule_capacity: int | None = None
    sync_beat_schedule: bool = True

    def __post_init__(self) -> None:
        one_of("store", self.store, ("servers", "memory"))
        one_of("authority", self.authority, AUTHORITIES)
        one_of("scope", self.scope, SCOPES)
        one_of("on_duplicate", self.on_duplicate, ON_DUPLICATE)
        one_of("on_running", self.on_running, ON_RUNNING)
        one_of("when_unavailable", self.when_unavailable, WHEN_UNAVAILABLE)
        duration("ttl", self.ttl, timedelta(seconds=1), MAX_TTL)
        duration("lease", self.lease, timedelta(seconds=1), MAX_LEASE)
        if not 1 <= self.max_crashes <= 1000:
            raise ConfigurationError(_named("max_crashes"), "must be from 1 to 1000")
        if self.max_result_bytes < 0:
            raise ConfigurationError(_named("max_result_bytes"), "must not be negative")
        if self.schedule_capacity is not None and self.schedule_capacity < 1:
            raise ConfigurationError(_named("schedule_capacity"), "must be 1 or more")
        if not self.namespace or not set(self.namespace) <= _NAMESPACE or len(self.namespace) > 64:
            raise ConfigurationError(
                _named("namespace"), "must be 1 to 64 letters, digits, '.', '_' or '-'"
            )
        check_redis_url(_named("redis_url"), self.redis_url)
        check_url(_named("database_url"), self.database_url, ("postgresql", "postgres"))


_NAMESPACE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_SECRETS: Final = ("redis_url", "database_url")
PREFIX: Final = "idempotency_"


def _named(name: str) -> str:
    return PREFIX + name


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ConfigurationError unless `value` is one of `allowed`."""
    choices = tuple(allowed)
    if value not in choices:
        raise ConfigurationError(_named(name), f"{value!r} is not one of {', '.join(choices)}")


def duration(name: str, value: timedelta, least: timedelta, most: timedelta) -> None:
    """Raise ConfigurationError unless `value` lies from `least` to `most`."""
    if not least <= value <= most:
        raise ConfigurationError(_named(name), f"{value} is not from {least} to {most}")


def check_redis_url(name: str, url: str | None) -> None:
    """Raise ConfigurationError for an unusable URL of one Redis or of several."""
    if url is not None and places_of(url, name) is None:
        check_url(name, url, SCHEMES)


def check_url(name: str, url: str | None, schemes: tuple[str, ...]) -> None:
    """Raise ConfigurationError for an unusable URL, without repeating its password."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:  # PostgreSQL takes several hosts, each with its port
            parts.port  # noqa: B018  urlsplit checks the port only when it is read
    except ValueError as error:
        raise ConfigurationError(name, f"not a URL ({type(error).__name__})") from None
    if parts.scheme not in schemes:
        shown = parts.scheme if parts.scheme and "://" in url else "none"
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigurationError(name, f"must begin with {wanted}, not with scheme {shown!r}")


def seconds(name: str, value: object) -> timedelta:
    """A duration from a `timedelta` or from a number of seconds."""
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError(value)
        return timedelta(seconds=float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(
            _named(name), f"{value!r} is neither a timedelta nor a number of seconds"
        ) from None


def _whole(name: str, value: object) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(value)
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(_named(name), f"{value!r} is not a whole number") from None


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise ConfigurationError(_named(name), f"{value!r} is neither true nor false") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        shown = type(value).__name__ if name in _SECRETS else repr(value)
        raise ConfigurationError(_named(name), f"{shown} is not a string")
    return value


_PARSERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "ttl": seconds,
    "lease": seconds,
    "max_crashes": _whole,
    "max_result_bytes": _whole,
    "enabled": _flag,
    "database_pooled": _flag,
    "schedule_capacity": _whole,
    "sync_beat_schedule": _flag,
}
NAMES: Final = frozenset(f.name for f in fields(Settings))


def load(
    conf: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from `conf` (a Celery app's) over `environ` (default: the process's own)."""
    values = _from_environ(os.environ if environ is None else environ)
    for option, value in (conf or {}).items():
        if option.startswith(PREFIX):
            name = option.removeprefix(PREFIX)
            _check_known(option, name)
            values[name] = value
    parsed: dict[str, Any] = {name: _parse(name, value) for name, value in values.items()}
    return replace(Settings(), **parsed)


def _parse(name: str, value: object) -> object:
    if value is None or value == "":
        default = Settings.__dataclass_fields__[name].default
        if value is None or default is None:
            return default
    return _PARSERS.get(name, _text)(name, value)


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, value in environ.items():
        if not variable.startswith("IDEMWATCH_"):
            continue
        name = variable.removeprefix("IDEMWATCH_").lower()
        if name.removesuffix("_file") in _SECRETS and name.endswith("_file"):
            values[name.removesuffix("_file")] = _read_secret(variable, value)
            continue
        _check_known(variable, name)
        values.setdefault(name, value)
    return values


def _read_secret(variable: str, path: str) -> str:
    try:
        secret = Path(path).read_text("utf-8").strip()
    except UnicodeDecodeError:  # its cause would carry the secret
        raise ConfigurationError(variable, f"cannot read {path!r} (not UTF-8)") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(variable, f"cannot read {path!r} ({error})") from error
    if not secret:
        raise ConfigurationError(variable, f"{path!r} is empty")
    return secret


def _check_known(option: str, name: str) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {_named(near[0])}?" if near else ""
        raise ConfigurationError(option, f"no such setting{hint}")
