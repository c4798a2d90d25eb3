"""Where a schedule was read."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A file's path, or the name of another source; `line` and `column` from 1, 0 for none."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.source, *(str(part) for part in self[1:] if part)])
