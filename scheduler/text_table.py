"""Tables as text: columns that fit the screen, of cells that may hold anything."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from idemwatch.idempotency.printing import printable

from .terminal import Screen

GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """`least`: columns that it is cut down to where lines do not fit; None: it is never cut.

    `colours`: by the text of a cell.
    """

    title: str
    right: bool = False
    least: int | None = None
    colours: Mapping[str, str] = field(default_factory=dict)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], on: Screen) -> list[str]:
    """A line for the titles and one for each row."""
    titles = [column.title for column in columns]
    cells = [titles, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(columns_of, column)) for column in zip(*cells, strict=True)]
    if on.terminal:
        _shrink(columns, widths, on.width)
    lines = [_line(columns, widths, row, on) for row in cells]
    lines[0] = on.styled(lines[0], dim=True)
    return lines


def columns_of(text: str) -> int:
    """Columns that a terminal takes for the text: East Asian characters are wide."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def cut(text: str, width: int, *, unicode: bool = True) -> str:
    """The text in at most `width` columns, without its middle: names differ at their ends."""
    if columns_of(text) <= width:
        return text
    gap = "…" if unicode else ".."
    left = width - len(gap)
    return _first(text, left - left // 2) + gap + _first(text[::-1], left // 2)[::-1]


def _first(text: str, width: int) -> str:
    text = text[:width]
    while columns_of(text) > width:
        text = text[:-1]
    return text


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Take what is too much from the widest of the columns that shrink."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    for _ in range(max(0, excess)):
        shrinking = [
            number
            for number, one in enumerate(columns)
            if one.least is not None and widths[number] > one.least
        ]
        if not shrinking:
            return
        widths[max(shrinking, key=widths.__getitem__)] -= 1


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], on: Screen) -> str:
    parts = []
    for column, width, given in zip(columns, widths, row, strict=True):
        cell = cut(given, width, unicode=on.unicode)
        space = " " * (width - columns_of(cell))
        styled = on.styled(cell, column.colours.get(given))
        parts.append(space + styled if column.right else styled + space)
    return GAP.join(parts).rstrip()
