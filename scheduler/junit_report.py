"""A report as JUnit XML, as GitLab, Jenkins and others show it: a test suite for each check.

A finding is a failed test case; one of severity info passes, and tells what it has to say. A check
that found nothing is one test case that passes.
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import quoteattr  # nosec B406 # it writes, and parses nothing

from .findings import CHECKS, Finding, Severity
from .report import Report

HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>'
CLASS: Final = "idemwatch.schedules"
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_report(report: Report) -> str:
    """The report as one document, in ASCII."""
    suites = [_suite(report, check) for check in report.checks]
    failures = sum(map(_failed, report.findings))
    tests = sum(max(1, len(report.of(check))) for check in report.checks)
    lines = [
        HEAD,
        f'<testsuites name="validate-schedules" tests="{tests}" failures="{failures}" errors="0">',
        *suites,
        "</testsuites>",
    ]
    text = "\n".join(lines) + "\n"
    return text.encode("ascii", "xmlcharrefreplace").decode()


def _failed(one: Finding) -> bool:
    return one.severity is not Severity.INFO


def _suite(report: Report, check: str) -> str:
    findings = report.of(check)
    failures = sum(map(_failed, findings))
    cases = [_case(one, number) for number, one in enumerate(findings, 1)] or [_passed(check)]
    head = (
        f'  <testsuite name={_attribute(check)} tests="{len(cases)}" failures="{failures}" '
        'errors="0" skipped="0" time="0">'
    )
    return "\n".join([head, *cases, "  </testsuite>"])


def _passed(check: str) -> str:
    name = f"no {CHECKS[check]}" if check not in ("idempotency", "health") else CHECKS[check]
    return f'    <testcase classname="{CLASS}.{check}" name={_attribute(name)} time="0"/>'


def _case(one: Finding, number: int) -> str:
    """GitLab tells cases apart by class and name, so a name is given once."""
    name = f"{one.code} {number}: {one.subject or 'fleet'}"
    where = ""
    if one.place is not None:
        where = f" file={_attribute(one.place.source)}"
        where += f' line="{one.place.line}"' if one.place.line else ""
    told = f"{one}\n{one.place}" if one.place else str(one)
    head = f'    <testcase classname="{CLASS}.{one.check}" name={_attribute(name)}{where} time="0">'
    if not _failed(one):
        return f"{head}\n      <system-out>{_text(told)}</system-out>\n    </testcase>"
    kind = f"{one.severity.value}: {one.code}"
    failure = f"<failure type={_attribute(kind)} message={_attribute(one.message)}>"
    body = _text(f"{told}\n{one.rule.help}")
    return f"{head}\n      {failure}{body}</failure>\n    </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_clean(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _text(text: str) -> str:
    return _clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clean(text: str) -> str:
    """XML 1.0 has no way to tell most control characters."""
    return _NO_XML.sub("\ufffd", text)
