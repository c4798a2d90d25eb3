"""Where panels stand. Invariant: every line of panels fills the 24 columns, and none overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from grafanalib import core  # type: ignore[import-untyped]

from .panels import Panel, row

COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side, each with its width; heights are of about 38 pixels."""

    height: int
    panels: Sequence[tuple[int, Panel]]

    @classmethod
    def of(cls, height: int, *panels: Panel) -> Line:
        """Panels of one width."""
        return cls(height, [(COLUMNS // len(panels), panel) for panel in panels])


def placed(lines: Iterable[Line | str]) -> list[Panel]:
    """The panels in their places, one line under the other; a string is a heading."""
    found: list[Panel] = []
    below = 0
    for one in lines:
        line = Line(1, [(COLUMNS, row(one))]) if isinstance(one, str) else one
        found += _in_line(line, below, len(found))
        below += line.height
    return found


def _in_line(line: Line, below: int, before: int) -> list[Panel]:
    left = 0
    for number, (width, panel) in enumerate(line.panels, 1):
        panel.id = before + number
        panel.gridPos = core.GridPos(h=line.height, w=width, x=left, y=below)
        left += width
    if left != COLUMNS:
        raise ValueError(f"{[panel.title for _, panel in line.panels]} are {left} columns wide")
    return [panel for _, panel in line.panels]
