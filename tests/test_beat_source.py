"""beat_schedule as we read it, compared with when Celery's own schedules are due."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from celery.beat import BeatLazyFunc, ScheduleEntry
from celery.schedules import crontab, schedule
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.beat_source import read_beat_schedule
from idemwatch.scheduler.celery_timing import cron_of
from idemwatch.scheduler.model import Status
from idemwatch.scheduler.occurrences import Interval, timing_text
from idemwatch.scheduler.place import Place
from support.peers import (
    DAY,
    MONDAY,
    by_name,
    celery_runs,
    new_app,
    our_runs,
    read,
    read_one,
    told,
)

BERLIN = ZoneInfo("Europe/Berlin")


# --- crontab ---------------------------------------------------------------------------------


def fields(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """What Celery takes for a field: text in its grammar, a number, or a collection of them."""
    number = st.integers(low, high)
    word = st.sampled_from(names) if names else number.map(str)
    span = st.tuples(number, number).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, 2 * high)
    item = st.one_of(
        number.map(str),
        word,
        span,
        st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        step.map(lambda by: f"*/{by}"),
    )
    text = st.lists(item, min_size=1, max_size=4).map(",".join)
    several = st.lists(number, min_size=1, max_size=70)
    return st.one_of(
        st.just("*"), st.just("*"), text, number, several, several.map(set), several.map(tuple)
    )


DAYS = ("mon", "Tuesday", "WED", "thursday", "fri", "sat", "sunday")
MONTHS = ("jan", "february", "MAR", "july", "December")
CRONTABS = st.fixed_dictionaries(
    {
        "minute": fields(0, 59),
        "hour": fields(0, 23),
        "day_of_week": fields(0, 6, DAYS),
        "day_of_month": fields(1, 31),
        "month_of_year": fields(1, 12, MONTHS),
    }
)


@given(CRONTABS, st.integers(0, 3 * 366 * 86_400))
@settings(max_examples=300, deadline=None)
def test_a_crontab_becomes_an_expression_that_is_due_when_celery_says(
    parts: dict[str, Any], seconds: int
) -> None:
    try:
        made = crontab(**parts, app=new_app())
    except ValueError:  # a day that no month has
        assume(False)
    start = MONDAY + timedelta(seconds=seconds)
    read = read_one(made)
    assert our_runs(read, start, 40) == celery_runs(made, start, 40)


@given(CRONTABS)
@settings(max_examples=200, deadline=None)
def test_an_expression_of_a_crontab_has_its_sets(parts: dict[str, Any]) -> None:
    try:
        made = crontab(**parts)
    except ValueError:
        assume(False)
    words = cron_of(made).expression.split()
    again = crontab(words[0], words[1], words[4], words[2], words[3])
    for name in parts:
        assert getattr(again, name) == getattr(made, name)


@pytest.mark.parametrize(
    ("made", "expression"),
    [
        (crontab(), "* * * * *"),
        (crontab(minute="*/15", hour="8-17"), "*/15 8-17 * * *"),
        (crontab(minute=0, hour=4), "0 4 * * *"),
        (crontab(minute="0, 30", hour="22-2"), "0,30 22-2 * * *"),
        (crontab(minute=5, day_of_week="mon-fri"), "5 * * * mon-fri"),
        (crontab(minute=5, day_of_week="monday,Friday"), "5 * * * 1,5"),
        (crontab(minute=5, month_of_year="jan-mar"), "5 * * 1-3 *"),
        (crontab(minute={0, 30}, hour=range(8, 12)), "0,30 8-11 * * *"),
        (crontab(minute="*/90"), "0 * * * *"),
        (crontab(minute=set(range(60))), "* * * * *"),
        (crontab(minute=",".join(["7,0"] * 99)), "0,7 * * * *"),
    ],
)
def test_a_crontab_keeps_its_own_words_where_they_can_be_read(made: Any, expression: str) -> None:
    assert timing_text(cron_of(made)) == expression


@pytest.mark.parametrize(
    ("conf", "zone"),
    [
        ({}, "UTC"),
        ({"timezone": "Europe/Berlin"}, "Europe/Berlin"),
        ({"timezone": BERLIN, "enable_utc": False}, "Europe/Berlin"),
    ],
)
def test_a_crontab_is_in_the_zone_of_the_app(conf: dict[str, Any], zone: str) -> None:
    found = read_one(crontab(minute=30, hour=6), conf=conf)
    assert found.zone == zone
    start = datetime(2026, 1, 5, tzinfo=UTC)  # no change of the clock comes near
    made = crontab(minute=30, hour=6, app=new_app(**conf))
    local = start.astimezone(ZoneInfo(zone))
    assert our_runs(found, start, 30) == celery_runs(made, local, 30)


@pytest.mark.parametrize(
    ("start", "hour", "ours", "celerys"),
    [
        ("2026-10-25T00:00", "*", ["02:30+0200", "02:30+0100"], ["02:30+0200", "03:30+0100"]),
        ("2026-03-29T00:00", "*", ["01:30+0100", "03:30+0200"], ["01:30+0100", "03:30+0200"]),
        ("2026-03-29T00:00", "2", ["03:00+0200", "02:30+0200"], ["03:30+0200", "02:30+0200"]),
    ],
)
def test_only_a_change_of_the_clock_tells_our_crontab_from_celerys(
    start: str, hour: str, ours: list[str], celerys: list[str]
) -> None:
    made = crontab(minute=30, hour=hour)
    found = read_one(made, conf={"timezone": "Europe/Berlin"})
    first = datetime.fromisoformat(start + "Z").astimezone(BERLIN)

    def shown(runs: list[datetime]) -> list[str]:
        return [f"{one.astimezone(BERLIN):%H:%M%z}" for one in runs]

    assert shown(our_runs(found, first, 2)) == ours
    assert shown(celery_runs(made, first, 2)) == celerys


def in_zone(made: Any, zone: tzinfo) -> Any:
    """A crontab in a zone of its own: Celery 5.6 looks at its clock, 5.7 at its `tz`."""
    made.tz = zone
    made.nowfun = lambda: datetime.now(zone)
    return made


def test_a_crontab_has_a_zone_of_its_own() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    made = in_zone(crontab(minute=30, hour=6), kolkata)
    found = read_one(made, conf={"timezone": "Europe/Berlin"})
    assert found.zone == "Asia/Kolkata"
    assert our_runs(found, MONDAY, 2) == celery_runs(made, MONDAY.astimezone(kolkata), 2)


def test_a_clock_of_its_own_does_not_mislead_about_the_zone() -> None:
    made = crontab(minute=30, hour=6, nowfun=lambda: datetime.now(ZoneInfo("Asia/Kolkata")))
    found = read_one(made, conf={"timezone": "Europe/Berlin"})
    last, _, _ = made.remaining_delta(made.now())
    assert found.zone == last.tzinfo.key
    assert made.nowfun().tzinfo == ZoneInfo("Asia/Kolkata")  # it has its clock again


def test_a_zone_without_a_name_is_a_problem() -> None:
    made = in_zone(crontab(minute=30), timezone(timedelta(hours=2)))
    assert "it has no IANA name" in told(read({"one": {"task": "t", "schedule": made}}))["one"]


def test_a_crontab_of_nothing_is_a_problem() -> None:
    inventory = read({"one": {"task": "t", "schedule": crontab(minute=[])}})
    assert "minute: it is empty" in told(inventory)["one"]


# --- intervals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "seconds"),
    [(30, 30), (1.5, 1.5), (timedelta(days=2), 172_800), (schedule(timedelta(minutes=5)), 300)],
)
def test_an_interval_is_one(made: Any, seconds: float) -> None:
    assert read_one(made).timing == Interval(timedelta(seconds=seconds))


@pytest.mark.parametrize("made", [0, -5, 0.5, timedelta(0), float("nan"), float("inf"), schedule()])
def test_an_interval_that_is_none_is_a_problem(made: Any) -> None:
    inventory = read({"one": {"task": "t", "schedule": made}, "two": {"task": "t", "schedule": 9}})
    assert list(by_name(inventory)) == ["two"] and list(told(inventory)) == ["one"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("minutes", [1, 7, 60, 90, 1440, 1600])
def test_a_relative_interval_runs_when_celery_rounds_it_to(minutes: int, zone: str) -> None:
    every = timedelta(minutes=minutes)
    found = read_one(every, relative=True, conf={"timezone": zone})
    made = schedule(every, relative=True, app=new_app(timezone=zone))
    first = our_runs(found, MONDAY, 1)[0]
    assert our_runs(found, first, 20) == celery_runs(made, first.astimezone(ZoneInfo(zone)), 20)


# --- entries ---------------------------------------------------------------------------------


def test_what_add_periodic_task_adds_is_read_with_the_handlers_run() -> None:
    app = new_app(beat_schedule={"listed": {"task": "listed", "schedule": 60}})

    @app.task(name="proj.clean", shared=False)  # type: ignore[untyped-decorator]
    def clean(*args: Any) -> None: ...

    @app.on_after_configure.connect(weak=False)  # type: ignore[untyped-decorator]
    def configured(sender: Any, **_: Any) -> None:
        sender.add_periodic_task(30, clean.s("configured"), name="configured")

    @app.on_after_finalize.connect(weak=False)  # type: ignore[untyped-decorator]
    def finalized(sender: Any, **_: Any) -> None:
        sender.add_periodic_task(crontab(minute=5), clean.s("unnamed"), expires=10, queue="slow")

    found = by_name(read_beat_schedule(app, Settings()))
    assert set(found) == {"listed", "configured", "proj.clean('unnamed')"}
    last = found["proj.clean('unnamed')"]
    assert (last.task, last.args) == ("proj.clean", '["unnamed"]')
    assert json.loads(last.options) == {"expires": 10, "queue": "slow"}


def test_an_entry_tells_all_that_is_sent() -> None:
    found = read_one(
        60,
        args=(1, "zwölf", [None], date(2026, 1, 2)),
        kwargs={"id": UUID(int=7), "b": 1.5},
        options={
            "queue": "q", "routing_key": "r", "priority": 3, "headers": {"x": 1},
            "expires": datetime(2026, 1, 2, tzinfo=UTC),
        },
    )  # fmt: skip
    assert (found.id, found.name, found.task, found.place) == ("one", "one", "t", Place("beat"))
    assert found.args == ('[1,"zwölf",[null],{"__type__":"date","__value__":"2026-01-02"}]')
    assert json.loads(found.kwargs)["id"]["__type__"] == "uuid"
    assert json.loads(found.options) == {
        "queue": "q", "routing_key": "r", "priority": 3, "headers": {"x": 1},
        "expires": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip
    assert found.priority == 3


def test_a_priority_over_9_stays_with_the_options() -> None:
    found = read_one(60, options={"priority": 255})
    assert found.priority is None and found.options == '{"priority":255}'


def test_an_entry_may_be_a_schedule_entry_and_may_be_disabled() -> None:
    app = new_app()
    entry = ScheduleEntry("one", "t", schedule=crontab(minute=5), args=(1,), app=app)
    app.conf.beat_schedule = {"one": entry, "off": {"task": "t", "schedule": 9, "enabled": False}}
    found = by_name(read_beat_schedule(app, Settings()))
    assert (found["one"].task, found["one"].args) == ("t", "[1]")
    assert found["off"].status is Status.PAUSED


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schedule": 60}, "task: it names no task"),
        ({"task": "", "schedule": 60}, "task: it names no task"),
        ({"task": 7, "schedule": 60}, "task: 7 is none"),
        ({"task": "t"}, "schedule: it has none"),
        ({"task": "t", "schedule": "* * * * *"}, "str is no schedule"),
        ({"task": "t", "schedule": Settings}, "is none of crontab"),
        ({"task": "t", "schedule": 60, "args": "abc"}, "args: str is no list"),
        ({"task": "t", "schedule": 60, "kwargs": [1]}, "kwargs: list is no dict"),
        ({"task": "t", "schedule": 60, "args": [{1, 2}]}, "args: it is no JSON"),
        ({"task": "t", "schedule": 60, "args": [float("nan")]}, "args: it is no JSON"),
        ({"task": "t", "schedule": 60, "kwargs": {"f": print}}, "kwargs: it is no JSON"),
        ({"task": "t", "schedule": 60, "args": [BeatLazyFunc(int)]}, "args: it is no JSON"),
        ({"task": "t", "schedule": 60, "options": {"expires": DAY}}, "options: it is no JSON"),
        (7, "int is no dict"),
        (None, "NoneType is no dict"),
    ],
)
def test_an_entry_that_is_wrong_is_a_problem_and_the_rest_goes_on(entry: Any, said: str) -> None:
    inventory = read({"wrong": entry, "right": {"task": "t", "schedule": 60}})
    assert list(by_name(inventory)) == ["right"]
    (problem,) = inventory.problems
    assert str(problem).startswith("beat: wrong: ") and said in str(problem)


def test_without_an_app_the_error_says_how_to_give_one() -> None:
    with pytest.raises(ConfigurationError, match="celery -A proj idemwatch"):
        read_beat_schedule(None, Settings())


def test_an_app_that_cannot_be_made_ready_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="ModuleNotFoundError"):
        read_beat_schedule(new_app(imports=["no_such_module"]), Settings())
    with pytest.raises(ConfigurationError, match="list is no dict"):
        read(["entry"])


@pytest.fixture(autouse=True)
def no_pickle(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where beat would keep its pickle, a file that is never looked at and none that is made."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())
