"""Tables: one instant query each, its labels as columns in a given order, with units and links.

Invariant: a table that finds nothing says so in words (see `promql.wide`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]

from .looks import ABSENT, TEXT, steps
from .panels import Panel, Query, organized, override

NAME_WIDTH: Final = 290
"""Pixels for the name of a task: Grafana breaks a text at blanks, and there is none in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `of`: the label, or Value. `width` in pixels; names share what is left.

    A label that holds a number has a `unit`, so that it is shown and sorted as one. `limits` and
    `mappings` colour it.
    """

    title: str
    of: str = "Value"
    unit: str = ""
    decimals: int | None = None
    width: int | None = None
    limits: Mapping[str, Any] | None = None
    mappings: Sequence[Any] = ()
    links: Sequence[Any] = field(default_factory=tuple)


def table(
    title: str, description: str, query: str, columns: Sequence[Column], *, empty: str,
    sort: str = "", descending: bool = False, then: str = "",
) -> Panel:  # fmt: skip
    """A row for each series that `query` finds, by column `sort`; of equal ones `then` decides."""
    numbers = [one.of for one in columns if one.unit and one.of != "Value"]
    conversions = [{"targetField": name, "destinationType": "number"} for name in numbers]
    return core.Table(
        title=title,
        description=description,
        targets=[core.Target(expr=query, format="table", instant=True, refId="A")],
        transformations=[
            *([{"id": "convertFieldType", "options": {
                "conversions": conversions, "fields": {},
            }}] if conversions else []),
            organized({one.of: one.title for one in columns}),
        ],
        overrides=[override("byName", one.title, **_properties(one)) for one in columns],
        sortBy=[
            core.TableSortByField(displayName=name, desc=down)
            for name, down in ((sort, descending), (then, False)) if name
        ],
        unit="none",
        extraJson={
            "fieldConfig": {"defaults": {
                "color": {"mode": "thresholds"},
                "custom": {"cellOptions": {"type": "auto"}, "inspect": False, "minWidth": 60},
                "noValue": empty,
                "thresholds": steps(TEXT),
            }},
            "options": {"cellHeight": "sm"},
        },
    )  # fmt: skip


def _properties(column: Column) -> dict[str, Any]:
    coloured = column.limits or column.mappings
    kind = {"type": "color-text" if coloured else "auto", "wrapText": not column.unit}
    found: dict[str, Any] = {
        "unit": column.unit,
        "decimals": column.decimals,
        "custom__width": column.width,
        "custom__align": "right" if column.unit else "left",
        "custom__cellOptions": kind,
        "thresholds": column.limits,
        "mappings": list(column.mappings),
        "links": list(column.links),
        "noValue": ABSENT,
    }
    return {name: value for name, value in found.items() if value not in ("", None, [])}


__all__ = ["NAME_WIDTH", "Column", "Query", "table"]
