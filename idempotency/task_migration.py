"""Does what was recommended: changes files one after the other, or shows the changes as a diff.

A file is changed as a whole or not at all. What goes wrong with one is told, and the rest goes on.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .task_files import Source, Trouble
from .task_rewrite import CannotRewrite, rewritten
from .task_tree import Analysis
from .task_write import NotWritten, write

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Change:
    """A file that was changed, or would be: its tasks, and where the old content is kept."""

    path: str
    tasks: tuple[str, ...]
    backup: str = ""
    diff: bytes = b""


def migrate(
    analysis: Analysis, *, backup: bool, dry_run: bool, done: Callable[[Change], None]
) -> list[Trouble]:
    """Change the files, or show how; what could not be done. `done` hears of each at once."""
    troubles: list[Trouble] = []
    for path, chosen in analysis.chosen.items():
        module = analysis.modules[path]
        tasks = tuple(one.found.name for one in chosen)
        try:
            after = rewritten(module, chosen)
            if dry_run:
                diff = unified(path, module.source, after)
                done(Change(path, tasks, diff=diff))
            else:
                done(Change(path, tasks, write(module.source, after, backup=backup)))
        except CannotRewrite as error:
            problem = f"cannot be changed safely ({error.problem}): migrate it by hand"
            troubles.append(Trouble(path, problem))
        except NotWritten as error:
            troubles.append(Trouble(path, str(error)))
    return troubles


def unified(path: str, source: Source, after: str) -> bytes:
    """A diff for `patch -p1`: the file's own bytes, and its name as the system writes it."""
    old, new = _LINE.findall(source.text), _LINE.findall(after)
    named = os.fsencode(path.lstrip("/"))
    body = "".join(islice(_ended(difflib.unified_diff(old, new)), 2, None))
    if not body:
        return b""
    return b"--- a/%b\n+++ b/%b\n" % (named, named) + body.encode(source.encoding)


def _ended(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def told(change: Change) -> Sequence[str]:
    """What a person is told of a change."""
    lines = [f"migrated: {change.path}: {', '.join(change.tasks)}"]
    if change.backup:
        older = "" if change.backup.endswith(".orig") else ", as an older backup is there"
        lines.append(f"  the old content is kept in {change.backup}{older}")
    return lines
