"""The face of scheduler/: plain dicts in, plain dicts out, with the names of its predecessor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from idemwatch.alerts.thresholds import CAPACITY, HEALTH_WARNING, HOT

from .advice import Advice, advice_of, urgency
from .config import duration_of, schedule_of
from .cron import Cron
from .errors import InvalidSchedule
from .health import Health, health
from .load import LoadMap, load_map
from .model import Schedule
from .planner import Plan, plan
from .recommend import (
    PRIORITIES,
    TASK_TYPES,
    WEEKDAYS,
    Constraints,
    Slot,
    best_slots,
    reasoning,
)
from .starts import SLOTS, start_slots

Given = Schedule | Mapping[str, Any]
MOST_TOLD: Final = 20
"""Schedules named in one issue."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class ScheduleCoordinator:
    """Load, health, plans and recommendations for a fleet.

    `schedules`: what runs already, for `recommend_schedule_time`. `capacity`: slots that workers
    have. Half hours are those of `zone`.
    """

    def __init__(
        self,
        schedules: Sequence[Given] = (),
        *,
        capacity: float = CAPACITY,
        zone: str = "UTC",
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        if not 0 < capacity < math.inf:
            raise InvalidSchedule(str(capacity), "capacity", "it must be over 0")
        self._schedules = _read(schedules)
        self._capacity, self._zone, self._now = capacity, zone, now

    def optimize_schedule_distribution(
        self, schedules: Sequence[Given], strategy: str = "balanced"
    ) -> dict[str, Any]:
        """A plan: recommendations, the most urgent first, metrics, and the load by half hour.

        Loads are fractions of the capacity. Raises InvalidSchedule or ValueError.
        """
        read = _read(schedules)
        found = plan(read, self._now(), capacity=self._capacity, strategy=strategy)
        return plan_answer(found, read, self._zone)

    def recommend_schedule_time(
        self,
        task_type: str,
        duration_estimate: float,
        priority: str = "medium",
        constraints: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The quietest time for a new schedule, and two alternatives. Raises InvalidSchedule."""
        for name, given, known in (
            ("task_type", task_type, TASK_TYPES),
            ("priority", priority, PRIORITIES),
        ):
            if given not in known:
                raise InvalidSchedule(str(given), name, f"is none of {', '.join(known)}")
        duration = duration_of(duration_estimate)
        active = [one for one in self._schedules if one.active]
        load = load_map(active, self._now(), capacity=self._capacity)
        wanted = constraints_of(constraints or {}, self._zone)
        best, *others = best_slots(load, duration, wanted, priority=priority)
        return {
            "cron_expression": best.expression,
            "reasoning": reasoning(best, duration, task_type),
            "estimated_load": best.load,
            "alternatives": [_alternative(slot, duration, task_type) for slot in others],
        }

    def analyze_schedule_health(self, schedules: Sequence[Given]) -> dict[str, Any]:
        """The score, its grade, issues and what to do. Raises InvalidSchedule."""
        read = _read(schedules)
        found = health(read, self._now(), capacity=self._capacity, zone=self._zone)
        starting = _load_map(read, found.load, self._zone)
        issues = _issues(found, starting)
        return {
            "overall_score": found.score,
            "grade": found.grade,
            "issues": issues,
            "recommendations": [issue["advice"] for issue in issues],
            "load_distribution": found.bands,
        }


def plan_answer(found: Plan, schedules: Sequence[Schedule], zone: str) -> dict[str, Any]:
    """A plan for `schedules` as a dict; half hours are those of `zone`."""
    hot = int((found.before.by_half_hour(zone) > HOT).sum())
    return {
        "recommendations": [_recommendation(one, zone) for one in advice_of(found)],
        "metrics": {
            "total_schedules": len(schedules),
            "hotspot_count": hot,
            "total_load": float(found.before.load.sum()),
            "avg_load": float(found.before.load.mean()),
            "max_load": float(found.before.load.max(initial=0)),
            "max_load_after": float(found.after.load.max(initial=0)),
            "lower_bound": found.bound / found.before.capacity,
        },
        "load_map": _load_map(schedules, found.before, zone),
    }


def _load_map(schedules: Sequence[Schedule], load: LoadMap, zone: str) -> dict[int, Any]:
    """By the minute of the day of each half hour: its highest load, and what starts in it."""
    highest = load.by_half_hour(zone).tolist()
    tasks: list[list[str]] = [[] for _ in range(SLOTS)]
    for one, slots in zip(schedules, start_slots(schedules, load, zone), strict=True):
        for slot in slots:
            tasks[slot].append(one.id)
    return {30 * slot: {"load": highest[slot], "tasks": tasks[slot]} for slot in range(SLOTS)}


def _read(schedules: Sequence[Given]) -> list[Schedule]:
    return [one if isinstance(one, Schedule) else schedule_of(one) for one in schedules]


def _recommendation(advice: Advice, zone: str) -> dict[str, Any]:
    return {
        "schedule_id": advice.move.before.id,
        "original_time": _text(advice.move.before),
        "recommended_time": _text(advice.move.after),
        "reason": advice.reason(zone),
        "urgency": advice.urgency,
        "impact": advice.impact,
    }


def _text(schedule: Schedule) -> str:
    return schedule.timing.expression if isinstance(schedule.timing, Cron) else ""


def _alternative(slot: Slot, duration: timedelta, task_type: str) -> dict[str, Any]:
    why = reasoning(slot, duration, task_type)
    return {"time": slot.expression, "load": slot.load, "reasoning": why}


def _issues(found: Health, starting: Mapping[int, Any]) -> list[dict[str, Any]]:
    issues: list[dict[str, Any]] = []

    def tell(kind: str, severity: str, message: str, affected: Sequence[str], advice: str) -> None:
        issues.append(
            {
                "severity": severity,
                "type": kind,
                "message": message,
                "affected_schedules": list(affected)[:MOST_TOLD],
                "advice": advice,
            }
        )

    for slot in found.hotspots:
        at, tasks = f"{slot // 2:02}:{slot % 2 * 30:02}", starting[30 * slot]["tasks"]
        message = f"{at} has a load of {found.slots[slot]:.0%}; {len(tasks)} schedules start in it"
        tell("hotspot", "warning", message, tasks, f"Move schedules out of {at}")
    if found.overrunning:
        message = f"{len(found.overrunning)} schedules run longer than until their next start"
        advice = "Run them less often, or make them shorter"
        tell("overrun", "warning", message, found.overrunning, advice)
    if found.contending:
        message = f"{len(found.contending)} schedules meet another on the same asset"
        tell("overlap", "warning", message, found.contending, "Move one of each pair")
    if found.score < HEALTH_WARNING:
        message = f"the health score is {found.score}"
        tell("health", "warning", message, (), "Apply the plan of `balanced`")
    return issues


def constraints_of(given: Mapping[str, Any], zone: str = "UTC") -> Constraints:
    """Constraints from a dict: business_hours_only, timezone, not_before, not_after, days,
    avoid_dst. Raises InvalidSchedule."""
    known = ("business_hours_only", "timezone", "not_before", "not_after", "days", "avoid_dst")
    for name in given:
        if name not in known:
            raise InvalidSchedule(str(name), "constraints", f"it is none of {', '.join(known)}")
    return Constraints(
        zone=str(given.get("timezone") or zone),
        not_before=_time("not_before", given.get("not_before", "00:00")),
        not_after=_time("not_after", given.get("not_after", "23:59")),
        business_hours_only=bool(given.get("business_hours_only", False)),
        days=tuple(_day(day) for day in given.get("days", ())),
        avoid_dst=bool(given.get("avoid_dst", True)),
    )


def _time(name: str, given: Any) -> time:
    try:
        found = given if isinstance(given, time) else time.fromisoformat(str(given))
    except ValueError:
        raise InvalidSchedule(str(given), name, "it is no time of the day, as 08:30") from None
    if found.tzinfo is not None:
        raise InvalidSchedule(str(given), name, "its zone is told by `timezone`: leave it out")
    return found


def _day(given: Any) -> int:
    text = str(given).strip().lower()[:3]
    if text in WEEKDAYS:
        return WEEKDAYS.index(text)
    if text.isdecimal() and int(text) < 7:
        return int(text)
    raise InvalidSchedule(str(given), "days", f"it is none of {', '.join(WEEKDAYS)}")


__all__ = ["ScheduleCoordinator", "constraints_of", "plan_answer", "urgency"]
