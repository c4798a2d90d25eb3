"""The queries of a board as Prometheus gets them: what Grafana puts in for variables is put in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

ALL: Final = ".+"
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|([a-z_]\w*))")
"""Not $1, which is a group of a regular expression."""


class Asked(NamedTuple):
    """One query. `format`: time_series, table or heatmap; `instant`: of one moment, not a range."""

    panel: str
    ref: str
    expr: str
    instant: bool
    format: str


def substituted(
    expr: str, *, job: str = ALL, instance: str = ALL, task: str = ALL, scope: str = ALL,
    schedule: str = ALL, rate_interval: str = "1m", range: str = "1h",  # noqa: A002
) -> str:  # fmt: skip
    """`expr` with its variables filled in. Raises KeyError for one that no board has."""
    values = {
        "job": job, "instance": instance, "task": task, "scope": scope, "schedule": schedule,
        "__rate_interval": rate_interval, "__range": range,
    }  # fmt: skip
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def queries(board: Mapping[str, Any], **values: str) -> list[Asked]:
    """All queries of a board's panels, in their order; `values` as `substituted` takes them."""
    return [
        Asked(panel["title"], one["refId"], substituted(one["expr"], **values), one["instant"],
              one["format"])
        for panel in board["panels"] for one in panel.get("targets", [])
    ]  # fmt: skip


def expressions(board: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where PromQL stands in a board, and the PromQL as it stands there: panels and annotations."""
    for panel in board["panels"]:
        for one in panel.get("targets", []):
            yield f"{panel['title']} {one['refId']}", one["expr"]
    for one in board["annotations"]["list"]:
        if "target" in one:
            yield f"annotation {one['name']}", one["target"]["expr"]
