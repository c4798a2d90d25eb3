"""Errors of schedules."""

from __future__ import annotations

from idemwatch.idempotency.errors import IdempotencyError


class InvalidSchedule(IdempotencyError):
    """A schedule cannot be understood. `part` names the field or setting that is wrong."""

    def __init__(self, expression: str, part: str, problem: str) -> None:
        super().__init__(expression, part, problem)
        self.expression, self.part, self.problem = expression, part, problem

    def __str__(self) -> str:
        shown = self.expression if len(self.expression) <= 60 else f"{self.expression[:57]}..."
        head = f"{shown!r}: " if shown else ""
        return f"{head}{self.part}: {self.problem}"


class ScheduleConflict(IdempotencyError):
    """Another schedule is in the way. `why`: "duplicate", or "overlap" on the same asset."""

    def __init__(self, schedule: str, other_id: str, other: str, why: str, detail: str) -> None:
        super().__init__(schedule, other_id, other, why, detail)
        self.schedule, self.other_id, self.other = schedule, other_id, other
        self.why, self.detail = why, detail

    def __str__(self) -> str:
        other = " ".join(filter(None, ("schedule", self.other_id, f"({self.other})")))
        return f"{self.schedule}: {self.why} of {other}: {self.detail}"


class ScheduleChanged(IdempotencyError):
    """A schedule is no longer as it was read; nothing was written. `ids`: the schedules."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        super().__init__(ids)
        self.ids = ids

    def __str__(self) -> str:
        shown = ", ".join(self.ids[:10]) + (" and others" if len(self.ids) > 10 else "")
        return f"changed since it was read: schedule {shown}; nothing was written, look again"


class UnknownChange(IdempotencyError):
    """No such change, or it was reverted already."""

    def __init__(self, change_id: int, problem: str) -> None:
        super().__init__(change_id, problem)
        self.change_id, self.problem = change_id, problem

    def __str__(self) -> str:
        return f"change {self.change_id}: {self.problem}"


class BrokerUnavailable(IdempotencyError):
    """The broker takes no message."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the broker takes no message: {self.reason}"


class UnknownSchedule(IdempotencyError):
    """A source has no such schedule. `near`: names that look like it."""

    def __init__(self, asked: str, source: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(asked, source, near)
        self.asked, self.source, self.near = asked, source, near

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        return f"{self.source} has no schedule {self.asked!r}{hint}"
