"""Applies a unified diff as strictly as it can be read: every line must be where it says."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HUNK = re.compile(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@\n")
_CUT = "\\ No newline at end of file\n"


def apply(diff: str, path: str, content: str) -> str:
    """The content of `path` after a diff of this one file."""
    head, *lines = _lines(diff.removeprefix(f"--- a/{path}\n"))
    assert head == f"+++ b/{path}\n"
    old, new = _lines(content), list[str]()
    at = 0
    for hunk in _hunks(lines):
        first, length, becomes, left, body = hunk
        new += old[at : first - 1]
        assert len(new) == becomes - 1
        removed = [line for mark, line in body if mark in " -"]
        added = [line for mark, line in body if mark in " +"]
        assert (old[first - 1 : first - 1 + length], len(added)) == (removed, left)
        new += added
        at = first - 1 + length
    return "".join(new + old[at:])


def _hunks(lines: list[str]) -> Iterator[tuple[int, int, int, int, list[tuple[str, str]]]]:
    numbers: list[int] = []
    body: list[tuple[str, str]] = []
    for line in [*lines, ""]:
        found = _HUNK.fullmatch(line)
        if (found or not line) and numbers:
            first, length, becomes, left = numbers
            yield first, length, becomes, left, body
        if found:
            numbers, body = [int(number) for number in found.groups()], []
        elif line == _CUT:
            mark, cut = body.pop()
            body.append((mark, cut.removesuffix("\n")))
        elif line:
            body.append((line[0], line[1:]))


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
