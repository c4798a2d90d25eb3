"""Puts new content in the place of a file in one step: whole, or as it was before."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def replace_whole(path: Path, data: bytes, state: os.stat_result | None = None) -> None:
    """Write beside the file and rename. `state`: whose mode and owner it gets. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if state is not None:
            _take_over(beside, state)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _take_over(path: Path, state: os.stat_result) -> None:
    with suppress(PermissionError):  # another's file: only root can give it back
        os.chown(path, state.st_uid, state.st_gid)
    path.chmod(state.st_mode & 0o7777)
