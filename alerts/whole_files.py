"""How files are put into a folder: each is there whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EISDIR
from pathlib import Path


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Put the files into the folder, which is made if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (folder / name).is_dir():  # else it would be found after the first file is in place
            raise IsADirectoryError(EISDIR, "it is a folder", str(folder / name))
    written: Sequence[tuple[Path, Path]] = [
        (folder / f".{name}.{os.getpid()}.tmp", folder / name) for name in files
    ]
    try:
        for (beside, _), text in zip(written, files.values(), strict=True):
            _write_new(beside, text)
        for beside, path in written:
            beside.replace(path)
    finally:
        for beside, _ in written:
            with suppress(OSError):
                beside.unlink()


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
