"""The analysis as text, category by category, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .policies import POLICIES
from .printing import printable
from .task_effect_rules import EFFECTS
from .task_model import Action, Effect, Report
from .task_tree import Analysis

LINE: Final = "=" * 80
WIDTH: Final = 80
MOST_EFFECTS: Final = 6
TOLD_BY_REASONS: Final = ("own-retries", "beat-schedule")
TITLES: Final = {"report": "REPORTS"}
VERSION: Final = 1


def text_report(analysis: Analysis) -> str:
    """What was found, for people."""
    return "".join(f"{printable(line)}\n" for line in _lines(analysis))


def _lines(analysis: Analysis) -> Iterator[str]:
    yield from (" TASK MIGRATION ANALYSIS", LINE, "")
    yield f"Total tasks found: {len(analysis.reports)}"
    for action, words in (
        (Action.MIGRATE, "to migrate"), (Action.BY_HAND, "to migrate by hand"),
        (Action.ALREADY, "already idempotent"),
    ):  # fmt: skip
        if number := analysis.count(action):
            yield f"  {words}: {number}"
    yield f"Files looked at: {analysis.files:,}"
    for category in POLICIES:
        yield from _category(analysis, category)
    yield from _already(analysis)
    yield from _rest(analysis)
    yield from ("", LINE)


def _category(analysis: Analysis, category: str) -> Iterator[str]:
    members = [
        one for one in analysis.reports
        if one.advice.category == category and one.action is not Action.ALREADY
    ]  # fmt: skip
    if members:
        yield from _title(TITLES.get(category, category.upper()), len(members))
    for number, one in enumerate(members):
        yield from [""] * bool(number)
        yield from _task(one)


def _title(title: str, count: int) -> list[str]:
    return ["", f"{title} ({count} task{'' if count == 1 else 's'}):"]


def _task(one: Report) -> Iterator[str]:
    advice = one.advice
    yield f"  • {one.name}"
    yield f"    File: {one.path}:{one.line}"
    if one.action is Action.BY_HAND:
        yield from _wrapped("By hand", one.why)
    yield f"    Recommended: {advice.strategy}"
    yield f"    TTL: {advice.ttl_seconds}s"
    yield from _wrapped("Key", advice.key)
    yield f"    Scope: {advice.scope}"
    yield f"    Authority: {advice.authority}"
    yield "    Why:"
    for reason in advice.reasons:
        yield from _wrapped("", reason)
    if one.effects:
        yield "    Effects:"
        yield from _effects(one.effects)
    yield from _findings(one)


def _findings(one: Report) -> Iterator[str]:
    for finding in one.findings:
        if finding.rule in TOLD_BY_REASONS:
            continue
        text = f"{finding.message} (line {finding.line}) [{finding.rule}]"
        yield from _wrapped(finding.level.capitalize(), text)


def _effects(effects: Sequence[Effect]) -> Iterator[str]:
    for kind, words in EFFECTS.items():
        told = [f"{one.what} (line {one.line})" for one in effects if one.kind == kind]
        more = [f"and {len(told) - MOST_EFFECTS} more"] if len(told) > MOST_EFFECTS else []
        if told:
            yield from _wrapped("", f"{words}: {', '.join([*told[:MOST_EFFECTS], *more])}")


def _wrapped(title: str, text: str) -> list[str]:
    head = f"    {title}: " if title else "      - "
    return textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=" " * 8, break_on_hyphens=False
    )


def _already(analysis: Analysis) -> Iterator[str]:
    members = [one for one in analysis.reports if one.action is Action.ALREADY]
    if members:
        yield from _title("ALREADY IDEMPOTENT", len(members))
    for one in members:
        yield f"  • {one.name}"
        yield f"    File: {one.path}:{one.line} ({one.why})"
        yield from _findings(one)


def _rest(analysis: Analysis) -> Iterator[str]:
    if analysis.dynamic:
        yield from ("", f"MADE IN WAYS THAT THE SOURCE DOES NOT TELL ({len(analysis.dynamic)}):")
    for path, one in analysis.dynamic:
        yield f"  • {path}:{one.line}: {one.what}"
    if analysis.troubles:
        yield from ("", f"NOT LOOKED AT ({len(analysis.troubles)}):")
    for trouble in analysis.troubles:
        where = f"{trouble.path}:{trouble.line}" if trouble.line else trouble.path
        yield f"  • {where}: {trouble.problem}"


def json_report(analysis: Analysis, exit_code: int, **more: Any) -> str:
    """The same for a machine; `more` says what was done."""
    document = {
        "version": VERSION,
        "exit_code": exit_code,
        "files": analysis.files,
        "counts": {str(action): analysis.count(action) for action in Action},
        "tasks": [_as_json(one) for one in analysis.reports],
        "dynamic": [
            {"file": path, "line": one.line, "what": one.what} for path, one in analysis.dynamic
        ],
        "not_looked_at": [
            {"file": one.path, "line": one.line, "problem": one.problem, "skipped": one.skipped}
            for one in analysis.troubles
        ],
        **more,
    }
    return json.dumps(document, indent=2) + "\n"


def _as_json(one: Report) -> dict[str, Any]:
    advice = one.advice
    return {
        "name": one.name, "function": one.function, "kind": one.kind, "file": one.path,
        "line": one.line, "column": one.column, "action": one.action, "why": one.why,
        "recommended": {
            "strategy": advice.strategy, "category": advice.category,
            "ttl_seconds": advice.ttl_seconds, "scope": advice.scope,
            "authority": advice.authority, "key": advice.key, "ignore_args": advice.ignored,
            "retry_policy": advice.policy, "reasons": advice.reasons,
        },
        "effects": [
            {"kind": effect.kind, "what": effect.what, "line": effect.line}
            for effect in one.effects
        ],
        "findings": [
            {"rule": finding.rule, "level": finding.level, "line": finding.line,
             "message": finding.message} for finding in one.findings
        ],
    }  # fmt: skip
