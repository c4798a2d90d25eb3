"""The command of each service, once: the demo starts them so, and docker-compose.yml too.

A `{name}` in a word stands for what differs between the two: addresses, files and folders.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from idemwatch.idempotency.errors import ConfigurationError

APP: Final = "idemwatch.demo.app"
CAPACITY: Final = 40
"""Runs at once that the demo's schedules are judged by: some of them fire every few seconds."""

SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "migrate": ("idemwatch", "db", "upgrade", "facility"),
    "worker": (
        *("celery", "-A", APP, "worker", "--loglevel", "INFO", "--concurrency", "4"),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    ),
    "beat": (
        *("celery", "-A", APP, "beat", "--loglevel", "INFO"),
        *("--scheduler", "idemwatch.scheduler.beat:Scheduler"),
    ),
    "exporter": (
        *("celery", "-A", APP, "idemwatch", "exporter"),
        *("--web.listen-address", "{exporter}"),
        *("--refresh-seconds", "{refresh_seconds}", "--capacity", str(CAPACITY)),
    ),
    "traffic": ("python", "-m", "idemwatch.demo.traffic_command", "--pattern", "{pattern}"),
    "prometheus": (
        "prometheus",
        "--config.file={prometheus_config}",
        "--storage.tsdb.path={prometheus_data}",
        "--storage.tsdb.retention.time={retention}",
        "--web.listen-address={prometheus}",
    ),
    "alertmanager": (
        "alertmanager",
        "--config.file={alertmanager_config}",
        "--storage.path={alertmanager_data}",
        "--web.listen-address={alertmanager}",
        "--cluster.listen-address=",  # one alone: nobody to gossip with
    ),
}
TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "repair": ("idemwatch", "schedules", "apply", "--yes", "--capacity", str(CAPACITY)),
}
"""What an operator runs by hand."""
PACKAGES: Final[Mapping[str, str]] = {
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
}
"""Debian's package of each program; that of the second is also its program's name there."""


def command(service: str, **given: object) -> list[str]:
    """The words of a service or tool, filled in. Raises KeyError for what was not given."""
    return [word.format_map(given) for word in {**SERVICES, **TOOLS}[service]]


def native(service: str, **given: object) -> list[str]:
    """The same, with the program that is meant here. Raises ConfigurationError without it."""
    program, *words = command(service, **given)
    return [str(program_of(program)), *words]


def program_of(name: str) -> Path:
    """A program of this Python's environment, else of the PATH, else by Debian's name for it."""
    if name == "python":
        return Path(sys.executable)
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(beside) or shutil.which(name) or shutil.which(PACKAGES.get(name, name))
    if found is None:
        raise ConfigurationError(name, f"not found: {_remedy(name)}")
    return Path(found)


def missing_packages() -> list[str]:
    """Debian's packages of the programs that are not installed."""
    return [
        package
        for name, package in PACKAGES.items()
        if not (shutil.which(name) or shutil.which(package))
    ]


def _remedy(name: str) -> str:
    if name in PACKAGES:
        return f"apt-get install --no-install-recommends {PACKAGES[name]}"
    return "pip install 'idemwatch[demo]'"
