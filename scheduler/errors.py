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
        return f"{shown!r}: {self.part}: {self.problem}"
