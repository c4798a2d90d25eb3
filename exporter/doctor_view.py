"""What the doctor found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from idemwatch.idempotency.printing import printable
from idemwatch.scheduler.terminal import Screen

from .doctor_findings import Finding, Level, exit_code

COLOURS: Final = {
    Level.OK: "green",
    Level.INFO: "cyan",
    Level.WARNING: "yellow",
    Level.ERROR: "red",
    Level.UNCHECKED: "magenta",
}
VERSION: Final = 1
_INDENT: Final = " " * 24


def lines(findings: Sequence[Finding], seconds: float, on: Screen) -> Iterator[str]:
    """A line for each, what to change below it, and a summary."""
    for one in findings:
        level = on.styled(f"{one.level:<10}", COLOURS[one.level])
        yield f"{level}{one.check:<12}  {printable(one.found)}"
        if one.change:
            yield f"{_INDENT}{on.styled('-> ' + printable(one.change), dim=True)}"
    yield ""
    yield summary(findings, seconds, on)


def summary(findings: Sequence[Finding], seconds: float, on: Screen) -> str:
    """How many of each, the worst first."""
    counts = Counter(one.level for one in findings)
    order = (Level.ERROR, Level.WARNING, Level.UNCHECKED, Level.INFO, Level.OK)
    words = {Level.ERROR: ("error", "errors"), Level.WARNING: ("warning", "warnings")}
    parts = []
    for level in order:
        number = counts[level]
        if number:
            one, many = words.get(level, (str(level), str(level)))
            parts.append(on.styled(f"{number} {one if number == 1 else many}", COLOURS[level]))
    return f"{', '.join(parts)} in {seconds:.1f} s"


def as_json(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """All of it, with the exit code that the command ends with."""
    counts = Counter(str(one.level) for one in findings)
    return {
        "version": VERSION,
        "exit_code": exit_code(findings),
        "seconds": round(seconds, 3),
        "summary": {str(level): counts[str(level)] for level in Level},
        "findings": [
            {"check": one.check, "level": str(one.level), "found": one.found, "change": one.change}
            for one in findings
        ],
    }
