"""Changes of schedules, as values: what an operator is shown, and what the table then does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .identity import schedule_hash
from .model import Schedule, Status
from .occurrences import timing_text

if TYPE_CHECKING:
    from .planner import Move


@dataclass(frozen=True, slots=True)
class Change:
    """One schedule as it was read, as it shall be, and why: `move` or `duplicate`."""

    before: Schedule
    after: Schedule
    reason: str

    def __str__(self) -> str:
        if self.before.status is not self.after.status:
            return f"{self.before.label}: {self.before.status} -> {self.after.status}"
        was, becomes = timing_text(self.before.timing), timing_text(self.after.timing)
        return f"{self.before.label}: {was} -> {becomes}"


def moves(found: Iterable[Move]) -> list[Change]:
    """The changes that make a plan true."""
    return [Change(one.before, one.after, "move") for one in found]


def without_duplicates(schedules: Sequence[Schedule]) -> list[Change]:
    """Cancels each active schedule that means the same as one before it: the oldest stays."""
    seen: set[str] = set()
    found = []
    for one in schedules:
        if not one.active:
            continue
        meaning = schedule_hash(one)
        if meaning in seen:
            cancelled = replace(one, status=Status.CANCELLED)
            found.append(Change(one, cancelled, "duplicate"))
        seen.add(meaning)
    return found
