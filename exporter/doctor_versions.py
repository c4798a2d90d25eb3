"""Versions that idemwatch is made for: of Python, of packages, of servers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from typing import Final

from .doctor_findings import Finding, error, info, ok, warning

Version = tuple[int, ...]
PYTHON: Final = ((3, 11), (3, 14))
"""From the first on, below the second."""
PACKAGES: Final[Mapping[str, tuple[Version, Version]]] = {
    "celery": ((5, 6), (5, 8)),
    "redis": ((5, 2), (99,)),
    "psycopg": ((3, 2, 4), (4,)),
}
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "web": ("yaml", "bcrypt"),
    "schedules": ("numpy",),
    "server": ("alembic", "grafanalib", "libcst", "rich"),
}
REDIS: Final = (6, 2)
POSTGRES: Final = 150000
"""As server_version_num."""


def version_of(text: str) -> Version:
    """The numbers that a version begins with."""
    match = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(map(int, match[0].split("."))) if match else ()


def check_versions() -> Iterator[Finding]:
    """Those of this process."""
    yield _python(sys.version_info[:3])
    for package in PACKAGES:
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = ""
        yield package_finding(package, found)
    yield extras_finding({extra: _missing(modules) for extra, modules in EXTRAS.items()})


def _python(found: Version) -> Finding:
    text = f"Python {'.'.join(map(str, found))}"
    if PYTHON[0] <= found < PYTHON[1]:
        return ok("versions", text)
    return warning("versions", f"{text} is not tested", "use Python 3.11, 3.12 or 3.13")


def package_finding(package: str, found: str) -> Finding:
    """Whether a version of a package is one that is tested."""
    least, below = PACKAGES[package]
    wanted = f"{package} {'.'.join(map(str, least))} or newer"
    if not found:
        return error("versions", f"{package} is not installed", f"pip install '{package}'")
    if version_of(found) < least:
        return error("versions", f"{package} {found} is too old", f"install {wanted}")
    if version_of(found) >= below:
        told = f"{package} {found} is newer than any that is tested"
        return warning("versions", told, f"use one below {'.'.join(map(str, below))}")
    return ok("versions", f"{package} {found}")


def extras_finding(missing: Mapping[str, tuple[str, ...]]) -> Finding:
    """Which extras are whole."""
    lacking = {extra: names for extra, names in missing.items() if names}
    if not lacking:
        return ok("versions", f"extras: {', '.join(missing)}")
    told = "; ".join(f"{extra} lacks {', '.join(names)}" for extra, names in lacking.items())
    extras = ",".join(lacking)
    return info("versions", f"extras: {told}", f'if needed here: pip install "idemwatch[{extras}]"')


def _missing(modules: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in modules if not _is_there(name))


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ValueError:  # somebody blocks it
        return False


def redis_finding(version: str) -> Finding:
    """Whether a Redis server is new enough."""
    if not version_of(version):
        return info("redis", "Redis does not tell its version (INFO is refused)")
    if version_of(version) < REDIS:
        return error("redis", f"Redis {version} is too old", "upgrade it to 6.2 or newer")
    return ok("redis", f"Redis {version} answers")


def postgres_finding(number: int) -> Finding:
    """Whether a PostgreSQL server is new enough; by its server_version_num."""
    shown = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < POSTGRES:
        return error("postgres", f"{shown} is too old", "upgrade it to 15 or newer")
    return ok("postgres", f"{shown} answers")
