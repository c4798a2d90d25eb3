"""Changes of schedules as a unified diff of the files that they were read from.

No file is written here. What is more than one field of one line, or one line that goes, is not
told as a diff but handed back.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from .changes import Change
from .occurrences import timing_text

CONTEXT: Final = 3
_CUT: Final = "\n\\ No newline at end of file\n"
Edits = Mapping[int, str]
"""Lines by their index as they become; "" for one that goes."""


def patch_of(changes: Sequence[Change], read: Callable[[str], str]) -> tuple[str, list[Change]]:
    """A diff for `patch -p1`, and the changes that it cannot tell.

    `read` gives the text of a path; it may raise OSError or ValueError.
    """
    by_file: dict[str, list[Change]] = defaultdict(list)
    rest: list[Change] = []
    for one in changes:
        place = one.before.place
        if place is not None and place.line and _of_lines(place.source):
            by_file[place.source].append(one)
        else:
            rest.append(one)
    diffs = []
    for path, given in by_file.items():
        lines = _lines(path, read)
        edits, left = _edits(lines, given)
        diffs.append(_diff(path, lines, edits))
        rest += left
    return "".join(diffs), rest


def _of_lines(path: str) -> bool:
    """Whether a schedule is a line of such a file: of a manifest it is not."""
    return path != "-" and Path(path).suffix.lower() not in (".yaml", ".yml")


def _lines(path: str, read: Callable[[str], str]) -> list[str]:
    """The lines with their ends; none of a file that is away, or has lines that a diff has not."""
    try:
        lines = io.StringIO(read(path), newline="").readlines()
    except (OSError, ValueError):
        return []
    return [] if any(line.endswith("\r") for line in lines) else lines


def _edits(lines: Sequence[str], changes: Sequence[Change]) -> tuple[Edits, list[Change]]:
    """What the changes make of the lines, and those that they cannot be told by."""
    edits: dict[int, str] = {}
    rest = []
    for one in changes:
        at = one.before.place.line - 1 if one.before.place else -1
        known = 0 <= at < len(lines) and at not in edits
        edited = _edited(lines[at], one) if known else None
        if edited is None:
            rest.append(one)
        else:
            edits[at] = edited
    return edits, rest


def _edited(line: str, change: Change) -> str | None:
    """The line with another expression in the place of the old one, which it must have once."""
    old, new = (timing_text(one.timing) for one in (change.before, change.after))
    words = r"[ \t]+".join(map(re.escape, old.split()))
    found = list(re.finditer(rf"""(?<![^\s,"']){words}(?![^\s,"'])""", line))
    if len(found) != 1 or line.count('"') % 2:  # a row that goes on in the next line
        return None
    if change.reason == "duplicate":
        return ""
    start, end = found[0].span()
    cell = "," in (line[start - 1 : start], line[end : end + 1])
    quoted = f'"{new}"' if cell and "," in new else new
    return line[:start] + quoted + line[end:]


def _diff(path: str, lines: Sequence[str], edits: Edits) -> str:
    named = path.lstrip("/")
    head = f"--- a/{named}\n+++ b/{named}\n"
    return head + "".join(_hunks(lines, edits)) if edits else ""


def _hunks(lines: Sequence[str], edits: Edits) -> Iterator[str]:
    moved = 0  # lines that earlier hunks took away
    for group in _together(sorted(edits)):
        first, last = max(0, group[0] - CONTEXT), min(len(lines), group[-1] + CONTEXT + 1)
        gone = sum(not edits[at] for at in group)
        length, left = last - first, last - first - gone
        start = first + 1 if length else first
        yield f"@@ -{start},{length} +{start - moved - (not left)},{left} @@\n"
        for at in range(first, last):
            if at not in edits:
                yield _marked(" ", lines[at])
                continue
            yield _marked("-", lines[at])
            yield _marked("+", edits[at]) if edits[at] else ""
        moved += gone


def _together(indexes: Sequence[int]) -> Iterator[list[int]]:
    """Lines whose contexts touch."""
    group: list[int] = []
    for at in indexes:
        if group and at - group[-1] > 2 * CONTEXT:
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def _marked(mark: str, line: str) -> str:
    return mark + (line if line.endswith("\n") else line + _CUT)
