"""The metrics of schedules: exactly those that are promised, each there from the start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from idemwatch.scheduler.advice import advice_of
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.changes import without_duplicates
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.gauges import (
    MOST_SCHEDULES,
    Analysis,
    Beats,
    Runs,
    beat_families,
    families,
    labels_of,
)
from idemwatch.scheduler.health import health
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.planner import plan
from idemwatch.scheduler.recommendations import MOST, Recommendation, recommendations_of, worst
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from support.promtool import faults

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PREFIX = "idemwatch_"
OF_RUNS = (
    "next_run_timestamp_seconds", "last_run_timestamp_seconds", "last_success_timestamp_seconds",
    "interval_seconds", "expected_duration_seconds",
)  # fmt: skip
LABELS = {
    "schedules": ("status",),
    "schedule_health_score": (),
    "schedule_health_raw_score": (),
    "schedule_health_grade": ("grade",),
    "schedule_hotspots": (),
    "schedule_conflicts": (),
    "schedule_duplicates": (),
    "schedule_unbalanced": (),
    "schedule_load_ratio": ("slot",),
    "schedule_load_max_ratio": (),
    "schedule_load_mean_ratio": (),
    "schedule_capacity": ("source",),
    "schedule_slots": ("band",),
    "schedule_recommendation_load_before_ratio": (
        "schedule", "current", "recommended", "urgency", "reason",
    ),
    "schedule_recommendation_load_after_ratio": (
        "schedule", "current", "recommended", "urgency", "reason",
    ),
    "schedule_info": ("schedule", "task", "cron", "timezone", "status"),
    **{f"schedule_{name}": ("schedule", "task") for name in OF_RUNS},
    "schedules_unreadable": (),
}  # fmt: skip
"""All that metrics.md promises of schedules."""
OF_BEATS = {
    "schedules_overdue": (),
    "schedule_firings": ("outcome",),
    "beat_last_tick_timestamp_seconds": (),
    "beats_live": (),
}
"""And of beats."""


class Fixed:
    """A collector of what it was given."""

    def __init__(self, found: list[Metric]) -> None:
        self.found = found

    def collect(self) -> list[Metric]:
        return self.found


def exposition(found: Analysis | Beats, generate: Any = generate_latest) -> str:
    registry = CollectorRegistry()
    registry.register(Fixed(list(told_of(found))))
    return str(generate(registry).decode())


def told_of(found: Analysis | Beats) -> Iterator[Metric]:
    return beat_families(found) if isinstance(found, Beats) else families(found)


Key = tuple[str, ...]


def series(found: Analysis | Beats) -> dict[str, dict[Key, float]]:
    """By metric, without the prefix, and by the values of its labels; read back by the parser."""
    told: dict[str, dict[Key, float]] = {}
    for family in parse(exposition(found)):
        assert family.name.startswith(PREFIX) and family.documentation
        name = family.name.removeprefix(PREFIX)
        values = told.setdefault(name, {})
        for sample in family.samples:
            labels = (LABELS | OF_BEATS)[name]
            assert set(sample.labels) == set(labels)
            key = tuple(sample.labels[label] for label in labels)
            assert key not in values, f"{name}{key} is there twice"
            values[key] = sample.value
    return told


def analysis(schedules: Sequence[Schedule] = (), **changed: Any) -> Analysis:
    found = health(schedules, NOW, capacity=14)
    given = {"now": NOW, "health": found, "capacity": Capacity(14, "default")}
    return Analysis(**{**given, "schedules": schedules, **changed})


def schedule(number: int, expression: str = "0 0 * * *", **changed: Any) -> Schedule:
    given = {"id": number, "identifier": str(number), "task": "t", **changed}
    return schedule_of({**given, "cron_expression": expression})


def everything() -> Analysis:
    """A fleet that has something to tell in every metric."""
    schedules = [
        *(schedule(number, identifier=f"job {number}") for number in range(12)),
        *(schedule(20 + n, "30 9 * * *", identifier=f"nine {n}") for n in range(8)),
        schedule(30, "* * * * *", duration_estimate_seconds=90),
        schedule(31, status="PAUSED"),
        schedule(32, status="CANCELLED"),
    ]
    moves = advice_of(plan(schedules, NOW, capacity=14))
    runs = {
        "0": Runs(
            next_at=NOW - timedelta(minutes=5),
            last_at=NOW - timedelta(days=1),
            last_success_at=NOW - timedelta(days=2),
        ),
        "1": Runs(next_at=NOW + timedelta(hours=12)),
    }
    return analysis(
        schedules,
        duplicates=len(without_duplicates(schedules)),
        recommendations=worst(recommendations_of(moves)),
        runs=runs,
        unreadable=2,
    )


def busy() -> Beats:
    """Beats that have something to tell in every metric."""
    firings = {"fired": 7, "missed": 1}
    return Beats(firings=firings, overdue=3, last_tick=NOW - timedelta(seconds=3), live=2)


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [analysis(), everything()], ids=["empty", "everything"])
def test_exactly_the_promised_metrics_are_exposed(found: Analysis) -> None:
    assert set(series(found)) == set(LABELS)
    assert {family.name.removeprefix(PREFIX) for family in families(found)} == set(LABELS)


@pytest.mark.parametrize("found", [Beats(), busy()], ids=["none", "busy"])
def test_exactly_the_promised_metrics_of_beats_are_exposed(found: Beats) -> None:
    assert set(series(found)) == set(OF_BEATS)


def test_a_fleet_without_anything_has_every_series_at_0() -> None:
    told = series(analysis())
    assert told["schedules"] == {("active",): 0, ("paused",): 0, ("cancelled",): 0}
    assert told["schedule_health_grade"] == {
        ("A",): 1, ("B",): 0, ("C",): 0, ("D",): 0, ("F",): 0
    }  # fmt: skip
    slots = [f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "30")]
    assert told["schedule_load_ratio"] == {(slot,): 0 for slot in slots}
    assert told["schedule_slots"] == {
        ("excellent",): 48, ("good",): 0, ("warning",): 0, ("critical",): 0
    }  # fmt: skip
    numbers = ("hotspots", "conflicts", "duplicates", "unbalanced", "load_max_ratio",
               "load_mean_ratio")  # fmt: skip
    assert {name: told[f"schedule_{name}"] for name in numbers} == {
        name: {(): 0.0} for name in numbers
    }
    assert told["schedules_unreadable"] == {(): 0}
    assert told["schedule_capacity"] == {("default",): 14}


def test_without_a_beat_every_series_but_the_tick_is_at_0() -> None:
    told = series(Beats())
    outcomes = ("fired", "missed", "late", "skipped_overlap")
    assert told["schedule_firings"] == {(outcome,): 0 for outcome in outcomes}
    assert (told["schedules_overdue"], told["beats_live"]) == ({(): 0}, {(): 0})
    assert told["beat_last_tick_timestamp_seconds"] == {}


def test_the_values_are_those_of_the_analysis() -> None:
    found = everything()
    told = series(found)
    assert told["schedules"] == {("active",): 21, ("paused",): 1, ("cancelled",): 1}
    assert told["schedule_health_score"] == {(): found.health.score}
    assert told["schedule_health_raw_score"] == {(): found.health.raw_score}
    assert [key for key, on in told["schedule_health_grade"].items() if on] == [
        (found.health.grade,)
    ]
    assert told["schedule_load_ratio"]["00:00",] == pytest.approx(14 / 14)
    hot = sum(load > 0.7 for load in told["schedule_load_ratio"].values())
    assert told["schedule_hotspots"] == {(): hot} and hot == 2
    assert told["schedule_conflicts"] == {(): 1}
    assert told["schedule_duplicates"] == {(): 18}
    assert told["schedule_load_max_ratio"] == {(): max(told["schedule_load_ratio"].values())}
    assert sum(told["schedule_slots"].values()) == 48
    assert told["schedules_unreadable"] == {(): 2}
    assert told["schedule_info"]["job 0", "t", "0 0 * * *", "UTC", "active"] == 1
    assert told["schedule_info"]["31", "t", "0 0 * * *", "UTC", "paused"] == 1


def test_the_values_are_those_of_the_beats() -> None:
    told = series(busy())
    assert told["schedule_firings"]["fired",] == 7 and told["schedule_firings"]["missed",] == 1
    assert (told["schedules_overdue"], told["beats_live"]) == ({(): 3}, {(): 2})
    assert told["beat_last_tick_timestamp_seconds"] == {(): NOW.timestamp() - 3}


@pytest.mark.parametrize("found", [analysis(), everything(), Beats(), busy()])
def test_promtool_finds_no_fault(found: Analysis | Beats) -> None:
    assert faults(list(told_of(found))) == ""


@pytest.mark.parametrize(
    ("found", "names"), [(everything(), LABELS), (busy(), OF_BEATS)], ids=["schedules", "beats"]
)
def test_openmetrics_can_be_parsed_too(found: Analysis | Beats, names: dict[str, Key]) -> None:
    text = exposition(found, generate_openmetrics)
    told = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert {family.name.removeprefix(PREFIX) for family in told} == set(names)


def test_no_argument_and_no_option_is_in_a_label() -> None:
    secret = schedule(1, args='["secret-1"]', kwargs={"user": "secret-2"},
                      options={"headers": {"user": "secret-3"}}, client_id="secret-4")  # fmt: skip
    assert "secret" not in exposition(analysis([secret]))


# -- single schedules ------------------------------------------------------------------------------


def of_runs(found: Analysis) -> dict[str, dict[str, float]]:
    """By metric and schedule."""
    told = series(found)
    return {name: {key[0]: v for key, v in told[f"schedule_{name}"].items()} for name in OF_RUNS}


def test_a_schedule_s_runs_are_told_as_far_as_they_are_known() -> None:
    told = of_runs(everything())
    stamp = NOW.timestamp()
    assert told["next_run_timestamp_seconds"] == {"job 0": stamp - 300, "job 1": stamp + 43_200}
    assert told["last_run_timestamp_seconds"] == {"job 0": stamp - 86_400}
    assert told["last_success_timestamp_seconds"] == {"job 0": stamp - 172_800}
    assert told["interval_seconds"]["job 0"] == 86_400 and told["interval_seconds"]["30"] == 60
    assert told["expected_duration_seconds"]["30"] == 90
    assert "31" not in told["interval_seconds"], "what is paused does not run"


@pytest.mark.parametrize(
    ("minutes", "grace", "seconds"), [(2, 60, 60), (1, 60, 0), (2, 600, 0), (-1, 1, 0)]
)
def test_a_due_time_is_overdue_after_its_misfire_grace(
    minutes: int, grace: int, seconds: int
) -> None:
    one = schedule(1, misfire_grace_seconds=grace)
    paused = schedule(2, misfire_grace_seconds=grace, status="PAUSED")
    runs = {str(n): Runs(next_at=NOW - timedelta(minutes=minutes)) for n in (1, 2)}
    found = analysis([one, paused], runs=runs)
    assert found.overdue(one) == timedelta(seconds=seconds)
    assert found.overdue(paused) == timedelta(0)


def test_single_schedules_are_capped_with_the_most_overdue_first() -> None:
    schedules = [schedule(number) for number in range(MOST_SCHEDULES + 100)]
    late = {str(n): Runs(next_at=NOW - timedelta(hours=n - 500)) for n in range(580, 600)}
    told = series(analysis(schedules, runs=late))
    assert len(told["schedule_info"]) == MOST_SCHEDULES
    assert told["schedules"]["active",] == MOST_SCHEDULES + 100
    named = [key[0] for key in told["schedule_interval_seconds"]]
    assert named[:20] == [str(n) for n in range(599, 579, -1)]
    assert named[20:] == [str(n) for n in range(480)], "the others keep their order"
    assert len(told["schedule_next_run_timestamp_seconds"]) == 20


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a", "b"],
        ["a", "a", "a [0]", "a [1]"],
        ["a [1]", "a", "a"],
        ["", "x" * 300, "x" * 299],
        ["new\nline", 'quote"', "back\\slash", "früh 早", "\ud800"],
    ],
)
def test_every_schedule_has_a_label_of_its_own(names: list[str]) -> None:
    schedules = [schedule(number, identifier=name) for number, name in enumerate(names)]
    labels = labels_of(schedules)
    assert len(set(labels.values())) == len(names)
    told = series(analysis(schedules))["schedule_info"]
    assert {key[0] for key in told} == set(labels.values())


def test_what_is_unique_keeps_its_name() -> None:
    schedules = [schedule(n, identifier=name) for n, name in enumerate(["a", "a", "b"])]
    assert labels_of(schedules) == {"0": "a [0]", "1": "a [1]", "2": "b"}


# -- recommendations -------------------------------------------------------------------------------


def recommendation(number: int, urgency: str = "high", before: float = 0.9) -> Recommendation:
    return Recommendation(str(number), "0 0 * * *", "5 0 * * *", urgency, "hotspot", before, 0.2)


def test_the_moves_of_a_plan_are_told_with_both_loads() -> None:
    found = everything()
    told = series(found)
    before = told["schedule_recommendation_load_before_ratio"]
    after = told["schedule_recommendation_load_after_ratio"]
    assert before.keys() == after.keys() and len(before) == len(found.recommendations) > 0
    name, current, recommended, urgency, reason = next(iter(before))
    assert name.startswith("job ") and (current, urgency, reason) == (
        "0 0 * * *", "high", "hotspot"
    )  # fmt: skip
    assert re.fullmatch(r"\d+ \d+ \* \* \*", recommended)
    assert all(value > 0.7 for value in before.values())
    assert all(value <= 0.7 for value in after.values())


def test_only_the_worst_are_told() -> None:
    given = [recommendation(n, "low", 0.4) for n in range(MOST)]
    urgent = [recommendation(100 + n, "critical", 1 + n / 100) for n in range(3)]
    found = worst([*given, *urgent])
    assert [one.schedule_id for one in found[:3]] == ["102", "101", "100"] and len(found) == MOST


def test_those_that_still_hold_keep_their_place_among_equally_urgent_ones() -> None:
    shown = [recommendation(n, before=0.75) for n in range(MOST)]
    worse = [recommendation(100 + n, before=0.95) for n in range(MOST)]
    still = [one._replace(before=0.8) for one in shown[:30]]
    urgent = recommendation(200, "critical", 1.5)
    found = worst([*worse, *still, urgent], shown)
    assert found[0] == urgent and set(still) < set(found) and len(found) == MOST
    assert not set(shown[30:]) & set(found)
