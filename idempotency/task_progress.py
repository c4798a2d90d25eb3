"""A progress bar on standard error, where somebody looks at a long piece of work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

LONG_WORK: Final = 200
"""Files from which on a bar is shown."""


@contextmanager
def progress(work: str, files: Sequence[object]) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each file."""
    if len(files) < LONG_WORK or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task(work, total=len(files))
        yield lambda: bar.advance(job)
