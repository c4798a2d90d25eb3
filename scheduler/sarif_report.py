"""A report as SARIF 2.1.0, which code scanning shows beside the lines that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from idemwatch.idempotency.sarif import (
    MOST_RESULTS,
    fingerprint,
    invocation,
    left_out,
    location,
    rule,
    sarif_log,
)

from .findings import RULES, Finding, Rule, Severity
from .place import Place
from .report import Report

LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_INDEXES: Final = {code: number for number, code in enumerate(RULES)}


def sarif_report(report: Report, version: str, root: Path) -> str:
    """The report as one SARIF run; paths are told as seen from `root`, the worst findings first."""
    order = list(Severity)
    found = sorted(report.findings, key=lambda one: order.index(one.severity))
    results = [_result(one, report.source, root) for one in found[:MOST_RESULTS]]
    told = [*report.unasked, *left_out(len(found) - len(results))]
    rules = [_rule(one) for one in RULES.values()]
    ran = invocation(report.exit_code(), told)
    return sarif_log("validate-schedules", version, rules, results, ran)


def _rule(one: Rule) -> dict[str, Any]:
    summary = one.one[:1].upper() + one.one[1:]
    return rule(one.code, summary, one.help, LEVELS[one.severity], ["schedules", one.check])


def _result(one: Finding, source: str, root: Path) -> dict[str, Any]:
    subjects: Sequence[str] = one.schedules[:1] or (one.subject,)
    place = one.place or Place(source)
    return {
        "ruleId": one.code,
        "ruleIndex": _INDEXES[one.code],
        "level": LEVELS[one.severity],
        "message": {"text": str(one)},
        "locations": [location(*place, root, named=one.subject)],
        "partialFingerprints": fingerprint(one.code, one.subject or ",".join(subjects)),
        "properties": {"schedules": list(one.schedules[:20]), "schedulesTotal": len(one.schedules)},
    }
