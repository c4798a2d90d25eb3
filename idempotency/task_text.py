"""Places in a text by the lines and columns that `ast` tells, and changes at such places.

`ast` counts columns in bytes of UTF-8, and ends a line at \\n, \\r\\n and \\r alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_END: Final = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Edit:
    """What stands from `start` to `end` becomes `text`."""

    start: int
    end: int
    text: str


class Text:
    """A text and where its lines begin."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(found.end() for found in _END.finditer(text))]

    def offset(self, line: int, column: int) -> int:
        """Where a line (from 1) and column (in bytes) are."""
        start = self._starts[line - 1]
        content = self.text[start : self.line_start(line + 1)]
        return start + len(content.encode()[:column].decode())

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Where an expression begins and ends."""
        assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101
        start = self.offset(node.lineno, node.col_offset)
        return start, self.offset(node.end_lineno, node.end_col_offset)

    def line_start(self, line: int) -> int:
        """Where a line begins; the end of the text for one that is not there."""
        return self._starts[line - 1] if line <= len(self._starts) else len(self.text)

    def indent(self, line: int) -> str:
        """The white space that a line begins with."""
        rest = self.text[self.line_start(line) : self.line_start(line + 1)]
        return rest[: len(rest) - len(rest.lstrip(" \t\f"))].replace("\f", "")

    def is_comment(self, line: int) -> bool:
        """Whether nothing but a comment stands on the line."""
        rest = self.text[self.line_start(line) : self.line_start(line + 1)]
        return rest.lstrip(" \t\f").startswith("#")

    @property
    def newline(self) -> str:
        """How most of the lines end."""
        ends = _END.findall(self.text)
        return max(("\n", "\r\n", "\r"), key=ends.count)

    @property
    def unit(self) -> str:
        """One level of indentation: a tab where the file has tabs."""
        found = re.search(r"(?:^|[\r\n])(\t| +)\S", self.text)
        return "\t" if found and found.group(1) == "\t" else "    "


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits, which do not overlap."""
    parts: list[str] = []
    at = 0
    for edit in sorted(edits, key=_start):
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def _start(edit: Edit) -> tuple[int, int]:
    return edit.start, edit.end
