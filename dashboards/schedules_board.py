"""The board Schedules: what crowds together, what to move, and what is late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from idemwatch.alerts.names import SCHEDULES
from idemwatch.alerts.thresholds import BUSY, HOT, QUIET

from . import looks, panels, shared
from .layout import Line
from .options import Options
from .panels import Panel, Query
from .promql import GRADE_OF, or_named, or_none_of, series, state, wide
from .tables import NAME_WIDTH, Column, table
from .variables import to_board, to_task

DESCRIPTION = "Load of the day, conflicts, recommendations, late and coming runs, all schedules."
BANDS: Final = {
    "excellent": looks.GREEN, "good": "light-green", "warning": looks.YELLOW, "critical": looks.RED,
}  # fmt: skip
URGENCIES: Final = {
    "critical": looks.RED, "high": looks.ORANGE, "medium": looks.YELLOW, "low": looks.BLUE,
}  # fmt: skip
OF_SCHEDULE: Final = 'schedule=~"$schedule"'
MOVE: Final = "schedule, current, recommended, reason"
RECOMMENDED: Final = f"{MOVE}, urgency"
LATE_SECONDS: Final = 60


def lines(options: Options) -> list[Line | str]:
    """The panels, line by line."""
    return [
        Line(3, [(4, _score(options)), (8, _verdict()), *((3, one) for one in _troubles())]),
        Line.of(3, *_figures(options)),
        Line.of(7, _load()),
        Line(4, [(14, _grades()), (10, _bands())]),
        Line.of(6, _critical()),
        Line.of(8, _recommendations()),
        Line.of(9, _runs()),
        Line.of(9, _inventory()),
        "Over time",
        Line.of(7, _score_over_time(options), _parts(), _loads_over_time()),
        Line.of(6, shared.about(options, (
            "**Schedules** shows when the work of cron comes, what collides, and what is late. "
            "Half hours are those of the exporter's `--timezone`, UTC unless told. "
            "`idemwatch schedules` moves schedules, `idemwatch validate-schedules` checks them."
        ))),
    ]  # fmt: skip


def _score(options: Options) -> Panel:
    limit = options.thresholds.health
    return panels.stat(
        "Health score",
        "Score of all schedules, 0 to 100: hotspots, conflicts and unbalanced hours cost points. "
        f"Red under {limit:g}: ScheduleHealthLow pages.",
        state("schedule_health_score"),
        empty=looks.NO_STATE,
        limits=looks.steps(looks.RED, (limit, looks.GREEN)),
    )


def _verdict() -> Panel:
    return panels.stat(
        "Grade",
        "The grade of the score, from A to F, and what it asks for.",
        shared.grade(),
        empty=looks.NO_STATE,
        mappings=looks.by_grade(looks.VERDICTS, looks.GRADE_COLOURS),
    )


def _troubles() -> list[Panel]:
    return [
        shared.figure(
            "Overdue",
            "Active schedules whose due time and grace have passed, and nobody has fired them.",
            "schedules_overdue", alarm=1,
        ),
        shared.figure(
            "Conflicts",
            "Schedules that run into themselves, or meet another on their asset.",
            "schedule_conflicts", alarm=1,
        ),
        shared.figure(
            "Duplicates", "Schedules that mean the same as another.", "schedule_duplicates",
            alarm=1,
        ),
        shared.figure(
            "Unreadable",
            "Schedules that cannot be read, and are in no figure here: "
            "`idemwatch validate-schedules` names them.",
            "schedules_unreadable", alarm=1,
        ),
    ]  # fmt: skip


def _figures(options: Options) -> list[Panel]:
    return [
        shared.active_schedules(),
        shared.hotspots(options),
        _recommended("Critical", "Critical conflicts: moves to make now.", 'urgency="critical"'),
        _recommended("Recommendations", "Moves that would take schedules out of hotspots."),
        panels.stat(
            "Highest load",
            "Highest load of the week: runs at once, of all that workers can take. Red over "
            f"{HOT:.0%}.",
            state("schedule_load_max_ratio"),
            unit="percentunit", empty=looks.NO_STATE, limits=_hot(looks.GREEN),
        ),
        panels.stat(
            "Capacity",
            "Runs that the workers take at once, and who said so.",
            Query(state("schedule_capacity", by="source"), "{{source}}"),
            empty=looks.NO_STATE, names=True,
        ),
    ]  # fmt: skip


def _recommended(title: str, description: str, *matchers: str) -> Panel:
    metric = "schedule_recommendation_load_before_ratio"
    found = f"count ({state(metric, *matchers, by=RECOMMENDED)})"
    alarm = looks.steps(looks.GREEN, (1, looks.RED)) if matchers else None
    return panels.stat(
        title,
        description,
        or_none_of(found, state("schedule_health_score")),
        empty=looks.NO_STATE,
        limits=alarm,
    )


def _hot(base: str) -> dict[str, Any]:
    return looks.steps(base, (looks.over_ratio(HOT), looks.RED))


def _load() -> Panel:
    return panels.barchart(
        "Load of the day",
        "Highest load of each half hour, on the worst of 7 days, as a share of what workers can "
        f"take at once. Red bars are the hotspots, over {HOT:.0%}.",
        state("schedule_load_ratio", by="slot"),
        x="slot",
        value="Value",
        names=("Half hour", "Load"),
        unit="percentunit",
        limits=_hot(looks.BLUE),
        top=1,
        empty=looks.NO_STATE,
    )


def _grades() -> Panel:
    letters = {grade: grade for grade in looks.GRADES}
    nothing = looks.mapped({"0": looks.NO_STATE}, {"0": looks.ORANGE})
    return panels.state_timeline(
        "Grade over time",
        "The grade of the schedules' health over the chosen time.",
        Query(or_named(GRADE_OF, "vector(0)", series("schedule_health_score")), "Grade"),
        mappings=[*looks.by_grade(letters, looks.GRADE_COLOURS), *nothing],
        empty=looks.NO_STATE,
    )


def _bands() -> Panel:
    return panels.stat(
        "Half hours by load",
        f"Half hours of the day by their load: excellent up to {QUIET:.0%}, good up to {BUSY:.0%}, "
        f"warning up to {HOT:.0%}, critical over it.",
        [Query(state("schedule_slots", f'band="{band}"'), band) for band in BANDS],
        empty=looks.NO_STATE,
        names=True,
        overrides=[
            panels.override("byName", band, thresholds=looks.steps(looks.TEXT, (1, colour)))
            for band, colour in BANDS.items()
        ],
    )


def _critical() -> Panel:
    return table(
        "Critical conflicts",
        "The moves that matter most: schedules that start into the worst hotspots, what to change "
        "them to, and the load before and after. Click a schedule to see only it.",
        _moves(MOVE, 'urgency="critical"'),
        [*_of_moves(), *_loads()],
        empty="No critical conflicts",
        sort="Load before",
        descending=True,
    )


def _recommendations() -> Panel:
    colours = looks.mapped({name: name for name in URGENCIES}, URGENCIES)
    return table(
        "Recommendations",
        "The fifty most urgent moves that take schedules out of hotspots. "
        "`idemwatch schedules optimize` shows and `apply` makes them.",
        _moves(RECOMMENDED),
        [
            *_of_moves(),
            Column(title="Urgency", of="urgency", width=100, mappings=colours),
            *_loads(),
        ],
        empty="No recommendations: the schedules are well spread",
        sort="Load before",
        descending=True,
    )


def _moves(by: str, *matchers: str) -> str:
    def load(when: str) -> str:
        metric = f"schedule_recommendation_load_{when}_ratio"
        return state(metric, OF_SCHEDULE, *matchers, by=by)

    return wide(by, load("before"), after=f"round({load('after')}, 0.001)")


def _of_moves() -> Sequence[Column]:
    return [
        Column(title="Schedule", of="schedule", links=_to_schedule()),
        Column(title="Current", of="current"),
        Column(title="Recommended", of="recommended"),
        Column(title="Reason", of="reason", width=110),
    ]


def _loads() -> Sequence[Column]:
    return [
        Column(
            title="Load before", unit="percentunit", decimals=0, width=115,
            limits=_hot(looks.TEXT),
        ),
        Column(
            title="Load after", of="after", unit="percentunit", decimals=0, width=110,
            limits=_hot(looks.GREEN),
        ),
    ]  # fmt: skip


def _to_schedule() -> list[dict[str, Any]]:
    return [to_board("Only this schedule", SCHEDULES, schedule="Schedule")]


def _runs() -> Panel:
    return table(
        "Overdue and next runs",
        "When each schedule runs next and ran last, how often it runs and how long a run takes; "
        "the most overdue first. Late: how long ago a run was due that nobody has fired.",
        _times(),
        [
            Column(title="Schedule", of="schedule", links=_to_schedule()),
            Column(title="Task", of="task", width=NAME_WIDTH, links=to_task("Task")),
            Column(
                title="Late", unit="s", decimals=0, width=75,
                limits=looks.steps(looks.TEXT, (LATE_SECONDS, looks.ORANGE)),
            ),
            *_of_times(),
            Column(title="Takes", of="takes", unit="s", width=75),
        ],
        empty="No active schedules",
        sort="Late", descending=True, then="Next run",
    )  # fmt: skip


def _times() -> str:
    by = "schedule, task"

    def of(metric: str) -> str:
        return state(f"schedule_{metric}", OF_SCHEDULE, by=by)

    takes = of("expected_duration_seconds")

    def when(metric: str) -> str:
        return f"round({of(f'{metric}_timestamp_seconds')} * 1000) or {takes} * 0"

    return wide(
        by, f"(clamp_min(time() - {of('next_run_timestamp_seconds')}, 0) or {takes} * 0)",
        next_run=when("next_run"), last_run=when("last_run"), last_success=when("last_success"),
        every=f"{of('interval_seconds')} or {takes} * 0", takes=takes,
    )  # fmt: skip


def _of_times() -> Iterator[Column]:
    for title, label, unit, width, nothing in (
        ("Next run", "next_run", "dateTimeAsIso", 155, "not known"),
        ("Last run", "last_run", "dateTimeFromNow", 135, "never"),
        ("Last success", "last_success", "dateTimeFromNow", 135, "never"),
        ("Every", "every", "s", 75, "once"),
    ):
        yield Column(
            title=title, of=label, unit=unit, width=width, mappings=looks.mapped({"0": nothing})
        )


def _inventory() -> Panel:
    by = "schedule, task, cron, timezone, status"
    return table(
        "All schedules",
        "The first 500 schedules, paused and cancelled ones too; `idemwatch schedules list` has "
        "them all.",
        state("schedule_info", OF_SCHEDULE, by=by),
        [
            Column(title="Schedule", of="schedule", links=_to_schedule()),
            Column(title="Task", of="task", width=NAME_WIDTH, links=to_task("Task")),
            Column(title="When", of="cron"),
            Column(title="Time zone", of="timezone", width=230),
            Column(
                title="Status", of="status", width=100, mappings=looks.mapped(
                    {"active": "active", "paused": "paused", "cancelled": "cancelled"},
                    {"active": looks.GREEN, "paused": looks.YELLOW, "cancelled": looks.TEXT},
                ),
            ),
        ],
        empty="No schedules yet: see `idemwatch schedules` or --source",
        sort="Schedule",
    )  # fmt: skip


def _score_over_time(options: Options) -> Panel:
    return panels.timeseries(
        "Score over time",
        "The score, and what it would be if it were not held between 0 and 100. The dashed line "
        "is the limit of ScheduleHealthLow.",
        [
            Query(state("schedule_health_score"), "score"),
            Query(state("schedule_health_raw_score"), "unclamped"),
        ],
        unit="none", least=None, limit=options.thresholds.health, empty=looks.NO_STATE,
    )  # fmt: skip


def _parts() -> Panel:
    return panels.timeseries(
        "What the score is made of",
        "Half hours over 70% (10 points each), schedules in conflict (5), hours over 50% without "
        "such a half hour (3).",
        [
            Query(state("schedule_hotspots"), "hotspots"),
            Query(state("schedule_conflicts"), "conflicts"),
            Query(state("schedule_unbalanced"), "unbalanced hours"),
        ],
        unit="none", decimals=0, empty=looks.NO_STATE,
    )  # fmt: skip


def _loads_over_time() -> Panel:
    return panels.timeseries(
        "Load of the week",
        f"Highest and mean load of the week. The dashed line is {HOT:.0%}.",
        [
            Query(state("schedule_load_max_ratio"), "highest"),
            Query(state("schedule_load_mean_ratio"), "mean"),
        ],
        unit="percentunit", limit=looks.over_ratio(HOT), soft_max=1, empty=looks.NO_STATE,
    )  # fmt: skip
