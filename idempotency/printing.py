"""Prints text that others wrote: it moves no cursor, and may lack what the encoding lacks."""

from __future__ import annotations

import os
import sys

import click


def printable(text: str) -> str:
    """The text without what would move the cursor or begin a new line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_text(text: str, *, err: bool = False) -> None:
    """Print; what the encoding lacks is escaped. Nobody who reads on is no error: the exit code
    still tells what was found."""
    stream = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "ascii"
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False, err=err)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
