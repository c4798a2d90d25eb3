"""What a rule is: a series that is recorded, or an alert with its words and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from .names import GRAFANA, RUNBOOKS, STATE_JOB, WORKER_JOB
from .thresholds import Thresholds
from .windows import TimeScale

Severity = Literal["critical", "warning", "info", "none"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info", "none")
USUAL_INTERVAL_SECONDS: Final = 15.0
"""What scaled groups divide when they have no interval of their own."""
OF_TASK: Final = "?var-task={{ $labels.task | urlquery }}"
"""Narrows a board to the alert's task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What rules are made for. Neither URL ends in a slash."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    scale: TimeScale = field(default_factory=TimeScale)
    job: str = STATE_JOB
    worker_job: str = WORKER_JOB
    runbook_url: str = RUNBOOKS
    dashboard_url: str = GRAFANA


@dataclass(frozen=True, slots=True)
class Record:
    """A series `name`, level:metric:operations, recorded from `expr`."""

    name: str
    expr: str

    def yaml(self, build: Build) -> dict[str, Any]:  # noqa: ARG002  as an alert's
        """The rule as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert. Times in seconds, before they are divided.

    `real_seconds`: what the alert waits for takes so long in real time, so a scaled `for` is not
    shorter. `narrowed`: what is put behind the board's address, as `OF_TASK`.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    board: str
    for_seconds: float = 0
    keep_seconds: float = 0
    real_seconds: float = 0
    narrowed: str = ""

    def yaml(self, build: Build) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.for_seconds:
            rule["for"] = build.scale.window(self.for_seconds, least=self.real_seconds)
        if self.keep_seconds:
            rule["keep_firing_for"] = build.scale.window(self.keep_seconds)
        rule["labels"] = {"severity": self.severity}
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{build.runbook_url}/{self.name}.md",
            "dashboard_url": f"{build.dashboard_url}/d/{self.board}{self.narrowed}",
        }
        return rule


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated in their order, so a rule may use what one before it records.

    `interval_seconds`: None for Prometheus's own evaluation interval.
    """

    name: str
    rules: Sequence[Record | Alert]
    interval_seconds: float | None = None

    def yaml(self, build: Build) -> dict[str, Any]:
        """The group as Prometheus reads it."""
        group: dict[str, Any] = {"name": self.name}
        if self.interval_seconds is not None or not build.scale.is_real:
            group["interval"] = build.scale.window(self.interval_seconds or USUAL_INTERVAL_SECONDS)
        group["rules"] = [rule.yaml(build) for rule in self.rules]
        return group
