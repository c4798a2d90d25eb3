"""A YAML document as sections with typed values, whose errors name the file, the line and the key.

Invariant: the document is walked node by node against what is known, and never built as objects, so
aliases that blow up when they are expanded never are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError

Node = Any
"""A `yaml.Node`; yaml itself is imported when a file is read, since it is an extra."""

MAX_BYTES: Final = 64 * 1024


def read(path: Path) -> Section:
    """The document's root."""
    return Section(path, "", compose(path))


def compose(path: Path) -> Node | None:
    try:
        import bcrypt  # noqa: F401  needed by the first request, so it is asked for at start
        import yaml
    except ImportError as error:
        problem = f"needs {error.name}: pip install idemwatch[web]"
        raise ConfigurationError(str(path), problem) from error
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read ({error.strerror})") from error
    if len(text) > MAX_BYTES:
        raise ConfigurationError(str(path), f"is larger than {MAX_BYTES} bytes: not a web config")
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(str(path), f"is not YAML: {_where(error)}") from error


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return f"{line}{getattr(error, 'problem', None) or type(error).__name__}"


class Section:
    """One mapping of the document, with typed access to its values."""

    def __init__(self, path: Path, name: str, node: Node | None) -> None:
        self.path, self.name = path, name
        self._line = node.start_mark.line + 1 if node else 1
        self._nodes: dict[str, Node] = {}
        if node is None or _is_null(node):
            return
        if node.id != "mapping":
            raise self._error("", self._line, "must be keys with values")
        for key, value in node.value:
            self._add(key, value)

    def _add(self, key: Node, value: Node) -> None:
        line = key.start_mark.line + 1
        if key.id != "scalar":
            raise self._error("", line, "a key must be a plain string")
        if key.value in self._nodes:
            raise self._error(key.value, line, "is given twice")
        self._nodes[key.value] = value

    def _error(self, key: str, line: int, problem: str) -> ConfigurationError:
        dotted = ".".join(part for part in (self.name, key) if part)
        return ConfigurationError(str(self.path), f"line {line}: {dotted or 'the file'}: {problem}")

    def refuse(self, key: str, problem: str) -> ConfigurationError:
        node = self._nodes.get(key)
        return self._error(key, node.start_mark.line + 1 if node else self._line, problem)

    def check_keys(self, known: Iterable[str]) -> None:
        known = tuple(known)
        for key in self._nodes:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self.refuse(key, f"no such key; {hint}")

    def section(self, key: str) -> Section | None:
        node = self._nodes.get(key)
        if node is None or _is_null(node):
            return None
        return Section(self.path, ".".join(filter(None, (self.name, key))), node)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    def text(self, key: str, default: str = "") -> str:
        node = self._nodes.get(key)
        if node is None or _is_null(node):
            return default
        if node.id != "scalar":
            raise self.refuse(key, "must be a string")
        return str(node.value)

    def choice(self, key: str, allowed: Iterable[str], default: str) -> str:
        value = self.text(key, default)
        if value not in (choices := tuple(allowed)):
            raise self.refuse(key, f"{value!r} is not one of {', '.join(choices)}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        return self.choice(key, ("true", "false"), str(default).lower()) == "true"

    def texts(self, key: str) -> tuple[str, ...]:
        node = self._nodes.get(key)
        if node is None or _is_null(node):
            return ()
        if node.id != "sequence" or any(item.id != "scalar" for item in node.value):
            raise self.refuse(key, "must be a list of strings")
        return tuple(str(item.value) for item in node.value)

    def file(self, key: str) -> Path | None:
        value = self.text(key)
        return self.path.parent / value if value else None


def _is_null(node: Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")
