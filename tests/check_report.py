"""Reads a JUnit report: fails when a test was skipped, or when none ran. Used by .ci/run."""

from __future__ import annotations

import sys
from xml.etree import ElementTree


def problems(report: str) -> list[str]:
    """What is wrong with the run that wrote `report`; empty when nothing is."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [f"skipped: {case.get('name')}" for case in cases if case.find("skipped") is not None]
    return skipped if cases else ["no test ran"]


if __name__ == "__main__":
    sys.exit("\n".join(problems(sys.argv[1])) or None)
