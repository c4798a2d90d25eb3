"""What the doctor's checks find: plain values, and what the whole amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idemwatch.scheduler.exit_codes import ERRORS, PASSED, WARNINGS

SHOWN: Final = 5
"""Names that are listed of many."""
NOT_CHECKED: Final = "not checked: "


class Level(StrEnum):
    """How bad it is. `unchecked`: what it needs did not answer, and another finding tells that."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to change."""

    check: str
    level: Level
    found: str
    change: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """That of validate-schedules: 0, 1 for warnings, 2 for errors."""
    levels = {one.level for one in findings}
    if Level.ERROR in levels:
        return ERRORS
    return WARNINGS if levels & {Level.WARNING, Level.UNCHECKED} else PASSED


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, found)


def info(check: str, found: str, change: str = "") -> Finding:
    """Worth knowing."""
    return Finding(check, Level.INFO, found, change)


def warning(check: str, found: str, change: str) -> Finding:
    """To be changed."""
    return Finding(check, Level.WARNING, found, change)


def error(check: str, found: str, change: str) -> Finding:
    """To be changed now."""
    return Finding(check, Level.ERROR, found, change)


def unchecked(check: str, found: str) -> Finding:
    """Nobody could look."""
    return Finding(check, Level.UNCHECKED, f"{NOT_CHECKED}{found}")


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
