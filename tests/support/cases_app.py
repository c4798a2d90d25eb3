"""The app of `celery -A support.cases_app`: a task that holds the GIL, and parts of a chord."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from celery import chord

from .app import app, linked, pass_gate, task, write

__all__ = ["app"]

_holds_the_gil = ctypes.PyDLL(None)
"""C functions that are called without letting other threads run, the heartbeat among them."""


@task("grips", idempotency_lease=4, idempotency_key_args=("label",))
def grips(self: Any, label: str, milliseconds: int, times: int = 1) -> str:
    """Holds the GIL again and again, the first time; the heartbeat runs in between."""
    if write(label, "start") == 1:
        for _ in range(times):
            _holds_the_gil.usleep(milliseconds * 1000)
            time.sleep(0.05)
    write(label, "end")
    return label


@task("part")
def part(self: Any, label: str, number: int, gate: str = "") -> int:
    """A part of a chord. Each execution has its own number of the book as its result."""
    turn = write(label, f"start {number}")
    if gate:
        pass_gate(gate)
    write(label, f"end {number}")
    return turn


@task("sums")
def sums(self: Any, numbers: list[int], label: str) -> int:
    write(label, f"body {sum(numbers)}")
    return sum(numbers)


@task("starts_a_chord_of_parts")
def starts_a_chord_of_parts(self: Any, label: str, told: str, gate: str) -> str:
    """Of two parts, the first of which waits and has a callback; returns the id of its body."""
    first = part.s(label, 1, gate)
    first.link(linked.s(told))
    return str(chord([first, part.s(label, 2)])(sums.s(label)).id)
