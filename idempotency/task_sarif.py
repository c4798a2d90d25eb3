"""The analysis as SARIF: VS Code and code scanning show it beside the lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .sarif import (
    MOST_RESULTS,
    fingerprint,
    invocation,
    left_out,
    location,
    rule,
    sarif_log,
)
from .task_model import Action, Level, Report
from .task_rules import RULES
from .task_tree import Analysis

TAGS: Final = ("celery", "idempotency")
_INDEXES: Final = {code: number for number, code in enumerate(RULES)}
_OPEN: Final = {Action.MIGRATE: "unprotected-task", Action.BY_HAND: "manual-migration"}
Result = dict[str, Any]


def sarif_report(analysis: Analysis, exit_code: int, version: str, root: Path) -> str:
    """One run; paths are told as seen from `root`, the worst findings first."""
    order = list(Level)
    results = sorted(_results(analysis, root), key=lambda one: order.index(Level(one["level"])))
    rules = [rule(one.code, one.summary, one.help, one.level, TAGS) for one in RULES.values()]
    failed = [f"{one.path}: {one.problem}" for one in analysis.troubles if not one.skipped]
    notes = [f"{one.path}: {one.problem}" for one in analysis.troubles if one.skipped]
    kept = results[:MOST_RESULTS]
    notes += left_out(len(results) - len(kept))
    ran = invocation(exit_code, notes, warnings=failed)
    return sarif_log("migrate-tasks", version, rules, kept, ran)


def _results(analysis: Analysis, root: Path) -> Iterator[Result]:
    seen: Counter[tuple[str, str, str]] = Counter()
    for one in analysis.reports:
        if one.action in _OPEN:
            yield _result(_OPEN[one.action], one.path, one.line, one.column, one.name, _told(one),
                          root, seen)  # fmt: skip
        for finding in one.findings:
            text = f"{one.name}: {finding.message}"
            yield _result(finding.rule, one.path, finding.line, 0, one.name, text, root, seen)
    for path, made in analysis.dynamic:
        text = f"{made.what} makes tasks that the source does not tell"
        yield _result("dynamic-task", path, made.line, 0, made.what, text, root, seen)


def _told(one: Report) -> str:
    if one.action is Action.BY_HAND:
        return f"{one.name}: {one.why}"
    advice = one.advice
    return (
        f"{one.name} works once for each delivery. Recommended: {advice.strategy}, category "
        f"{advice.category}, TTL {advice.ttl_seconds} s, scope {advice.scope}, key: {advice.key}"
    )


def _result(
    code: str, path: str, line: int, column: int, name: str, text: str, root: Path,
    seen: Counter[tuple[str, str, str]],
) -> Result:  # fmt: skip
    same = (code, path, name)
    seen[same] += 1
    return {
        "ruleId": code,
        "ruleIndex": _INDEXES[code],
        "level": str(RULES[code].level),
        "message": {"text": text},
        "locations": [location(path, line, column, root, named=name, kind="function")],
        "partialFingerprints": fingerprint(*same, seen[same]),
    }
