"""A recommendation as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bars import colour_of
from .terminal import Screen
from .text_table import Column, table


def recommendation_view(found: Mapping[str, Any], zone: str, on: Screen) -> list[str]:
    """The best time and the alternatives, as `recommend_schedule_time` answers."""
    best = [found["cron_expression"], found["estimated_load"], found["reasoning"]]
    others = [[one["time"], one["load"], one["reasoning"]] for one in found["alternatives"]]
    rows = [
        ["best" if number == 0 else "or", expression, f"{load:.0%}", why]
        for number, (expression, load, why) in enumerate([best, *others])
    ]
    colours = {f"{load:.0%}": colour_of(load) for _, load, _ in [best, *others]}
    columns = (
        Column(""),
        Column(f"EXPRESSION ({zone})"),
        Column("LOAD", right=True, colours=colours),
        Column("WHY", least=40),
    )
    return table(columns, rows, on)
