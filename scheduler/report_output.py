"""Where a report goes, in which form, and what is said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from idemwatch.idempotency.printing import print_text, printable
from idemwatch.idempotency.report_file import write_report

from .changes import Change
from .checks import counted
from .findings import Severity
from .json_report import json_report
from .junit_report import junit_report
from .report import Report
from .sarif_report import sarif_report
from .terminal import Screen, screen
from .text_findings import WIDTH
from .text_report import PLAIN, text_report

MOST_CHANGES: Final = 20


@dataclass(frozen=True, slots=True)
class Output:
    """Standard output has the report alone unless that is text or goes to a file: what is said
    beside it then goes to standard error."""

    form: str
    path: Path | None = None
    verbose: bool = False

    def report(self, report: Report) -> None:
        """Write it. Raises ConfigurationError where the file cannot be written."""
        if self.path is None:
            print_text(self._rendered(report, _screen()), err=False)
            return
        write_report(self.path, self._rendered(report, PLAIN))
        counts = report.counts
        errors = counted(counts[Severity.ERROR], "error")
        warnings = counted(counts[Severity.WARNING], "warning")
        print_text(f"{self.path}: {errors}, {warnings}, {counts[Severity.INFO]:,} info\n", err=True)

    def _rendered(self, report: Report, on: Screen) -> str:
        match self.form:
            case "json":
                return json_report(report)
            case "sarif":
                return sarif_report(report, metadata.version("idemwatch"), Path.cwd())
            case "junit":
                return junit_report(report)
            case _:
                return "\n".join(text_report(report, on, verbose=self.verbose)) + "\n"

    def say(self, lines: Sequence[str]) -> None:
        """Lines for whoever runs the command."""
        self.raw("".join(f"{line}\n" for line in lines))

    def raw(self, text: str) -> None:
        """Text as it is."""
        print_text(text, err=self.path is None and self.form != "text")

    def changes(self, changes: Sequence[Change]) -> None:
        """A line for each change, as many as anybody reads unless all are wanted."""
        shown = changes if self.verbose else changes[:MOST_CHANGES]
        lines = [f"  {one.reason}  {printable(str(one))}" for one in shown]
        if len(shown) < len(changes):
            lines.append(f"  ... and {len(changes) - len(shown):,} more (--verbose shows all)")
        self.say(lines)


def _screen() -> Screen:
    """That of standard output; a log is as wide as a report."""
    on = screen()
    return on if on.terminal else replace(on, width=WIDTH)
