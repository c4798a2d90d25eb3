"""A schedule as all of scheduler/ sees it, wherever it was read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from .occurrences import Timing

DEFAULT_DURATION: Final = timedelta(seconds=60)
DEFAULT_WINDOW: Final = timedelta(minutes=60)


class Status(StrEnum):
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


ACTIVE: Final = frozenset((Status.PENDING, Status.IN_PROGRESS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a task is published, and what is known of its runs.

    `window`: how far it may be moved, each way, from `unmoved`: what it was before the first move,
    so that a plan that is made again comes to the same end. `place`: where it was read.
    """

    id: str
    task: str
    timing: Timing
    zone: str = "UTC"
    duration: timedelta = DEFAULT_DURATION
    asset_id: str | None = None
    client_id: str | None = None
    status: Status = Status.PENDING
    movable: bool = True
    window: timedelta = DEFAULT_WINDOW
    unmoved: Timing | None = None
    place: str = ""

    @property
    def anchor(self) -> Timing:
        """What its window is counted from."""
        return self.unmoved or self.timing

    @property
    def minutes(self) -> int:
        """Minutes that a run takes, begun ones counted whole; at least one."""
        return max(1, -(-self.duration // timedelta(minutes=1)))
