"""A schedule as all of scheduler/ sees it, wherever it was read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from .occurrences import Timing
from .place import Place

DEFAULT_DURATION: Final = timedelta(seconds=60)
DEFAULT_WINDOW: Final = timedelta(minutes=60)
DEFAULT_GRACE: Final = timedelta(seconds=60)


class Status(StrEnum):
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


class CatchUp(StrEnum):
    """What of the due times that passed unfired longer ago than the misfire grace is fired."""

    ONE = "one"
    ALL = "all"
    NONE = "none"


class Overlap(StrEnum):
    """What becomes of a due time at which a run of the schedule holds a live lease."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"


ACTIVE: Final = frozenset((Status.PENDING, Status.IN_PROGRESS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a task is published, and what is known of its runs.

    `id`: unique in its source; `name`: what people call it, which need not be unique. `args`,
    `kwargs`, `options` (of `apply_async`): JSON with sorted keys. It runs from `fromdate` until
    before `uptodate`. `window`: how far it may be moved, each way, from `unmoved`: what it was
    before the first move, so that a plan that is made again comes to the same end. `priority`: of
    its messages, 0 to 9.
    """

    id: str
    task: str
    timing: Timing
    name: str = ""
    zone: str = "UTC"
    args: str = "[]"
    kwargs: str = "{}"
    options: str = "{}"
    duration: timedelta = DEFAULT_DURATION
    asset_id: str | None = None
    client_id: str | None = None
    status: Status = Status.PENDING
    fromdate: datetime | None = None
    uptodate: datetime | None = None
    priority: int | None = None
    movable: bool = True
    window: timedelta = DEFAULT_WINDOW
    unmoved: Timing | None = None
    misfire_grace: timedelta = DEFAULT_GRACE
    catch_up: CatchUp = CatchUp.ONE
    overlap: Overlap = Overlap.ALLOW
    place: Place | None = None

    @property
    def label(self) -> str:
        """Its name, else its id."""
        return self.name or self.id

    @property
    def active(self) -> bool:
        """Whether it fires at all."""
        return self.status in ACTIVE

    @property
    def bounded(self) -> bool:
        """Whether it has a first or a last day."""
        return self.fromdate is not None or self.uptodate is not None

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether it may run at any time from `start` until before `end`."""
        begun = self.fromdate is None or self.fromdate <= start
        return begun and (self.uptodate is None or end <= self.uptodate)

    @property
    def anchor(self) -> Timing:
        """What its window is counted from."""
        return self.unmoved or self.timing

    @property
    def minutes(self) -> int:
        """Minutes that a run takes, begun ones counted whole; at least one."""
        return max(1, -(-self.duration // timedelta(minutes=1)))
