"""Python files of a code base that may hold tasks: which are looked at, and how one is read.

Nothing of them is imported or executed. What was read is known by its hash, so that a file that has
changed since is not written over.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SKIPPED: Final = frozenset(
    (
        *("__pycache__", "node_modules", "migrations", "site-packages", "venv", "build", "dist"),
        *("__pypackages__", "bower_components"),
    )
)
"""Folders that hold no tasks of the code base; those that begin with a dot, too."""
LARGEST: Final = 2_000_000
"""Bytes from which on a file is generated, not written."""
MARKS: Final = re.compile(
    rb"[Cc]elery|CELERY|@\s*[\w.]*\btask\b|\.task\s*[(,)\n]|shared_task|register_task|periodic"
    rb"|class\s+\w+\s*\([^)]*Task|beat_schedule"
)
"""What a file that makes tasks says somewhere."""
BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read. `text` has no byte order mark, and its own line ends."""

    path: str
    text: str
    encoding: str
    bom: bool
    digest: str

    def encoded(self, text: str) -> bytes:
        """Another text of this file, as bytes."""
        return ((BOM if self.bom else "") + text).encode(self.encoding)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A file that cannot be looked at. `skipped`: on purpose, which is no failure."""

    path: str
    problem: str
    line: int = 0
    skipped: bool = False


def digest_of(data: bytes) -> str:
    """What tells one content of a file from another."""
    return hashlib.sha256(data).hexdigest()


def is_there(path: str | Path) -> bool:
    """Whether there is such a file, as far as may be seen: a closed folder raises nothing."""
    try:
        Path(path).stat()
    except OSError:
        return False
    return True


def _is_folder(path: str) -> bool:
    return is_there(path) and Path(path).is_dir()


def python_files(paths: Sequence[str]) -> Iterator[str | Trouble]:
    """The Python files of the paths, each once, in the order of their names.

    A path that is named is looked at, whatever its name. A link to a folder is not followed; one
    to a file is, unless it leads out of the folder that is searched.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        found: Iterable[str | Trouble] = _walked(path) if _is_folder(path) else [path]
        for one in found:
            if isinstance(one, Trouble) or _first_time(one, seen):
                yield one


def _first_time(path: str, seen: set[tuple[int, int]]) -> bool:
    """Whether no link has led to this file before; one that is away is told by who reads it."""
    try:
        state = Path(path).stat()
    except OSError:
        return True
    new = (state.st_dev, state.st_ino) not in seen
    seen.add((state.st_dev, state.st_ino))
    return new


def _walked(root: str) -> Iterator[str | Trouble]:
    refused: list[OSError] = []
    top = Path(root).resolve()
    for folder, folders, names in os.walk(root, onerror=refused.append):
        while refused:
            yield _unreadable(refused.pop())
        folders[:] = sorted(name for name in folders if _entered(Path(folder, name)))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix != ".py":
                continue
            if path.is_symlink() and not is_there(path):  # as the locks of Emacs are
                yield Trouble(str(path), "a link that leads nowhere", skipped=True)
            elif path.is_symlink() and not path.resolve().is_relative_to(top):
                yield Trouble(str(path), "a link out of this folder; name its target", skipped=True)
            else:
                yield str(path)
    while refused:
        yield _unreadable(refused.pop())


def _unreadable(error: OSError) -> Trouble:
    return Trouble(str(Path(error.filename)), f"cannot be read: {error.strerror}")


def _entered(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in SKIPPED
    return not hidden and not is_there(folder / "pyvenv.cfg")


def read_source(path: str) -> Source | Trouble | None:
    """The file, why it cannot be read, or None if it cannot hold a task."""
    try:
        if not Path(path).is_file():
            return Trouble(path, "cannot be read: no such file")
        size = Path(path).stat().st_size
        if size > LARGEST:
            problem = f"{size:,} bytes, more than {LARGEST:,}"
            return Trouble(path, problem, skipped=True)
        data = Path(path).read_bytes()
    except OSError as error:
        return Trouble(path, f"cannot be read: {error.strerror}")
    return source_of(path, data) if MARKS.search(data) else None


def source_of(path: str, data: bytes) -> Source | Trouble:
    """The content of a file; its encoding is what its first lines say."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        bom = encoding == "utf-8-sig"
        encoding = "utf-8" if bom else encoding
        text = data.decode(encoding).removeprefix(BOM)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        return Trouble(path, f"cannot be decoded: {error}")
    source = Source(path, text, encoding, bom, digest_of(data))
    if source.encoded(text) != data:
        return Trouble(path, f"cannot be decoded as {encoding} and encoded again as it was")
    return source
