"""What the output can show: columns, colours, and the characters of Unicode."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import click

NARROWEST: Final = 40
LONG_WORK: Final = 2_000
"""Schedules from which on a wait is explained."""


@dataclass(frozen=True, slots=True)
class Screen:
    """`width`: columns. `terminal`: somebody looks at it, so lines are cut to fit."""

    width: int = 80
    terminal: bool = False
    colour: bool = False
    unicode: bool = True

    def styled(self, text: str, colour: str | None = None, *, dim: bool = False) -> str:
        """The text in a colour, where there are colours."""
        if not self.colour or not text or not (colour or dim):
            return text
        return click.style(text, fg=colour, dim=dim or None)


def screen() -> Screen:
    """That of standard output."""
    terminal = sys.stdout.isatty()
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    return Screen(width, terminal, terminal and not plain, _encoding() == "utf-8")


def show(lines: Iterable[str], on: Screen) -> None:
    """Print lines; what the encoding of the output lacks is escaped."""
    encoding = "utf-8" if on.unicode else _encoding()
    text = "\n".join(lines).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(text, color=on.colour)


def _encoding() -> str:
    try:
        return codecs.lookup(sys.stdout.encoding or "ascii").name
    except LookupError:
        return "ascii"


@contextmanager
def explained(work: str, count: int) -> Iterator[None]:
    """Tells at a terminal what takes so long, and takes the words away when it is done."""
    told = count >= LONG_WORK and sys.stderr.isatty()
    text = f"{work} {count:,} schedules ..."
    if told:
        click.echo(text, nl=False, err=True)
    try:
        yield
    finally:
        if told:
            click.echo(f"\r{' ' * len(text)}\r", nl=False, err=True)
