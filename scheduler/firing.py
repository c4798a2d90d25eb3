"""A due time as the beat sees it: claimed, waiting to be published, and what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from .due import Advance
from .model import CatchUp, Overlap

_IDS: Final = uuid.UUID("5d5f0f6c-7f0e-5b3b-9c3f-3f2a3c8f4e11")


def task_id_of(schedule_id: object, due_at: datetime) -> str:
    """The task id of a due time: a second publish has the same."""
    return str(uuid.uuid5(_IDS, f"{schedule_id}@{utc_text(due_at)}"))


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC, as headers have it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Step(NamedTuple):
    """A schedule to advance: as it was read, and what is due. `message`: of each due time."""

    row: dict[str, Any]
    advance: Advance
    message: str
    task_ids: Sequence[str]

    @property
    def behind(self) -> bool:
        """Whether more of its due times have passed."""
        following = self.advance.next_at
        return following is not None and bool(following <= self.row["now"])


@dataclass(frozen=True, slots=True)
class Firing:
    """A message that waits in the outbox, as JSON.

    `place`: where its row is while it is locked. `superseded`: a later one of its schedule is due
    too, or was published.
    """

    place: str
    schedule_id: int
    due_at: datetime
    late: bool
    message: str
    task_id: str
    until: datetime | None
    identifier: str
    catch_up: CatchUp
    overlap: Overlap
    active: bool
    superseded: bool
    now: datetime

    @property
    def expired(self) -> bool:
        """Whether its misfire grace is over."""
        return self.until is not None and self.now > self.until

    @property
    def given_up(self) -> bool:
        """Whether it is not to be published any more."""
        if not self.active:
            return True
        caught_up = self.catch_up is CatchUp.ALL or (
            self.catch_up is CatchUp.ONE and not self.superseded
        )
        return self.expired and not caught_up


class Mark(NamedTuple):
    """What became of a firing: an outcome, or `pending` again after some seconds."""

    firing: Firing
    outcome: str
    record_key: str | None = None
    after_seconds: float = 0.0
    endless: bool = False


class Counts(NamedTuple):
    """Due times of one schedule by what became of them; `fired` covers `late`."""

    fired: int = 0
    late: int = 0
    missed: int = 0
    skipped: int = 0

    def plus(self, outcome: str) -> Counts:
        """One more."""
        late, missed = outcome == "late", outcome == "missed"
        fired, skipped = late or outcome == "fired", outcome == "skipped_overlap"
        return Counts(
            self.fired + fired, self.late + late, self.missed + missed, self.skipped + skipped
        )
