"""The outcome of a validation: what was looked at, what was found, and the exit code of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .capacity import Capacity
from .changes import Change
from .checks import Hotspot
from .exit_codes import ERRORS, PASSED, WARNINGS
from .findings import Finding, Severity
from .health import Health
from .inventory import Problem
from .model import Schedule

WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`now`: the start of the week looked at; `zone`: that of half hours. `rows`: schedules and
    problems. `subjects`: the schedules that alone were asked for. `unasked`: what nobody could
    tell. `changes`: what `--fix` would do or did, `change_id`: under which id it did.
    """

    source: str
    now: datetime
    zone: str
    capacity: Capacity
    checks: tuple[str, ...]
    rows: int
    health: Health
    hotspots: tuple[Hotspot, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    subjects: tuple[Schedule, ...] = ()
    unasked: tuple[str, ...] = ()
    changes: tuple[Change, ...] | None = None
    change_id: int | None = None

    @property
    def active(self) -> int:
        """How many schedules fire at all."""
        return self.health.schedules

    def of(self, check: str) -> list[Finding]:
        """The findings of one check."""
        return [one for one in self.findings if one.check == check]

    @property
    def counts(self) -> Mapping[Severity, int]:
        """Findings by severity, each named."""
        found = Counter(one.severity for one in self.findings)
        return {severity: found[severity] for severity in Severity}

    def exit_code(self, fail_on: Severity = Severity.WARNING) -> int:
        """0 passed, 1 warnings, 2 errors; warnings are 0 where only errors are to fail."""
        if self.counts[Severity.ERROR]:
            return ERRORS
        failing = self.counts[Severity.WARNING] and fail_on is Severity.WARNING
        return WARNINGS if failing else PASSED
