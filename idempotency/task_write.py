"""Writes a migrated file: whole or not at all, and only over what was analysed."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import IdempotencyError
from .task_files import Source, digest_of
from .whole_file import replace_whole


class NotWritten(IdempotencyError):
    """The file is as it was; the sentence says why."""


def write(source: Source, text: str, *, backup: bool) -> str:
    """Put the text in the place of the file; the path of the backup, or nothing.

    A link stays one: what it leads to is replaced. Raises NotWritten.
    """
    path = Path(source.path).resolve()
    try:
        state = path.stat()
        if not state.st_mode & 0o222 or not os.access(path, os.W_OK):
            raise NotWritten("is read-only")
        if state.st_nlink > 1:
            raise NotWritten(
                f"has {state.st_nlink} names (hard links), and would be changed under one of them "
                "alone: migrate a copy"
            )
        data = path.read_bytes()
        if digest_of(data) != source.digest:
            raise NotWritten("has changed since it was analysed: run the command again")
        kept = _keep(path, data, state) if backup else ""
        replace_whole(path, source.encoded(text), state)
    except OSError as error:
        raise NotWritten(f"cannot be written: {error.strerror}") from error
    beside = Path(source.path).with_name(Path(kept).name) if kept else Path()
    return str(beside) if kept and beside.exists() else kept  # as the path was given


def _keep(path: Path, data: bytes, state: os.stat_result) -> str:
    """A copy beside the file under a name that no file has yet."""
    number = 0
    while True:
        copy = path.with_name(f"{path.name}.orig{f'.{number}' if number else ''}")
        if not os.path.lexists(copy):
            replace_whole(copy, data, state)
            return str(copy)
        number += 1
