"""What `--fix` changes: duplicates are cancelled, and the plan of `balanced` is applied."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from idemwatch.alerts.thresholds import HEALTH_WARNING

from .changes import Change, moves, without_duplicates
from .health import health
from .model import Schedule
from .planner import plan


def remedies(
    schedules: Sequence[Schedule],
    now: datetime,
    *,
    capacity: float,
    checks: Collection[str],
    zone: str = "UTC",
) -> list[Change]:
    """The changes for what the checks look at: duplicates, then hotspots or the health."""
    changes = without_duplicates(schedules) if "duplicates" in checks else []
    cancelled = {one.before.id for one in changes}
    active = [one for one in schedules if one.active and one.id not in cancelled]
    if not {"hotspots", "health"}.isdisjoint(checks) and _crowded(active, now, capacity, zone):
        found = plan(active, now, capacity=capacity, strategy="balanced")
        changes += moves(found.moves)
    return changes


def _crowded(active: Sequence[Schedule], now: datetime, capacity: float, zone: str) -> bool:
    state = health(active, now, capacity=capacity, zone=zone)
    return bool(state.hotspots) or state.score < HEALTH_WARNING
