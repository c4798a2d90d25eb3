"""The panels that boards are made of: grafanalib's classes, with what Grafana 11 to 13 add to them.

A helper takes the unit as a parameter, and a description always: a panel without one is no help.
`model.lifted` takes away what grafanalib writes for older versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]

from .looks import NO_ANSWER, TEXT, steps

Panel = Any
"""grafanalib has no types."""

_SEEN: Final = {"legend": False, "tooltip": False, "viz": False}


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and the name of what it finds. `format`: time_series, table or heatmap."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"


Queries = str | Query | Sequence[Query]


def stat(
    title: str, description: str, queries: Queries, *, unit: str = "none", decimals: int = 0,
    limits: Mapping[str, Any] | None = None, mappings: Sequence[Any] = (), empty: str = NO_ANSWER,
    names: bool = False, overrides: Sequence[Any] = (),
    links: Sequence[Any] = (),
) -> Panel:  # fmt: skip
    """One figure, or one for each query, of this moment. Without limits it has the text's colour.

    A range would show its last point: at 30 days that is hours old, and stays when all is gone.
    """
    now = [replace(one, instant=True) for one in _listed(queries)]
    return core.Stat(
        **_common(title, description, now),
        alignment="auto",
        colorMode="value",
        decimals=decimals,
        format=unit,
        graphMode="none",
        mappings=list(mappings),
        noValue=empty,
        orientation="vertical",
        overrides=list(overrides),
        reduceCalc="lastNotNull",
        textMode="value_and_name" if names else "value",
        extraJson={
            "fieldConfig": {"defaults": {
                "color": {"mode": "thresholds"},
                "links": list(links),
                "thresholds": limits or steps(TEXT),
            }},
            "options": {
                "percentChangeColorMode": "standard", "showPercentChange": False,
                "wideLayout": True,
            },
        },
    )  # fmt: skip


def timeseries(
    title: str, description: str, queries: Queries, *, unit: str, decimals: int | None = None,
    limit: float | None = None, soft_max: float | None = None, stacked: bool = False,
    label: str = "", empty: str = NO_ANSWER, overrides: Sequence[Any] = (),
    least: int | None = 0, long_names: bool = False,
) -> Panel:  # fmt: skip
    """Lines from `least` up; `limit` is drawn as a dashed red line.

    `long_names`: such as those of tasks, which stand on the right, one under the other.
    """
    custom = {
        "axisBorderShow": False, "axisCenteredZero": False, "axisColorMode": "text",
        "axisSoftMax": soft_max, "barWidthFactor": 0.6, "hideFrom": _SEEN, "insertNulls": False,
        "scaleDistribution": {"type": "linear", "log": None},
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if limit is not None else "off"},
    }  # fmt: skip
    return core.TimeSeries(
        **_common(title, description, queries),
        axisLabel=label,
        fillOpacity=30 if stacked else 10,
        lineWidth=1,
        overrides=list(overrides),
        showPoints="auto",
        tooltipMode="multi",
        tooltipSort="desc",
        unit=unit,
        valueDecimals=decimals,
        valueMin=least,
        extraJson={
            "fieldConfig": {"defaults": {
                "custom": custom,
                "noValue": empty,
                "thresholds": steps("transparent", *([] if limit is None else [(limit, "red")])),
            }},
            "options": {
                "legend": {"showLegend": True} | ({"placement": "right"} if long_names else {}),
                "tooltip": {"hideZeros": False},
            },
        },
    )  # fmt: skip


def barchart(
    title: str, description: str, query: str, *, x: str, value: str, names: tuple[str, str],
    unit: str, limits: Mapping[str, Any], top: float, empty: str,
) -> Panel:  # fmt: skip
    """A bar for each value of the label `x`, in its order; each has the colour of its height."""
    bars, heights = names
    return core.BarChart(
        **_common(title, description, Query(query, instant=True, format="table")),
        barWidth=0.9,
        colorMode="thresholds",
        fillOpacity=85,
        # Grafana 11 and 12 colour each bar by its own value only in this mode.
        gradientMode="scheme",
        lineWidth=0,
        orientation="vertical",
        showLegend=False,
        showValue="never",
        xTickLabelSpacing=100,
        transformations=[
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": x}]}},
            organized({x: bars, value: heights}),
        ],
        extraJson={
            "fieldConfig": {"defaults": {
                "color": {"mode": "thresholds", "fixedColor": None},
                "custom": {
                    "axisBorderShow": False, "axisSoftMax": top, "axisSoftMin": 0,
                    "thresholdsStyle": {"mode": "off"},
                },
                "min": 0,
                "noValue": empty,
                "thresholds": limits,
                "unit": unit,
            }},
            "options": {
                "fullHighlight": False, "stacking": "none", "xField": bars,
                "xTickLabelMaxLength": 12, "tooltip": {"hideZeros": False},
            },
        },
    )  # fmt: skip


def state_timeline(
    title: str, description: str, queries: Queries, *, mappings: Sequence[Any], empty: str
) -> Panel:
    """What held when, as bands of colour with their names."""
    return core.StateTimeline(
        **_common(title, description, queries),
        mappings=list(mappings),
        rowHeight=0.85,
        extraJson={
            "fieldConfig": {"defaults": {
                # By thresholds, Grafana would show those in place of the mapped texts.
                "color": {"fixedColor": TEXT, "mode": "fixed"},
                "custom": {"axisPlacement": "auto", "hideFrom": _SEEN},
                "noValue": empty,
                "thresholds": steps(TEXT),
                "unit": "none",
            }},
            "options": {
                "legend": {"showLegend": False},
                # As many as have room for their names.
                "perPage": 8,
                "tooltip": {"hideZeros": False, "sort": "none"},
            },
        },
    )  # fmt: skip


def heatmap(title: str, description: str, query: str, *, unit: str, empty: str) -> Panel:
    """The buckets of a histogram over time; `query` gives a series for each `le`."""
    return core.Heatmap(
        **_common(title, description, Query(query, "{{le}}", format="heatmap")),
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {
                "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False,
                "scale": "exponential", "scheme": "Oranges", "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            # It would go from infinity to minus infinity while nothing is counted.
            "legend": {"show": False},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "custom": {
                        "hideFrom": _SEEN, "scaleDistribution": {"type": "linear"},
                    },
                    "noValue": empty,
                },
                "overrides": [],
            },
            # Wide enough cells to be seen.
            "maxDataPoints": 60,
        },
    )  # fmt: skip


def text(title: str, description: str, content: str) -> Panel:
    """Words, in Markdown."""
    return core.Text(title=title, description=description, content=content, mode="markdown")


def row(title: str) -> Panel:
    """A heading over the panels below it."""
    return core.RowPanel(title=title)


def organized(names: Mapping[str, str]) -> dict[str, Any]:
    """A transformation that names the fields, in this order, and leaves out the time."""
    return {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True} | ({} if "Value" in names else {"Value": True}),
            "includeByName": {},
            "indexByName": {field: index for index, field in enumerate(names)},
            "renameByName": dict(names),
        },
    }


def override(matcher: str, of: str, **properties: Any) -> dict[str, Any]:
    """What one field has instead of the defaults; `__` stands for a dot."""
    return {
        "matcher": {"id": matcher, "options": of},
        "properties": [
            {"id": name.replace("__", "."), "value": value} for name, value in properties.items()
        ],
    }


def _common(title: str, description: str, queries: Queries) -> dict[str, Any]:
    return {"title": title, "description": description, "targets": _targets(queries)}


def _targets(queries: Queries) -> list[Any]:
    return [
        core.Target(
            expr=one.expr,
            format=one.format,
            instant=one.instant,
            legendFormat=one.legend,
            refId=chr(ord("A") + number),
        )
        for number, one in enumerate(_listed(queries))
    ]


def _listed(queries: Queries) -> list[Query]:
    if isinstance(queries, str):
        return [Query(queries)]
    return [queries] if isinstance(queries, Query) else list(queries)
