"""docker-compose.yml as Docker Compose reads it: variables filled in, merges done.

There is no Docker where the tests run, so the rules of interpolation stand here: `${NAME:?reason}`
is refused when unset or empty, `${NAME:-default}` has a default, `$$` is a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.yml"
EXAMPLE: Final = ROOT / ".env.example"
VARIABLE: Final = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\})")
_ASSIGNED: Final = re.compile(r"^#?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S*)$", re.MULTILINE)


class Refused(Exception):
    """A variable that must be set is not. The message is what the user reads."""


def variables() -> list[re.Match[str]]:
    """Every use of a variable."""
    return [match for match in VARIABLE.finditer(FILE.read_text()) if match["name"]]


def example() -> dict[str, str]:
    """What .env.example names, with the values given there, commented out or not."""
    return {found["name"]: found["value"] for found in _ASSIGNED.finditer(EXAMPLE.read_text())}


def passwords() -> dict[str, str]:
    """The variables that must be set, each with a value that can be told from the others."""
    return {name: f"secret-of-{name.lower()}" for name, value in example().items() if not value}


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables. Raises Refused."""

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.group("name", "kind", "rest")
        if name is None:
            return "$"
        if environ.get(name):
            return environ[name]
        if kind == "-":
            return str(rest)
        raise Refused(rest if kind == "?" else f"{name} is not set, and nothing is said of it")

    return VARIABLE.sub(fill, text)


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """The whole file with these variables."""
    return _filled(yaml.safe_load(FILE.read_text()), environ)  # type: ignore[no-any-return]


def _filled(node: Any, environ: Mapping[str, str]) -> Any:
    """After the YAML is read, as Compose does it: a value can't change the structure."""
    if isinstance(node, dict):
        return {key: _filled(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, environ) for value in node]
    return interpolate(node, environ) if isinstance(node, str) else node


@cache
def stack() -> dict[str, Any]:
    """The file with the passwords set and nothing else."""
    return load(passwords())


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    return dict(stack()["services"])


def ports() -> dict[str, set[int]]:
    """Ports that each service listens on, by what its command, image or settings say."""
    return {name: _listens(service) for name, service in services().items()}


_OF_IMAGES: Final = {"redis": 6379, "postgres": 5432, "grafana/grafana": 3000}


def _listens(service: Mapping[str, Any]) -> set[int]:
    image = str(service["image"]).rpartition(":")[0]
    words = [*map(str, service.get("command", ())), *map(str, settings(service).values())]
    told = {int(word[-4:]) for word in words if re.fullmatch(r"(\S+=)?0\.0\.0\.0:\d{4}", word)}
    return told | ({_OF_IMAGES[image]} if image in _OF_IMAGES else set())


def settings(service: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a service."""
    return dict(service.get("environment", {}))


def mounts(service: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Source, target and mode of each volume."""
    parts = [str(volume).split(":") for volume in service.get("volumes", ())]
    return [(source, target, (mode or [""])[0]) for source, target, *mode in parts]


def yaml_of(path: str) -> Any:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text())


def on_host(path: str) -> Path:
    """A file or folder of the repository, as compose names it."""
    assert path.startswith("./"), path
    return ROOT / path


def in_repository(service: str, path: str) -> Path:
    """The file that a container sees at `path`, by the mount that covers it."""
    found = [
        on_host(source) / Path(path).relative_to(target)
        for source, target, _ in mounts(services()[service])
        if source.startswith("./") and Path(path).is_relative_to(target)
    ]
    assert found, f"{service} mounts nothing at {path}"
    return found[0]


def address_of(text: str) -> tuple[str, int]:
    """Host and port of a URL, or of HOST:PORT."""
    parts = urlsplit(text if "//" in text else f"//{text}")
    assert parts.hostname and parts.port, text
    return parts.hostname, parts.port


def assert_listens(text: str, asked_by: str) -> None:
    """The address is that of a service that listens there, on a network of the one that asks."""
    host, port = address_of(text)
    assert port in ports().get(host, ()), f"nothing listens at {text}"
    shared = set(services()[host]["networks"]) & set(services()[asked_by]["networks"])
    assert shared, f"{asked_by} and {host} share no network"


def has_health_check(service: Mapping[str, Any]) -> bool:
    """Whether Docker asks it for its health; our own image has a check in its Dockerfile."""
    check = service.get("healthcheck", {})
    return not check.get("disable") and ("test" in check or is_ours(service))


def is_ours(service: Mapping[str, Any]) -> bool:
    """Whether it runs the image that the Dockerfile builds."""
    return "build" in service
