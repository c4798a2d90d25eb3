"""A report in a file: whole, or as it was before."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ConfigurationError
from .whole_file import replace_whole

OPTION = "--output"


def require_folder(path: Path) -> None:
    """Raise ConfigurationError if no file can be written there: before any work is done."""
    folder = path.resolve().parent
    if path.is_dir():
        raise ConfigurationError(OPTION, f"{str(path)!r} is a folder")
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        return
    if not folder.is_dir():
        raise ConfigurationError(OPTION, f"no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(OPTION, f"folder {str(folder)!r} cannot be written to")


def write_report(path: Path, text: str) -> None:
    """Put the text in place of the file in one step. Raises ConfigurationError."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            replace_whole(path.resolve(), text.encode())
    except OSError as error:
        raise ConfigurationError(OPTION, f"cannot write {str(path)!r}: {error.strerror}") from error
