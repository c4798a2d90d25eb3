"""Where schedules are read from, by name.

`table`, `beat` (the app's beat_schedule), `redbeat`, `django` (django-celery-beat), or a file or
folder: its kind is told by a prefix (`csv:`, `crontab:`, `system-crontab:`, `k8s:`), else by its
name. `csv:-` reads standard input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings

from .errors import InvalidSchedule
from .inventory import Inventory, Problem, inventory_of
from .place import Place

OPTION: Final = "--source"
FILES: Final = {
    "csv": ("csv_source", "read_csv"),
    "crontab": ("crontab_source", "read_user_crontab"),
    "system-crontab": ("crontab_source", "read_system_crontab"),
    "k8s": ("kubernetes_source", "read_manifests"),
}
"""Readers of a text: `(path, text) -> Inventory`."""
SERVERS: Final = {
    "table": ("table_source", "read_table"),
    "beat": ("beat_source", "read_beat_schedule"),
    "redbeat": ("redbeat_source", "read_redbeat"),
    "django": ("django_source", "read_django"),
}
"""Readers of an app or its servers: `(app, settings) -> Inventory`."""
SUFFIXES: Final = {".csv": "csv", ".yaml": "k8s", ".yml": "k8s"}
MEANT: Final = {"k8s": "CronJob"}
"""A word without which a file of a folder is passed over."""
LARGEST_BYTES: Final = 16_000_000


def read_source(given: str | None, *, app: Any | None, settings: Settings) -> Inventory:
    """The schedules of a source; None: the table, else the app's beat_schedule.

    Raises ConfigurationError for a source that cannot be read, StoreUnavailable, or
    InvalidSchedule for a file that is none.
    """
    chosen = given or _default(app, settings)
    if chosen in SERVERS:
        return _reader(SERVERS[chosen])(app, settings)
    kind, _, path = chosen.partition(":")
    if kind not in FILES:
        kind, path = "", chosen
    if path == "-":
        return _read_stdin(kind)
    if not path:
        raise ConfigurationError(OPTION, f"name a file: {kind or 'csv'}:FILE")
    try:
        return _read_path(kind, Path(path))
    except OSError as error:
        raise ConfigurationError(OPTION, f"cannot read {path[:200]!r}: {error.strerror}") from error


def _default(app: Any | None, settings: Settings) -> str:
    if settings.database_url is not None:
        return "table"
    if app is not None:
        return "beat"
    raise ConfigurationError(
        OPTION,
        f"is not given: name a file, or one of {', '.join(SERVERS)} (the table needs "
        "--database-url, the others an app: celery -A proj idemwatch ...)",
    )


def _reader(where: tuple[str, str]) -> Callable[..., Inventory]:
    module, name = where
    found: Callable[..., Inventory] = getattr(import_module(f".{module}", __package__), name)
    return found


def _read_stdin(kind: str) -> Inventory:
    if not kind:
        raise ConfigurationError(OPTION, f"say what - is: {', '.join(f'{one}:-' for one in FILES)}")
    return _read_text(kind, "-", _decoded("-", sys.stdin.buffer.read(LARGEST_BYTES + 1)))


def _read_text(kind: str, path: str, text: str | Problem) -> Inventory:
    if isinstance(text, Problem):
        raise ConfigurationError(OPTION, str(text))
    return _reader(FILES[kind])(path, text)


def _read_path(kind: str, path: Path) -> Inventory:
    if path.is_dir():
        return _read_folder(kind, path)
    if not path.exists():
        known = ", ".join((*SERVERS, *(f"{one}:FILE" for one in FILES)))
        raise ConfigurationError(OPTION, f"no file {str(path)!r}, and none of {known}")
    return _read_text(kind or _kind(path), str(path), _text(path))


def _kind(path: Path) -> str:
    system = path.parent.name == "cron.d" or path.name == "crontab"
    return SUFFIXES.get(path.suffix.lower(), "system-crontab" if system else "crontab")


def _read_folder(kind: str, folder: Path) -> Inventory:
    read = (_read_member(kind or _kind(path), path) for path in _files(kind, folder))
    found = [one for one in read if one is not None]
    if not found:
        raise ConfigurationError(OPTION, f"no file of schedules in {str(folder)!r}")
    return inventory_of(
        str(folder),
        [replace(s, id=f"{one.source}:{s.id}") for one in found for s in one.schedules],
        [problem for one in found for problem in one.problems],
        [doubt for one in found for doubt in one.doubts],
    )


def _read_member(kind: str, path: Path) -> Inventory | None:
    """A file of a folder: one that cannot be read is a problem, and one not meant is None."""
    text = _text(path)
    if isinstance(text, Problem):
        return Inventory(str(path), problems=(text,))
    if MEANT.get(kind, "") not in text:
        return None
    try:
        return _read_text(kind, str(path), text)
    except InvalidSchedule as error:
        return Inventory(str(path), problems=(Problem(Place(str(path), 1), str(error)),))


def _files(kind: str, folder: Path) -> Iterator[Path]:
    """Those that are meant: manifests and CSV by their suffix; in a cron.d, as cron does, names
    without a dot."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        named = SUFFIXES.get(path.suffix.lower())
        cron = folder.name == "cron.d" or kind.endswith("crontab")
        if _is_table(path.name) if cron and named is None else named and named == (kind or named):
            yield path


def _is_table(name: str) -> bool:
    return "." not in name and not name.startswith("#") and not name.endswith("~")


def _text(path: Path) -> str | Problem:
    try:
        with path.open("rb") as file:
            return _decoded(str(path), file.read(LARGEST_BYTES + 1))
    except OSError as error:
        return Problem(Place(str(path)), f"it cannot be read: {error.strerror}")


def _decoded(path: str, data: bytes) -> str | Problem:
    if len(data) > LARGEST_BYTES:
        return Problem(Place(path), f"it is over {LARGEST_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(Place(path, line), "it is no UTF-8 text")
