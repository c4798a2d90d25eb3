"""A report as an operator reads it: what was checked (if wanted), a summary, what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from .checks import counted, span
from .clock import zone_of
from .findings import CHECKS, Finding, Severity, called
from .model import Schedule
from .occurrences import occurrences, timing_text
from .report import WEEK, Report
from .terminal import Screen
from .text_findings import COLOURS, WIDTH, Lines, groups_of

LINE_WIDTH: Final = 80
EVERYTHING_UNASKED: Final = 2
"""Neither the database nor the app."""
INSTANT: Final = timedelta(microseconds=1)
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
ASCII: Final = " .:-=+*%#"
_MARKS: Final = {Severity.ERROR: "!!", Severity.WARNING: "! ", Severity.INFO: "i "}
_TITLES: Final = (
    (Severity.ERROR, "Errors"),
    (Severity.WARNING, "Warnings"),
    (Severity.INFO, "Info"),
)
_CAPACITIES: Final = {
    "option": "as --capacity says",
    "workers": "the concurrency of the live workers",
    "setting": "as idempotency_schedule_capacity says",
    "default": "assumed, as no worker answered and nothing is set: say --capacity",
}
PLAIN: Final = Screen(width=WIDTH)


def text_report(report: Report, on: Screen = PLAIN, *, verbose: bool = False) -> list[str]:
    """Lines of at most 100 columns; `verbose` tells of each check too."""
    lines = Lines(report, on)
    told = _checks(report, lines) if verbose else ()
    return [*told, *_summary(report, lines, listed=not verbose)]


# -- what was checked ------------------------------------------------------------------------------


def _checks(report: Report, lines: Lines) -> Iterator[str]:
    yield f"Checking {counted(report.active, 'active schedule')}..."
    for check in report.checks:
        yield ""
        yield f"Checking {'' if check in ('idempotency', 'health') else 'for '}{CHECKS[check]}..."
        groups = groups_of(report.of(check))
        if check == "health":
            yield from _health(report, lines, groups)
            continue
        yield from _found(lines, groups)
        if not groups:
            yield _clear(report, check, lines.on)
    yield ""


def _found(lines: Lines, groups: Sequence[Sequence[Finding]]) -> Iterator[str]:
    for group in groups:
        first = group[0]
        yield f"  {_mark(lines, first.severity)}  Found {first.rule.counted(len(group))}"
        yield from lines.listed(group, "      ")


def _mark(lines: Lines, severity: Severity) -> str:
    return lines.on.styled(_MARKS[severity], COLOURS[severity])


def _clear(report: Report, check: str, on: Screen) -> str:
    """That a check found nothing, or could not look."""
    if check == "idempotency" and len(report.unasked) == EVERYTHING_UNASKED:
        return "  -   Not looked at: neither a database nor an app is named"
    told = {
        "rows": f"{counted(report.rows, 'row')} read",
        "idempotency": f"Nothing found{', as far as it could be asked' if report.unasked else ''}",
    }.get(check, f"No {CHECKS[check]} found")
    return f"  {on.styled('ok', 'green')}  {told}"


def _health(report: Report, lines: Lines, groups: Sequence[Sequence[Finding]]) -> Iterator[str]:
    state = report.health
    severity = groups[0][0].severity if groups else None
    mark = _mark(lines, severity) if severity else lines.on.styled("ok", "green")
    word = severity.name if severity else "OK"
    yield f"  {mark}  Health score: {state.score}/100 ({word}), grade {state.grade}"
    parts = (
        f"100 - 10 x {counted(len(state.hotspots), 'hotspot')}"
        f" - 5 x {counted(len(state.conflicts), 'conflict')}"
        f" - 3 x {counted(state.unbalanced_hours, 'unbalanced hour')}"
        f" + {min(8, 2 * state.quiet_hours)} for quiet hours = {state.raw_score:,}"
    )
    yield from lines.wrapped(parts, " " * 6)
    yield from _chart(state.slots, lines.on)


def _chart(slots: Sequence[float], on: Screen) -> Iterator[str]:
    """A character for each half hour; the lowest stands for any load at all."""
    glyphs, top = BLOCKS if on.unicode else ASCII, max(1.0, *slots)
    most = len(glyphs) - 1
    bars = "".join(glyphs[max(load > 0, round(load / top * most))] for load in slots)
    yield ""
    yield f"      Highest load of each half hour, a full bar is {top:.0%}:"
    yield f"      |{bars}|"
    yield "       " + "".join(f"{hour:02}    " for hour in range(0, 24, 3)).rstrip()


# -- the summary -----------------------------------------------------------------------------------


def _summary(report: Report, lines: Lines, *, listed: bool) -> Iterator[str]:
    line = "=" * min(LINE_WIDTH, lines.width)
    yield from (line, "SCHEDULE HEALTH CHECK REPORT", line)
    for title, text in _facts(report, lines):
        yield from lines.wrapped(text, f"{title:<11}", " " * 11)
    yield from ("", "SUMMARY:")
    for severity, title in _TITLES:
        number = report.counts[severity]
        shown = lines.on.styled(f"{number:,}", COLOURS[severity] if number else None)
        yield f"  {title + ':':<9} {shown}"
    for severity, title in _TITLES:
        groups = groups_of([one for one in report.findings if one.severity is severity])
        if groups:
            yield from ("", lines.on.styled(f"{title.upper()}:", COLOURS[severity]))
        for group in groups:
            yield from lines.group(group, listed=listed)
    if not report.findings:
        yield from ("", lines.on.styled(_passed(report), "green"))
    yield line


def _passed(report: Report) -> str:
    return "All checks passed." if report.active else "No schedule is active: nothing to find."


def _facts(report: Report, lines: Lines) -> Iterator[tuple[str, str]]:
    """What was looked at, and by what it was judged: titles and texts."""
    zone, load = zone_of(report.zone), report.health.load.load
    first, last = (_moment(at.astimezone(zone)) for at in (report.now, report.now + WEEK))
    slots = f"{report.capacity.slots:g} slot{'' if report.capacity.slots == 1 else 's'}"
    source = report.capacity.source
    yield "Source:", f"{lines.name(report.source)}: {_rows(report)}"
    yield "Week:", f"{first} to {last}, zone {report.zone}"
    yield "Capacity:", f"{slots} ({_CAPACITIES.get(source, source)})"
    runs = counted(int(report.health.load.concurrency.max(initial=0)), "run")
    yield "Load:", f"highest {load.max(initial=0):.0%} ({runs} at once), mean {load.mean():.0%}"
    yield "Health:", f"{report.health.score}/100, grade {report.health.grade}"
    for one in report.subjects:
        yield from _subject(one, report.now, lines)
    unchecked = [name for name in CHECKS if name not in report.checks]
    if unchecked:
        yield "Left out:", ", ".join(unchecked)
    for reason in report.unasked:
        yield "Not asked:", reason


def _rows(report: Report) -> str:
    idle = report.rows - report.active - len(report.problems)
    parts = [counted(report.active, "active schedule")]
    if idle:
        parts.append(f"{idle:,} paused or cancelled")
    if report.problems:
        parts.append(f"{counted(len(report.problems), 'row')} that cannot be read")
    return ", ".join(parts)


def _subject(one: Schedule, now: datetime, lines: Lines) -> Iterator[tuple[str, str]]:
    """One schedule, and when it is due next."""
    when = lines.name(timing_text(one.timing))
    told = f"{when} in {one.zone}, task {lines.name(one.task)}, {span(one.duration)} a run"
    yield "Schedule:", f"{lines.name(called(one))}: {told}, {one.status}"
    zone = zone_of(one.zone)
    coming = itertools.islice(_coming(one, now), 3) if one.active else ()
    due = ", ".join(_moment(at.astimezone(zone)) for at in coming)
    yield "", f"next due: {due or 'never'}{f' ({one.zone})' if due else ''}"


def _coming(one: Schedule, now: datetime) -> Iterator[datetime]:
    """Its runs from `now` on, until before its last day."""
    found = occurrences(one.timing, zone_of(one.zone), max(now, one.fromdate or now) - INSTANT)
    return itertools.takewhile(lambda at: one.uptodate is None or at < one.uptodate, found)


def _moment(moment: datetime) -> str:
    return f"{moment:%a %Y-%m-%d %H:%M}"
