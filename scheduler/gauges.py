"""What Prometheus is told of schedules and of beats: plain values in, metric families out.

Every status, grade, band, half hour and outcome is there from the start, at 0. What is told of
single schedules is capped, and no label holds an argument, a key or a user. Beats stand apart, and
with them what is overdue: that is asked of the table alone, and is told however long an analysis
of the schedules takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .capacity import Capacity
from .conflicts import shortest_gap
from .health import BANDS, Health
from .load_view import time_of
from .model import Schedule, Status
from .occurrences import timing_text
from .recommendations import Recommendation

MOST_SCHEDULES: Final = 500
LONGEST_LABEL: Final = 200
LIVE: Final = timedelta(seconds=30)
"""How long after its last tick a beat counts as live; it ticks every 5 s."""
GRADES: Final = ("A", "B", "C", "D", "F")
OUTCOMES: Final = ("fired", "missed", "late", "skipped_overlap")
STATUSES: Final = {
    Status.PENDING: "active",
    Status.IN_PROGRESS: "active",
    Status.PAUSED: "paused",
    Status.CANCELLED: "cancelled",
}
_OF_RUNS: Final = {
    "next_run_timestamp_seconds": "When it runs next",
    "last_run_timestamp_seconds": "When it was fired last",
    "last_success_timestamp_seconds": "When a run of it succeeded last",
    "interval_seconds": "Shortest time from one run to the next",
    "expected_duration_seconds": "What a run takes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What is known of a schedule's runs. `next_at` in the past: due, and nobody has fired it."""

    next_at: datetime | None = None
    last_at: datetime | None = None
    last_success_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that the metrics are made of, at one moment.

    `schedules`: all of them, also those that are paused. `unreadable`: rows that are no schedule.
    `duplicates`: schedules that mean the same as one before them. `runs`: by id.
    """

    now: datetime
    health: Health
    capacity: Capacity
    schedules: Sequence[Schedule] = ()
    unreadable: int = 0
    duplicates: int = 0
    recommendations: Sequence[Recommendation] = ()
    runs: Mapping[str, Runs] = field(default_factory=dict)

    def overdue(self, one: Schedule) -> timedelta:
        """How long ago the misfire grace of its due time ended; zero if it has not."""
        due = self.runs[one.id].next_at if one.active and one.id in self.runs else None
        return max(timedelta(0), self.now - due - one.misfire_grace) if due else timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """What is known of the beats and of what they did.

    `firings`: due times by outcome, each counted once. `overdue`: active schedules whose due time
    and misfire grace have passed. `last_tick`: of any beat. `live`: beats with a tick just now.
    """

    firings: Mapping[str, float] = field(default_factory=dict)
    overdue: int = 0
    last_tick: datetime | None = None
    live: int = 0


def families(found: Analysis) -> Iterator[Metric]:
    """The metrics of an analysis."""
    yield from _of_health(found.health, found.duplicates)
    yield from _of_load(found.health, found.capacity)
    yield from _of_recommendations(found)
    yield from _of_schedules(found)


def _gauge(name: str, text: str, values: Mapping[str, float], label: str) -> Metric:
    family = GaugeMetricFamily(f"idemwatch_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _number(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"idemwatch_{name}", text, value=value)


def _of_health(health: Health, duplicates: int) -> Iterator[Metric]:
    yield _number("schedule_health_score", "Health of all schedules, 0 to 100", health.score)
    yield _number("schedule_health_raw_score", "The same before it is clamped", health.raw_score)
    grades = {grade: float(grade == health.grade) for grade in GRADES}
    yield _gauge("schedule_health_grade", "1 for the grade of the score", grades, "grade")
    yield _number("schedule_hotspots", "Half hours with a load over 70%", len(health.hotspots))
    yield _number(
        "schedule_conflicts",
        "Schedules that run into themselves, or meet another on their asset",
        len(health.conflicts),
    )
    yield _number("schedule_duplicates", "Schedules that mean the same as another", duplicates)
    yield _number(  # not `_unbalanced_hours`: promtool takes that for a time
        "schedule_unbalanced", "Hours over 50% without a hotspot", health.unbalanced_hours
    )


def _of_load(health: Health, capacity: Capacity) -> Iterator[Metric]:
    slots = {time_of(slot): load for slot, load in enumerate(health.slots)}
    text = "Highest load in the half hour, on the worst of 7 days"
    yield _gauge("schedule_load_ratio", text, slots, "slot")
    highest, mean = float(health.load.load.max(initial=0)), float(health.load.load.mean())
    yield _number("schedule_load_max_ratio", "Highest load of the week", highest)
    yield _number("schedule_load_mean_ratio", "Mean load of the week", mean)
    yield _gauge(
        "schedule_capacity",
        "Runs that workers take at once, and who said so",
        {capacity.source: capacity.slots},
        "source",
    )
    bands = {band: float(health.bands[band]) for band in BANDS}
    yield _gauge("schedule_slots", "Half hours of the day by load", bands, "band")


def _of_recommendations(found: Analysis) -> Iterator[Metric]:
    labels = labels_of(found.schedules)
    families = [
        GaugeMetricFamily(
            f"idemwatch_schedule_recommendation_load_{when}_ratio",
            f"Load that a schedule starts into, {when} the recommended move",
            labels=["schedule", "current", "recommended", "urgency", "reason"],
        )
        for when in ("before", "after")
    ]
    for one in found.recommendations:
        given = [
            labels.get(one.schedule_id, one.schedule_id),
            _label(one.current), _label(one.recommended), one.urgency, one.reason,
        ]  # fmt: skip
        for family, load in zip(families, (one.before, one.after), strict=True):
            family.add_metric(given, load)
    yield from families


def _of_schedules(found: Analysis) -> Iterator[Metric]:
    counts = dict.fromkeys(STATUSES.values(), 0.0)
    for one in found.schedules:
        counts[STATUSES[one.status]] += 1
    yield _gauge("schedules", "Schedules", counts, "status")
    text = "Rows that are no schedule; `idemwatch validate-schedules` tells what is wrong with each"
    yield _number("schedules_unreadable", text, found.unreadable)
    labels = labels_of(found.schedules)
    info = GaugeMetricFamily(
        "idemwatch_schedule_info",
        f"1 for each schedule; the first {MOST_SCHEDULES}, idemwatch_schedules counts all",
        labels=["schedule", "task", "cron", "timezone", "status"],
    )
    for one in found.schedules[:MOST_SCHEDULES]:
        cron = _label(timing_text(one.timing))
        status = STATUSES[one.status]
        info.add_metric([labels[one.id], _label(one.task), cron, one.zone, status], 1)
    yield info
    yield from _of_runs(found, labels)


def _of_runs(found: Analysis, labels: Mapping[str, str]) -> Iterator[Metric]:
    """The most overdue first, then in their order: so series do not come and go."""
    families = {
        name: GaugeMetricFamily(f"idemwatch_schedule_{name}", text, labels=["schedule", "task"])
        for name, text in _OF_RUNS.items()
    }
    for one in most_overdue(found):
        for name, value in _facts(one, found).items():
            if value is not None:
                families[name].add_metric([labels[one.id], _label(one.task)], value)
    yield from families.values()


def most_overdue(found: Analysis) -> list[Schedule]:
    """The active schedules whose runs are told, at most 500."""
    active = [one for one in found.schedules if one.active]
    return sorted(active, key=found.overdue, reverse=True)[:MOST_SCHEDULES]


def _facts(one: Schedule, found: Analysis) -> dict[str, float | None]:
    runs = found.runs.get(one.id, Runs())
    gap = shortest_gap(one.timing, found.now.date())
    moments = (runs.next_at, runs.last_at, runs.last_success_at)
    seconds = (gap.total_seconds() if gap else None, one.duration.total_seconds())
    values = [*(at.timestamp() if at else None for at in moments), *seconds]
    return dict(zip(_OF_RUNS, values, strict=True))


def beat_families(found: Beats) -> Iterator[Metric]:
    """The metrics of beats."""
    firings = CounterMetricFamily(
        "idemwatch_schedule_firings", "Due times by what became of them", labels=["outcome"]
    )
    for outcome in OUTCOMES:
        firings.add_metric([outcome], found.firings.get(outcome, 0))
    yield firings
    tick = GaugeMetricFamily(
        "idemwatch_beat_last_tick_timestamp_seconds", "The last tick of any beat"
    )
    if found.last_tick is not None:
        tick.add_metric([], found.last_tick.timestamp())
    yield tick
    yield _number("beats_live", f"Beats with a tick in the last {LIVE.seconds} s", found.live)
    yield _number("schedules_overdue", "Schedules whose due time passed unfired", found.overdue)


def labels_of(schedules: Sequence[Schedule]) -> dict[str, str]:
    """What each schedule is called in labels, by id: its name, with its id where names repeat."""
    names = [_label(one.label) for one in schedules]
    taken: dict[str, int] = {}
    for name in names:
        taken[name] = taken.get(name, 0) + 1
    found = {}
    for one, name in zip(schedules, names, strict=True):
        label = name
        while taken.get(label, 0) > (label == name):
            label = f"{label} [{one.id}]"
        taken.setdefault(label, 1)
        found[one.id] = label
    return found


def _label(text: str) -> str:
    """A label's value: short, and only what UTF-8 can hold."""
    return text[:LONGEST_LABEL].encode("utf-8", "replace").decode()
