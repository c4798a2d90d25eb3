"""What a board is narrowed by, where it leads, and what is marked on its graphs."""

from __future__ import annotations

from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]
from idemwatch.alerts.names import IDEMPOTENCY, OVERVIEW, PIPELINE, SCHEDULES

from .options import Options
from .promql import FIRING, series

TITLES: Final = {
    OVERVIEW: "idemwatch: Overview",
    IDEMPOTENCY: "idemwatch: Idempotency",
    SCHEDULES: "idemwatch: Schedules",
    PIPELINE: "idemwatch: Pipeline",
}
DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_ON_TIME_CHANGE: Final = 2
_KEPT: Final = (
    "${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
)

ANNOTATIONS: Final[list[dict[str, Any]]] = [
    {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    },
    {
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "name": "Alerts",
        "tagKeys": "severity,task",
        "target": {"expr": FIRING, "interval": "", "refId": "Anno"},
        "textFormat": "{{severity}} {{task}}",
        "titleFormat": "{{alertname}}",
    },
]


def common(options: Options) -> list[Any]:
    """Data source, job and instance."""
    jobs = f'job=~"{options.jobs}"'
    source = core.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", refresh=1,
    )  # fmt: skip
    return [
        source,
        chosen("job", f"label_values(up{{{jobs}}}, job)"),
        chosen("instance", f'label_values(up{{job=~"$job", {jobs}}}, instance)'),
    ]


def of_tasks() -> list[Any]:
    """Task and scope."""
    return [_of("claims_total", "task"), _of("claims_total", "scope")]


def of_schedules() -> list[Any]:
    """Schedule."""
    return [_of("schedule_info", "schedule")]


def _of(metric: str, label: str) -> Any:
    return chosen(label, f"label_values({series(metric)}, {label})")


def chosen(name: str, query: str) -> Any:
    """A variable of which several values can be chosen, and all are at first."""
    return core.Template(
        name=name, label=name.capitalize(), query=query, multi=True, includeAll=True,
        allValue=".+", refresh=_ON_TIME_CHANGE, dataSource="${datasource}",
    )  # fmt: skip


def links(uid: str) -> list[Any]:
    """Links to the other boards, which keep the time and what was chosen."""
    return [
        core.DashboardLink(
            title=title, uri=f"/d/{other}", type="link", icon="dashboard", keepTime=True,
            includeVars=True, tooltip=f"Open {title}",
        )
        for other, title in TITLES.items() if other != uid
    ]  # fmt: skip


def to_board(title: str, uid: str, **variables: str) -> dict[str, Any]:
    """A link of a cell to a board for the row's own values: variables by their columns."""
    narrowed = "&".join(
        f"var-{name}=${{__data.fields.{column}:percentencode}}"
        for name, column in variables.items()
    )
    return {"title": title, "url": f"/d/{uid}?{narrowed}&{_KEPT}", "targetBlank": False}


def to_task(column: str = "Endpoint") -> list[dict[str, Any]]:
    """The board Idempotency for the task of the row."""
    return [to_board("What this task does twice", IDEMPOTENCY, task=column)]


def to_runbook(options: Options, column: str) -> list[dict[str, Any]]:
    """The runbook of the alert of the row."""
    url = f"{options.runbook_url}/${{__data.fields.{column}}}.md"
    return [{"title": "Runbook", "url": url, "targetBlank": True}]
