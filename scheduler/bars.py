"""Bars of load: where they end, which colour they have, and the marks at 50% and 70%."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idemwatch.alerts.thresholds import BUSY, HOT

from .terminal import Screen

BLOCKS: Final = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█")
MARKED: Final = (BUSY, HOT)
MARK: Final = "|"


@dataclass(frozen=True, slots=True)
class Axis:
    """From nothing to `top`, in `width` columns."""

    width: int
    top: float

    def column(self, load: float) -> int:
        """The column that a load falls in."""
        return min(self.width - 1, int(load / self.top * self.width))

    @property
    def marks(self) -> list[int]:
        """Columns of the marks."""
        return [self.column(load) for load in MARKED]


def axis_for(loads: list[float], width: int) -> Axis:
    """An axis that shows all loads, and 100% at least."""
    return Axis(max(1, width), max(1.0, *loads))


def colour_of(load: float) -> str:
    """Red over 70%, yellow over 50%."""
    if load > HOT:
        return "red"
    return "yellow" if load > BUSY else "green"


def percent(load: float) -> str:
    """A load in at most six characters."""
    return f"{load:.0%}" if load < 100 else ">9999%"


def bar(load: float, axis: Axis, on: Screen) -> str:
    """A bar that fills the width of the axis, with the marks that it does not reach."""
    body = _body(load / axis.top * axis.width, on)
    rest = [MARK if at in axis.marks else " " for at in range(len(body), axis.width)]
    return on.styled(body, colour_of(load)) + on.styled("".join(rest), dim=True)


def _body(length: float, on: Screen) -> str:
    """A bar of so many columns; one that is not empty shows."""
    if length <= 0:
        return ""
    if not on.unicode:
        return "#" * max(1, round(length))
    whole, eighths = divmod(max(1, round(length * 8)), 8)
    return BLOCKS[8] * whole + BLOCKS[eighths]


def ruler(axis: Axis) -> str:
    """The loads at the marks and at the end of the axis, above the bars."""
    line = [" "] * axis.width
    top = f"{axis.top:.0%}"
    for at, text in (*zip(axis.marks, ("50%", "70%"), strict=True), (axis.width - len(top), top)):
        end_at = at + len(text)
        if at >= 0 and end_at <= axis.width and not "".join(line[max(0, at - 1) : end_at]).strip():
            line[at:end_at] = text
    return "".join(line)
