"""What a run says while it runs, on standard error: a line for each bench, and how far it is.

Written between turns only, never by a thread: that would take time from what is measured.
"""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

_CLEAR: Final = "\r\x1b[K"
_SECONDS_BETWEEN: Final = 0.2


class Progress:
    """A line that is written anew on a terminal; elsewhere only what is finished is written."""

    def __init__(self, benches: int, stream: TextIO = sys.stderr) -> None:
        self._benches, self._stream = benches, stream
        self._live = stream.isatty()
        self._number = 0
        self._head = ""
        self._began = self._written = time.monotonic()

    def begin(self, name: str) -> None:
        """The next bench begins."""
        self._number += 1
        self._head = f"[{self._number}/{self._benches}] {name}"
        self._began = time.monotonic()
        self._rewrite("")

    def turn(self, done: int, turns: int) -> None:
        """So many turns of the bench are done."""
        if time.monotonic() - self._written > _SECONDS_BETWEEN:
            self._rewrite(f"{done / turns:4.0%}")

    def finish(self, text: str) -> None:
        """The bench has ended."""
        self._clear()
        seconds = time.monotonic() - self._began
        self.tell(f"{self._head}: {text} ({seconds:.0f} s)")

    def tell(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._live:
            self._stream.write(_CLEAR)

    def _rewrite(self, text: str) -> None:
        if self._live:
            self._stream.write(f"{_CLEAR}{self._head} {text}")
            self._stream.flush()
            self._written = time.monotonic()
