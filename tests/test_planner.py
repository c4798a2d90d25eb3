"""Plans: what a move may be, how low a plan comes, and that making it again changes nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.scheduler.bound import lower_bound
from idemwatch.scheduler.cron import Cron, parse_cron
from idemwatch.scheduler.identity import schedule_hash
from idemwatch.scheduler.load import load_map
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import Interval, Timing, bits
from idemwatch.scheduler.pieces import laid, split
from idemwatch.scheduler.planner import STRATEGIES, Move, Plan, applied, plan
from idemwatch.scheduler.shifts import mask_text, moved, shifted, shifts_of, skipped_minutes

NOW = datetime(2026, 11, 24, tzinfo=UTC)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def fleet(size: int, seed: int = 1, pinned: float = 0.1) -> list[Schedule]:
    """As fleets are: crowded at midnight, on the hour, and every few minutes."""
    chance = random.Random(seed)
    texts = ["0 0 * * *"] * 6 + ["0 * * * *", "*/15 * * * *", "30 2 * * *", "0 6 * * 1"]
    return [
        Schedule(
            id=f"s{number:05}",
            task=f"task{number % 3}",
            timing=parse_cron(chance.choice(texts)),
            movable=chance.random() >= pinned,
            duration=timedelta(minutes=chance.choice([1, 1, 2, 5])),
        )
        for number in range(size)
    ]


def peak(schedules: Sequence[Schedule]) -> float:
    return float(load_map(schedules, NOW, capacity=1).concurrency.max(initial=0))


def allowed(schedules: Sequence[Schedule], strategy: str, capacity: float) -> float:
    """How high a plan may come: runs that are packed together may fill 70%."""
    return max(peak(schedules), 0.7 * capacity if strategy == "consolidate" else 0)


# -- moves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "minutes", "moved"),
    [
        ("0 0 * * *", 15, "15 0 * * *"),
        ("0 0 * * *", -15, "45 23 * * *"),
        ("50 23 * * *", 20, "10 0 * * *"),
        ("50 23 * * 1", 20, None),
        ("0 0 1 * *", -1, None),
        ("0 9 * * 1-5", 60, "0 10 * * 1-5"),
        ("0 0,12 * * *", 90, "30 1,13 * * *"),
        ("0 * * * *", 70, "10 * * * *"),
        ("*/15 * * * *", 4, "4-59/15 * * * *"),
        ("0,30 9 * * *", 10, "10,40 9 * * *"),
        ("0,30 9 * * *", 40, None),
        ("0-59 * * * *", 1, None),
        ("@daily", 5, "5 0 * * *"),
        ("@hourly", 5, "5 * * * *"),
    ],
)
def test_a_move_is_written_as_cron_or_not_made(
    expression: str, minutes: int, moved: str | None
) -> None:
    found = shifted(parse_cron(expression), minutes)
    assert (None if found is None else found.expression) == moved


def test_a_move_in_quartz_keeps_the_other_fields() -> None:
    found = shifted(parse_cron("30 0 12 ? * MON#1", "quartz"), 75)
    assert found is not None and found.expression == "30 15 13 ? * MON#1"


def test_a_move_keeps_what_is_hashed_and_a_named_zone() -> None:
    hashed = shifted(parse_cron("5 H H * *", seed="report"), 10)
    assert hashed is not None and hashed.expression.startswith("15 ")
    assert parse_cron(hashed.expression, seed="report") == hashed
    zoned = shifted(parse_cron("@daily Europe/Berlin", "sidekiq"), 10)
    assert zoned is not None and zoned.expression == "10 0 * * * Europe/Berlin"


TIMES = st.one_of(
    st.builds("{} {}".format, st.integers(0, 59), st.integers(0, 23)),
    st.builds("{} */{}".format, st.integers(0, 59), st.sampled_from([2, 6, 8])),
    st.builds(
        "{},{} {}-{}".format, st.integers(0, 20), st.integers(21, 59), st.just(9), st.just(17)
    ),
    st.builds("{} *".format, st.integers(0, 59)),
    st.builds("*/{} *".format, st.integers(2, 30)),
    st.builds("*/{} {}".format, st.integers(2, 30), st.integers(0, 23)),
)
DAYS = st.sampled_from(["* * *", "* * 1-5", "* * 0", "1 * *", "* 11 *", "1,24 * 3"])
CRONS = st.builds("{} {}".format, TIMES, DAYS).map(parse_cron)


@given(CRONS, st.integers(0, 800))
def test_shifts_are_all_that_cron_can_say_each_once(cron: Cron, window: int) -> None:
    told: dict[object, int] = {}
    for shift in sorted(range(-window, window + 1), key=lambda one: (abs(one), one < 0)):
        masks = moved(cron, shift)
        if masks is not None:
            told.setdefault(masks, shift)
    assert shifts_of(cron, window, ()) == list(told.values())


@given(CRONS, st.integers(-60, 60))
def test_a_move_is_read_as_it_is_written(cron: Cron, by: int) -> None:
    found = shifted(cron, by)
    assert found is None or parse_cron(found.expression) == found


@given(st.integers(0, 59), st.integers(0, 23), st.integers(-60, 60))
def test_a_daily_move_is_exactly_so_many_minutes(minute: int, hour: int, by: int) -> None:
    found = shifted(parse_cron(f"{minute} {hour} * * *"), by)
    assert found is not None
    ((at,), (on,)) = bits(found.minutes), bits(found.hours)
    assert (60 * on + at - 60 * hour - minute - by) % 1440 == 0


@given(st.integers(1, (1 << 60) - 1))
def test_a_mask_is_written_as_it_is_read(mask: int) -> None:
    assert parse_cron(f"{mask_text(mask, 60)} * * * *").minutes == mask


def test_the_minutes_that_the_clock_skips_or_repeats() -> None:
    assert skipped_minutes("UTC", NOW) == frozenset()
    assert skipped_minutes("America/New_York", NOW) == frozenset(range(60, 180))
    assert skipped_minutes("Australia/Lord_Howe", NOW) == frozenset(range(90, 150))


# -- plans -----------------------------------------------------------------------------------------


@each_strategy
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("capacity", [14, 40, 400])
def test_what_every_plan_keeps(strategy: str, seed: int, capacity: int) -> None:
    schedules = fleet(150, seed)
    found = plan(schedules, NOW, capacity=capacity, strategy=strategy)
    after = applied(schedules, found.moves)
    assert found.bound <= peak(after) <= allowed(schedules, strategy, capacity)
    assert peak(after) == found.after.concurrency.max()
    assert peak(schedules) == found.before.concurrency.max()
    for move in found.moves:
        assert move.before.movable and move.after.timing != move.before.timing
        check_move(move.before, move.after)
    again = plan(after, NOW, capacity=capacity, strategy=strategy)
    assert again.moves == ()
    assert plan(list(schedules), NOW, capacity=capacity, strategy=strategy).moves == found.moves


def check_move(before: Schedule, after: Schedule) -> None:
    """It is cron, within its window, on the same days."""
    old, new = before.timing, after.timing
    assert isinstance(old, Cron) and isinstance(new, Cron)
    assert parse_cron(new.expression).meaning == new.meaning and new.rule == old.rule
    if old.minutes.bit_count() == old.hours.bit_count() == 1:
        times = [60 * bits(one.hours)[0] + bits(one.minutes)[0] for one in (old, new)]
        moved = (times[1] - times[0] + 720) % 1440 - 720
        assert abs(moved) <= before.window // timedelta(minutes=1)


def planned(schedules: Sequence[Schedule], strategy: str, capacity: float = 14) -> Plan:
    return plan(schedules, NOW, capacity=capacity, strategy=strategy)


def midnight(count: int, **changed: object) -> list[Schedule]:
    given: dict[str, object] = {"task": "task", "timing": parse_cron("0 0 * * *"), **changed}
    return [Schedule(id=str(number), **given) for number in range(count)]  # type: ignore[arg-type]


def test_balanced_moves_no_more_than_it_must() -> None:
    assert planned(midnight(9), "balanced").moves == ()
    (move,) = planned(midnight(10), "balanced").moves
    assert isinstance(move.after.timing, Cron)
    assert move.before.timing != move.after.timing and move.after.unmoved == move.before.timing
    found = planned(midnight(12), "balanced")
    assert len(found.moves) == 3 and found.after.load.max() <= 0.7


def test_spread_comes_to_the_bound() -> None:
    found = planned(midnight(600), "spread")
    assert found.after.concurrency.max() == found.bound == 5
    assert planned(midnight(7), "spread").moves == ()


def test_consolidate_lays_runs_of_one_task_side_by_side() -> None:
    schedules = [
        Schedule(
            id=f"{task}{n}",
            task=task,
            args=f"[{n}]",
            timing=parse_cron(f"{7 * n} {hour} * * *"),
        )
        for hour, task in ((3, "report"), (9, "mail"))
        for n in range(6)
    ]
    found = planned(schedules, "consolidate")
    busy = {
        task: [
            bits(one.timing.minutes)[0] + 60 * bits(one.timing.hours)[0]
            for one in applied(schedules, found.moves)
            if one.task == task and isinstance(one.timing, Cron)
        ]
        for task in ("report", "mail")
    }
    assert all(max(minutes) - min(minutes) <= 1 for minutes in busy.values())
    assert found.after.load.max() <= 0.7


def test_what_is_pinned_or_an_interval_stays() -> None:
    timings: list[Timing] = [
        Interval(timedelta(minutes=5)),
        parse_cron("* * * * *"),
        parse_cron("0 0 * * *"),
    ]
    schedules = [
        Schedule(id=f"{n}{kind}", task="t", timing=timing, movable=not isinstance(timing, Cron))
        for kind, timing in enumerate(timings)
        for n in range(20)
    ]
    for strategy in STRATEGIES:
        found = planned(schedules, strategy)
        assert found.moves == () and found.bound == peak(schedules)


def test_no_move_lands_where_the_clock_skips_or_repeats() -> None:
    zone = "America/New_York"
    crowd = midnight(300, timing=parse_cron("45 0 * * *"), zone=zone, window=timedelta(hours=3))
    for move in planned(crowd, "spread").moves:
        assert isinstance(move.after.timing, Cron)
        minute = 60 * bits(move.after.timing.hours)[0] + bits(move.after.timing.minutes)[0]
        assert minute not in skipped_minutes(zone, NOW)


def test_a_strategy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="balanced, spread, consolidate"):
        planned([], "fastest")


@each_strategy
def test_no_schedules_need_no_plan(strategy: str) -> None:
    found = planned([], strategy)
    assert (found.moves, found.bound) == ((), 0)


ZONES = ("UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe")
SCHEDULES = st.builds(
    Schedule,
    id=st.just(""),
    task=st.sampled_from(["report", "mail"]),
    timing=CRONS,
    zone=st.sampled_from(ZONES),
    duration=st.integers(1, 90).map(lambda minutes: timedelta(minutes=minutes)),
    movable=st.booleans(),
    window=st.integers(0, 90).map(lambda minutes: timedelta(minutes=minutes)),
)


@st.composite
def fleets(draw: st.DrawFn, most: int = 12) -> list[Schedule]:
    """Any schedules, each up to a few times, since only a crowd is moved."""
    found = draw(st.lists(SCHEDULES, max_size=most))
    copies = draw(st.lists(st.integers(1, 4), min_size=len(found), max_size=len(found)))
    crowd = [one for one, count in zip(found, copies, strict=True) for _ in range(count)]
    return [replace(one, id=f"s{number:02}") for number, one in enumerate(crowd)]


@settings(max_examples=60, deadline=None)
@given(fleets(), st.sampled_from(STRATEGIES), st.integers(1, 40), st.randoms())
def test_any_fleet_is_never_made_worse_and_planned_once(
    schedules: list[Schedule], strategy: str, capacity: int, chance: random.Random
) -> None:
    found = planned(schedules, strategy, capacity)
    after = applied(schedules, found.moves)
    assert found.bound <= peak(after) <= allowed(schedules, strategy, capacity)
    assert planned(after, strategy, capacity).moves == ()
    for move in found.moves:
        check_any_move(move)
    shuffled = chance.sample(schedules, len(schedules))
    assert planned(shuffled, strategy, capacity).moves == found.moves


def check_any_move(move: Move) -> None:
    """It is written as it is meant, and is one of the moves within its window, on its days."""
    old, new, schedule = move.before.timing, move.after.timing, move.before
    assert isinstance(old, Cron) and isinstance(new, Cron)
    assert schedule.movable and parse_cron(new.expression) == new
    assert move.after == replace(schedule, timing=new, unmoved=old)
    window = schedule.window // timedelta(minutes=1)
    assert any(moved(old, by) == (new.minutes, new.hours) for by in range(-window, window + 1))
    assert (new.rule, new.seconds) == (old.rule, old.seconds)
    if old.fixed:
        times = {60 * hour + minute for hour in bits(new.hours) for minute in bits(new.minutes)}
        assert not times & skipped_minutes(schedule.zone, NOW)


@settings(max_examples=60, deadline=None)
@given(fleets(most=2))
def test_no_shifts_at_all_come_below_the_bound(schedules: list[Schedule]) -> None:
    tiny = [replace(one, window=min(one.window, timedelta(minutes=3))) for one in schedules[:4]]
    pinned, pieces = split(tiny, NOW)
    reached = min(
        float(
            (pinned + laid([(one.kind, by, 1) for one, by in zip(pieces, to, strict=True)])).max()
        )
        for to in itertools.product(*(piece.kind.shifts.tolist() for piece in pieces))
    )
    assert lower_bound(pinned, pieces) <= reached


def test_the_bound_knows_work_that_is_left_behind_in_every_hour() -> None:
    crowd = [
        Schedule(
            id=str(n), task="t", timing=parse_cron("0 * * * *"), duration=timedelta(minutes=45)
        )
        for n in range(8)
    ]
    found = planned(crowd, "spread", capacity=4)
    assert found.bound == found.after.concurrency.max() == 6


def test_the_bound_does_not_take_working_days_for_all_days() -> None:
    often = Schedule(
        id="often", task="t", timing=parse_cron("*/5 * * * 1-5"), duration=timedelta(minutes=30)
    )
    sunday = [
        Schedule(id=str(n), task="t", timing=parse_cron("0 12 * * 0"), movable=False)
        for n in range(8)
    ]
    assert planned([often, *sunday], "spread").bound == 8


@each_strategy
def test_what_begins_or_ends_within_the_week_stays(strategy: str) -> None:
    crowd = midnight(20, uptodate=NOW + timedelta(days=3))
    assert planned(crowd, strategy).moves == ()
    later = midnight(20, uptodate=NOW + timedelta(days=30))
    assert planned(later, strategy).moves


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(STRATEGIES), st.integers(1, 60))
def test_random_fleets_are_never_made_worse(seed: int, strategy: str, capacity: int) -> None:
    schedules = fleet(30, seed)
    found = plan(schedules, NOW, capacity=capacity, strategy=strategy)
    after = applied(schedules, found.moves)
    assert found.bound <= peak(after) <= allowed(schedules, strategy, capacity)
    assert plan(after, NOW, capacity=capacity, strategy=strategy).moves == ()


def test_no_move_makes_a_schedule_mean_the_same_as_another() -> None:
    """Of one task and its arguments there are several times: they never meet."""
    same = [
        Schedule(id=f"{task}{n}", task=task, timing=parse_cron(f"{n} 9 * * *"))
        for task in ("a", "b")
        for n in range(20)
    ]
    for each in ("balanced", "spread", "consolidate"):
        found = plan(same, NOW, capacity=1, strategy=each)
        after = applied(same, found.moves)
        assert len({schedule_hash(one) for one in after}) == len(same)
        assert plan(after, NOW, capacity=1, strategy=each).moves == ()
