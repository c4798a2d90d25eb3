"""A report as SARIF 2.1.0, which code scanning shows beside the lines that are wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from idemwatch.idempotency.keys import digest

from .findings import RULES, Finding, Rule, Severity
from .place import Place
from .report import Report

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
MOST_RESULTS: Final = 5000
"""Code scanning shows no more, and refuses files that are much larger."""
LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_INDEXES: Final = {code: number for number, code in enumerate(RULES)}


def sarif_report(report: Report, version: str, root: Path) -> str:
    """The report as one SARIF run; paths are told as seen from `root`, the worst findings first."""
    order = list(Severity)
    found = sorted(report.findings, key=lambda one: order.index(one.severity))
    results = [_result(one, report.source, root) for one in found[:MOST_RESULTS]]
    run = {
        "tool": {"driver": _driver(version)},
        "invocations": [_invocation(report, len(found) - len(results))],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _driver(version: str) -> dict[str, Any]:
    return {
        "name": "idemwatch",
        "fullName": "idemwatch validate-schedules",
        "version": version,
        "rules": [_rule(rule) for rule in RULES.values()],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    summary = rule.one[:1].upper() + rule.one[1:]
    return {
        "id": rule.code,
        "shortDescription": {"text": summary},
        "fullDescription": {"text": f"{summary}. {rule.help}"},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {"tags": ["schedules", rule.check]},
    }


def _invocation(report: Report, left_out: int) -> dict[str, Any]:
    """It ran: what it found is no failure of the run."""
    told = [*report.unasked]
    if left_out:
        told.append(f"{left_out} more findings were left out: see --format json")
    return {
        "executionSuccessful": True,
        "exitCode": report.exit_code(),
        "toolExecutionNotifications": [
            {"level": "note", "message": {"text": text}} for text in told
        ],
    }


def _result(one: Finding, source: str, root: Path) -> dict[str, Any]:
    subjects: Sequence[str] = one.schedules[:1] or (one.subject,)
    return {
        "ruleId": one.code,
        "ruleIndex": _INDEXES[one.code],
        "level": LEVELS[one.severity],
        "message": {"text": str(one)},
        "locations": [_location(one, one.place or Place(source), root)],
        "partialFingerprints": {"idemwatchFinding/v1": _fingerprint(one, subjects)},
        "properties": {"schedules": list(one.schedules[:20]), "schedulesTotal": len(one.schedules)},
    }


def _fingerprint(one: Finding, subjects: Sequence[str]) -> str:
    """The same for the same finding after its line has moved."""
    named = one.subject or ",".join(subjects)
    return digest(b"1", repr((one.code, named)).encode("utf-8", "surrogatepass"))


def _location(one: Finding, place: Place, root: Path) -> dict[str, Any]:
    """What is about no line is told at the first: code scanning drops what stands nowhere."""
    region: dict[str, int] = {"startLine": place.line or 1}
    if place.column:
        region["startColumn"] = place.column
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": _artifact(place.source, root), "region": region}
    }
    if one.subject:
        location["logicalLocations"] = [{"fullyQualifiedName": one.subject, "kind": "resource"}]
    return location


def _artifact(source: str, root: Path) -> Mapping[str, str]:
    """A path within `root` as a relative URI; one outside as a whole one."""
    path = root / source
    if path.is_relative_to(root) and ".." not in path.parts:
        return {"uri": quote(path.relative_to(root).as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": path.resolve().as_uri()}
