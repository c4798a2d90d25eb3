"""Pages of documentation as text: their links, anchors, tables, and the tests that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .venv import ROOT

_FENCED: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`[^`\n]*`")
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NAMED_TEST: Final = re.compile(r"\b(tests/\w+\.py)::(test_\w+)")
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page of the repository. Everything but `text` leaves code blocks out."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path from the root of the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The page without its code blocks and comments."""
        return _COMMENT.sub("", _FENCED.sub("", self.text))

    @property
    def links(self) -> list[str]:
        """The targets of its links."""
        return _LINK.findall(_CODE.sub("", self.prose))

    @property
    def anchors(self) -> set[str]:
        """What a link into this page may name, as GitHub makes it of the headings."""
        return {_anchor(heading) for heading in _HEADING.findall(_FENCED.sub("", self.text))}

    @property
    def named_tests(self) -> list[tuple[str, str]]:
        """The tests that it names: file and function."""
        return _NAMED_TEST.findall(self.text)


def page(name: str) -> Page:
    """The page at a path from the root of the repository."""
    path = ROOT / name
    return Page(path, path.read_text("utf-8"))


def pages(pattern: str = "docs/*.md") -> list[Page]:
    """All pages of a pattern; none is an error."""
    found = [page(str(path.relative_to(ROOT))) for path in sorted(ROOT.glob(pattern))]
    assert found, f"there is no {pattern}"
    return found


def tables(text: str) -> list[list[list[str]]]:
    """Each table as rows of cells, its header first and without the line below that."""
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            if not re.fullmatch(r"[|: -]+", line):
                found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        before = line
    return found


def broken_links(one: Page) -> list[str]:
    """Its links within the repository that lead to no file, or to no heading of that file."""
    return [link for link in one.links if "://" not in link and not _leads_somewhere(one, link)]


def _leads_somewhere(one: Page, link: str) -> bool:
    target, _, anchor = link.partition("#")
    if not target:
        return anchor in one.anchors
    path = (one.path.parent / target).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        return False
    return not anchor or anchor in page(str(path.relative_to(ROOT))).anchors


def missing_tests(one: Page) -> list[str]:
    """The tests that it names and that do not exist."""
    return [
        f"{file}::{test}"
        for file, test in one.named_tests
        if not (ROOT / file).exists()
        or not re.search(rf"^def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    ]


def _anchor(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
