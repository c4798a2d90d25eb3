"""grafanalib's model of a board, which is that of Grafana 4 to 8, lifted to what 11 to 13 write.

One pure pass, which keeps what is known to the new model and drops the rest: no nulls, no legacy
keys, every query with its data source.
"""

from __future__ import annotations

import json
from typing import Any, Final

from grafanalib._gen import DashboardEncoder  # type: ignore[import-untyped]

from .variables import ANNOTATIONS, DATA_SOURCE

SCHEMA_VERSION: Final = 41
PLUGIN_VERSION: Final = "12.0.0"
REFRESHES: Final = ["10s", "30s", "1m", "5m", "15m", "1h"]

_BOARD: Final = (
    "description", "editable", "graphTooltip", "links", "refresh", "tags", "time", "timezone",
    "title", "uid",
)  # fmt: skip
_PANEL: Final = (
    "description", "fieldConfig", "gridPos", "id", "maxDataPoints", "options", "title",
    "transformations", "type",
)  # fmt: skip
_UNSET: Final = {"maxDataPoints": 100, "transformations": [], "pluginVersion": ""}
"""What grafanalib writes where nobody said anything."""


def lifted(board: Any) -> dict[str, Any]:
    """The model of a grafanalib `Dashboard`."""
    old = json.loads(json.dumps(board.to_json_data(), cls=DashboardEncoder))
    new = {
        **_kept(old, _BOARD),
        "annotations": {"list": ANNOTATIONS},
        "fiscalYearStartMonth": 0,
        "panels": [_panel(one) for one in old["panels"]],
        "preload": False,
        "schemaVersion": SCHEMA_VERSION,
        "templating": {"list": [_variable(one) for one in old["templating"]["list"]]},
        "timepicker": {"refresh_intervals": REFRESHES},
        "version": 1,
    }
    return {name: without_nulls(new[name]) for name in sorted(new)}


def without_nulls(value: Any) -> Any:
    """The same with nothing in it that is null."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def _kept(old: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: old[name]
        for name in names
        if old.get(name) is not None and old[name] != _UNSET.get(name, old)
    }


def _panel(old: dict[str, Any]) -> dict[str, Any]:
    if old["type"] == "row":
        return {**_kept(old, ("gridPos", "id", "title", "type")), "collapsed": False, "panels": []}
    new = _kept(old, _PANEL)
    if old["type"] == "text":
        return {**new, "fieldConfig": {"defaults": {}, "overrides": []},
                "pluginVersion": PLUGIN_VERSION}  # fmt: skip
    if not new["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        del new["fieldConfig"]["defaults"]["thresholds"]
    if old["type"] == "table":
        new["fieldConfig"]["defaults"]["custom"].pop("displayMode")
    return {
        **new,
        "datasource": DATA_SOURCE,
        "pluginVersion": PLUGIN_VERSION,
        "targets": [_target(one) for one in old["targets"]],
    }


def _target(old: dict[str, Any]) -> dict[str, Any]:
    return {
        **_kept(old, ("expr", "format", "instant", "refId")),
        "datasource": DATA_SOURCE,
        "editorMode": "code",
        "legendFormat": old["legendFormat"] or "__auto",
        "range": not old["instant"],
    }


def _variable(old: dict[str, Any]) -> dict[str, Any]:
    names = ("hide", "includeAll", "label", "multi", "name", "query", "refresh", "regex", "type")
    new = {**_kept(old, names), "options": [], "skipUrlSync": False}
    if old["type"] == "datasource":
        return {**new, "current": {}}
    asked = {
        "qryType": 1,
        "query": old["query"],
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    return {
        **new,
        **_kept(old, ("allValue", "sort")),
        "allowCustomValue": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "datasource": DATA_SOURCE,
        "definition": old["query"],
        "query": asked,
    }
