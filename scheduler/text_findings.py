"""Findings as lines of text: those of one rule together, long lists cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from idemwatch.idempotency.printing import printable

from .findings import RULES, Finding, Severity
from .place import Place
from .report import Report
from .terminal import Screen
from .text_table import cut

WIDTH: Final = 100
MOST_LINES: Final = 10
"""Findings of one rule that are told one by one."""
LONGEST_NAME: Final = 70
COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def groups_of(findings: Sequence[Finding]) -> list[list[Finding]]:
    """By rule and severity, in the order of the rules."""
    order = {code: number for number, code in enumerate(RULES)}
    found: dict[tuple[str, Severity], list[Finding]] = {}
    for one in findings:
        found.setdefault((one.code, one.severity), []).append(one)
    return [found[key] for key in sorted(found, key=lambda key: order[key[0]])]


class Lines:
    """Writes the findings of one report for a screen."""

    def __init__(self, report: Report, on: Screen) -> None:
        self.on = on
        self.width = min(on.width, WIDTH)
        self.bullet = "•" if on.unicode else "-"
        self._source = report.source
        self._loads = {spot.clock: spot.load for spot in report.hotspots}

    def wrapped(self, text: str, first: str, rest: str | None = None) -> Iterator[str]:
        """The text in lines that begin with `first`, and then with `rest`."""
        yield from textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=first if rest is None else rest,
            break_on_hyphens=False,
        )

    def name(self, text: str) -> str:
        """A name that others gave, on one line and not too long."""
        return cut(printable(text), LONGEST_NAME, unicode=self.on.unicode)

    def told(self, one: Finding) -> str:
        """Whom it is about, where that stands, and what is wrong."""
        at, where = one.place, ""
        if at is not None and at.line:
            where = self._where(one, at) if at.source == self._source else printable(str(at))
        head = ", ".join(filter(None, (self.name(one.subject), where)))
        separator = " - " if one.code == "hotspot" else ": "
        return separator.join(filter(None, (head, printable(one.message))))

    def _where(self, one: Finding, at: Place) -> str:
        """The column tells what is wrong in a line; of others it is where the schedule begins."""
        column = f", column {at.column}" if at.column and one.check == "rows" else ""
        return f"line {at.line}{column}"

    def listed(self, group: Sequence[Finding], indent: str) -> Iterator[str]:
        """One by one, as many as anybody reads."""
        shown = group[:MOST_LINES]
        if len(group) > MOST_LINES and group[0].code == "hotspot":
            yield f"{indent}the hottest first:"
            shown = sorted(group, key=lambda one: -self._loads[one.subject])[:MOST_LINES]
        for one in shown:
            yield from self.wrapped(self.told(one), f"{indent}{self.bullet} ", f"{indent}  ")
        if len(group) > len(shown):
            yield f"{indent}... and {len(group) - len(shown):,} more"

    def group(self, group: Sequence[Finding], *, listed: bool) -> Iterator[str]:
        """What one rule found, in one line if it is one thing, and what to do about it."""
        rule = group[0].rule
        if len(group) == 1:
            yield from self.wrapped(self.told(group[0]), f"  {self.bullet} ", "    ")
        else:
            yield f"  {self.bullet} {rule.counted(len(group))}"
            if listed:
                yield from self.listed(group, "    ")
        for line in self.wrapped(f"Advice: {rule.help}", "    "):
            yield self.on.styled(line, dim=True)
