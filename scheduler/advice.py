"""What a plan advises: each of its moves with what it is worth, the most urgent first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from idemwatch.alerts.thresholds import BUSY, HOT

from .clock import zone_of
from .cron import Cron
from .load import Counts, LoadMap
from .model import Schedule
from .pieces import week_starts
from .planner import Move, Plan


@dataclass(frozen=True, slots=True)
class Advice:
    """A move, and the highest load in the minutes in which it starts, before and after.

    `at`: when (UTC) it starts into the highest load of before.
    """

    move: Move
    before: float
    after: float
    at: datetime

    @property
    def urgency(self) -> str:
        """critical, high, medium or low."""
        return urgency(self.before)

    @property
    def code(self) -> str:
        """`hotspot`, or `load` where it is moved out of less."""
        return "hotspot" if self.before > HOT else "load"

    def time(self, zone: str) -> str:
        """The time of day of `at`."""
        return f"{self.at.astimezone(zone_of(zone)):%H:%M}"

    def reason(self, zone: str) -> str:
        """Why it is moved, in words."""
        return f"{self.code.capitalize()} of {self.before:.0%} at {self.time(zone)}"

    @property
    def impact(self) -> str:
        """What the move does, in words."""
        verb = "Reduces" if self.after < self.before else "Takes"
        return f"{verb} load from {self.before:.0%} to {self.after:.0%}"


def advice_of(plan: Plan) -> list[Advice]:
    """The moves of a plan, the highest load first."""
    was, becomes = plan.before.load, plan.after.load
    found = []
    for move in plan.moves:
        before, at = _highest(was, plan.before, move.before)
        after, _ = _highest(becomes, plan.after, move.after)
        found.append(Advice(move, before, after, at))
    return sorted(found, key=lambda one: (-one.before, one.move.before.id))


def _highest(loads: Counts, load: LoadMap, schedule: Schedule) -> tuple[float, datetime]:
    """The highest load that it starts into, and when that is."""
    if not isinstance(schedule.timing, Cron):
        return 0.0, load.start
    starts = week_starts(schedule.timing, schedule.zone, load.start)
    if not len(starts):
        return 0.0, load.start
    minute = int(starts[loads[starts].argmax()])
    return float(loads[minute]), load.start + timedelta(minutes=minute)


def urgency(load: float) -> str:
    """How pressing a move out of such a load is."""
    if load > 1:
        return "critical"
    if load > HOT:
        return "high"
    return "medium" if load > BUSY else "low"
