"""Ctrl-C and other signals that end the demo.

Invariant: a signal either asks for an end that the supervisor comes to in order, or raises
Interrupted once, and what is then cleaned up is not interrupted again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal that ends the demo at once."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"ended by {signal.Signals(number).name}")


class Interrupts:
    """Handlers of the ending signals, while it is entered."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        """Set by the first Ctrl-C while `gently` is entered."""
        self._gentle = False
        self._raised = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers; put back what was there."""
        before = {number: signal.signal(number, self._on_signal) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """Within, a first Ctrl-C only sets `requested`."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._gentle and not self.requested.is_set():
            self.requested.set()
        elif not self._raised:
            self._raised = True
            raise Interrupted(number)
