"""A report as JSON, for programs. `schedule-report.schema.json` beside this file describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from .changes import Change
from .checks import Hotspot, clock_of
from .exit_codes import ERRORS, PASSED, WARNINGS
from .findings import Finding, Severity
from .inventory import Problem
from .occurrences import timing_text
from .place import Place
from .report import WEEK, Report

SCHEMA: Final = "urn:idemwatch:schedule-report:1"
SCHEMA_FILE: Final = "schedule-report.schema.json"
MOST_IDS: Final = 100
"""Ids that one finding names."""
_RESULTS: Final = {PASSED: "passed", WARNINGS: "warnings", ERRORS: "errors"}
_DIGITS: Final = 6


def schema() -> dict[str, Any]:
    """The schema of reports, draft 2020-12."""
    text = resources.files(__package__).joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def json_report(report: Report) -> str:
    """The report as indented JSON, in ASCII."""
    return json.dumps(as_json(report), indent=2) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON's values. Loads are fractions of the capacity."""
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "source": report.source,
        "result": _RESULTS[report.exit_code()],
        "week": {"start": _moment(report.now), "end": _moment(report.now + WEEK)},
        "timezone": report.zone,
        "capacity": {"slots": report.capacity.slots, "source": report.capacity.source},
        "checks": list(report.checks),
        "not_asked": list(report.unasked),
        "only": [one.id for one in report.subjects],
        "summary": _summary(report),
        "health": _health(report),
        "load": _load(report),
        "hotspots": [_hotspot(one) for one in report.hotspots],
        "findings": [_finding(one) for one in report.findings],
        "problems": [_problem(one) for one in report.problems],
    }
    if report.changes is not None:
        told["changes"] = [_change(one) for one in report.changes]
        told["change_id"] = report.change_id
    return told


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _summary(report: Report) -> dict[str, int]:
    counts = report.counts
    return {
        "schedules": report.rows - len(report.problems),
        "active": report.active,
        "unreadable": len(report.problems),
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "info": counts[Severity.INFO],
    }


def _health(report: Report) -> dict[str, Any]:
    state = report.health
    return {
        "score": state.score,
        "raw_score": state.raw_score,
        "grade": state.grade,
        "hotspots": len(state.hotspots),
        "conflicts": len(state.conflicts),
        "unbalanced_hours": state.unbalanced_hours,
        "quiet_hours": state.quiet_hours,
        "bands": state.bands,
    }


def _load(report: Report) -> dict[str, Any]:
    load = report.health.load
    return {
        "highest": _rounded(load.load.max(initial=0)),
        "mean": _rounded(load.load.mean()),
        "highest_concurrency": int(load.concurrency.max(initial=0)),
        "half_hours": [
            {"start": clock_of(slot), "load": _rounded(one)}
            for slot, one in enumerate(report.health.slots)
        ],
    }


def _rounded(load: float) -> float:
    return round(float(load), _DIGITS)


def _hotspot(one: Hotspot) -> dict[str, Any]:
    return {
        "start": one.clock,
        "load": _rounded(one.load),
        "schedules_starting": len(one.starting),
        "busiest_at": _moment(one.busiest),
        "concurrency": one.runs,
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "check": one.check,
        "code": one.code,
        "severity": one.severity.value,
        "subject": one.subject,
        "message": one.message,
        "advice": one.rule.help,
        "schedules": list(one.schedules[:MOST_IDS]),
        "schedules_total": len(one.schedules),
        "place": _place(one.place),
    }


def _place(place: Place | None) -> Mapping[str, Any] | None:
    if place is None:
        return None
    return {"source": place.source, "line": place.line or None, "column": place.column or None}


def _problem(one: Problem) -> dict[str, Any]:
    return {"place": _place(one.place), "schedule": one.schedule, "message": one.message}


def _change(one: Change) -> dict[str, Any]:
    return {
        "schedule": one.before.id,
        "reason": one.reason,
        "before": {"expression": timing_text(one.before.timing), "status": one.before.status.value},
        "after": {"expression": timing_text(one.after.timing), "status": one.after.status.value},
    }
