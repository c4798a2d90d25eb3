"""A recommendation as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .bars import colour_of
from .terminal import Screen
from .text_table import GAP, Column, table

NARROWEST: Final = 30
"""Columns that a reason has at least."""


def recommendation_view(found: Mapping[str, Any], zone: str, on: Screen) -> list[str]:
    """The best time and the alternatives, as `recommend_schedule_time` answers."""
    best = [found["cron_expression"], found["estimated_load"], found["reasoning"]]
    others = [[one["time"], one["load"], one["reasoning"]] for one in found["alternatives"]]
    rows = [
        ["best" if number == 0 else "or", expression, f"{load:.0%}", why]
        for number, (expression, load, why) in enumerate([best, *others])
    ]
    colours = {f"{load:.0%}": colour_of(load) for _, load, _ in [best, *others]}
    titles = ("", f"EXPRESSION ({zone})", "LOAD", "WHY")
    columns = [Column(title, right=title == "LOAD", colours=colours) for title in titles]
    shown = _wrapped([[*titles], *rows], on.width) if on.terminal else iter([[*titles], *rows])
    next(shown)
    return table(columns, shown, on)


def _wrapped(rows: Sequence[Sequence[str]], width: int) -> Iterator[list[str]]:
    """The rows with their last cells over as many lines as they need: a reason is told whole."""
    taken = sum(max(map(len, column)) + len(GAP) for column in list(zip(*rows, strict=True))[:-1])
    for *cells, why in rows:
        first, *more = textwrap.wrap(why, max(NARROWEST, width - taken))
        yield [*cells, first]
        yield from ([*[""] * len(cells), line] for line in more)
