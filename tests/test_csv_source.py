"""Schedules from CSV: each inventory of tests/data whole, and what is wrong in a file."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.idempotency.errors import IdempotencyError
from idemwatch.scheduler.csv_source import read_csv
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Status
from idemwatch.scheduler.occurrences import Interval, timing_text
from idemwatch.scheduler.place import Place
from support.placed import assert_placed, problems_of

DATA = Path(__file__).with_name("data")
COUNTS = {
    "alfresco": (40, 0),
    "fedora_cron_d": (139, 6),
    "gitlab": (176, 0),
    "govuk_k8s": (100, 0),
    "govuk_notify": (39, 0),
    "posthog": (99, 0),
    "saleor": (15, 0),
    "vets_api": (105, 0),
}
HEADER = "name,schedule,timezone,duration_estimate_seconds\n"


def inventory_named(name: str) -> Inventory:
    path = DATA / f"{name}.csv"
    return read_csv(str(path), path.read_text(encoding="utf-8"))


def read(rows: str, header: str = HEADER) -> Inventory:
    return read_csv("f.csv", header + rows)


def only_problem(rows: str, header: str = HEADER) -> tuple[int, str, str]:
    """Line, schedule and message, with a good row before and after it that must be read."""
    inventory = read(f"first,0 1 * * *,,\n{rows}\nlast,0 2 * * *,,\n", header)
    assert [inventory.schedules[0].name, inventory.schedules[-1].name] == ["first", "last"]
    (problem,) = inventory.problems
    return problem.place.line, problem.schedule, problem.message


# -- real inventories ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.csv")))
def test_a_real_inventory_is_read_whole(name: str) -> None:
    inventory = inventory_named(name)
    assert (len(inventory.schedules), len(inventory.problems)) == COUNTS[name]
    assert_placed(inventory, (DATA / f"{name}.csv").read_text(encoding="utf-8"))


def test_the_wrong_rows_of_fedora_are_told_by_line_and_name() -> None:
    path = DATA / "fedora_cron_d.csv"
    with path.open(newline="") as file:
        rows = dict(enumerate(csv.DictReader(file), 2))
    problems = inventory_named("fedora_cron_d").problems
    assert [one.place.line for one in problems] == [65, 67, 69, 71, 73, 75]
    assert [one.schedule for one in problems] == [rows[one.place.line]["name"] for one in problems]
    assert all("it has 6 fields" in one.message for one in problems)


def test_what_the_inventories_say_of_their_rows_is_kept() -> None:
    london = [one for one in inventory_named("govuk_k8s").schedules if one.zone == "Europe/London"]
    paused = [one for one in inventory_named("govuk_k8s").schedules if not one.active]
    assert (len(london), len(paused)) == (5, 7)
    (probe, *_) = inventory_named("posthog").schedules
    assert probe.timing == Interval(timedelta(seconds=10))
    assert (probe.name, probe.task) == ("10 sec queue probe", "redis_celery_queue_depth")
    assert probe.place == Place(str(DATA / "posthog.csv"), 2)


def test_a_queue_is_a_task_only_where_the_dialect_names_tasks() -> None:
    header = "name,schedule,dialect,queue_or_task\n"
    rows = "a,0 5 * * *,celery,t\nb,0 5 * * *,vixie,root\nc,0 5 * * *,k8s,x (suspended)\n"
    tasks = [(one.task, one.status) for one in read(rows, header).schedules]
    assert tasks == [("t", Status.PENDING), ("b", Status.PENDING), ("c", Status.PAUSED)]


# -- rows that are wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "name", "part"),
    [
        ("x,0 0 0 5 * *,,", "x", "it has 6 fields"),
        ("x,0 0 0 5 * * 2026,,", "x", "it has 7 fields"),
        ("x,0 25 * * *,,", "x", "hour: 25 is not in 0-23"),
        ("x,,,", "x", "cron_expression: a recurring one needs it"),
        ("x,@reboot,,", "x", "@reboot names no time"),
        ("x,0 5 * * *,Europe/Lodon,", "x", "no such IANA zone"),
        ("x,0 5 * * *,+02:00,", "x", "a fixed offset is no zone"),
        ("x,0 5 * * *,,0", "x", "'0' is not from 1 s to 31 days"),
        ("x,0 5 * * *,,-60", "x", "'-60' is not from 1 s to 31 days"),
        ("x,0 5 * * *,,nan", "x", "'nan' is out of range"),
        ("x,0 5 * * *,,soon", "x", "'soon' is no number"),
        ("x,every 0s,,", "x", "it must be 1 second or more"),
        ("x,0 5 * * *", "x", "2 values for 4 columns"),
        ("x,0 5,15 * * *,,", "x", "5 values for 4 columns; quote commas"),
        ('"x"y,0 5 * * *,,', "", "no CSV"),
    ],
)
def test_a_wrong_row_is_told_and_the_rest_goes_on(row: str, name: str, part: str) -> None:
    line, schedule, message = only_problem(row)
    assert (line, schedule) == (3, name) and part in message


def test_an_expression_of_80_kilobytes_is_one_short_problem() -> None:
    line, name, message = only_problem(f'x,"{",".join(["1"] * 40_000)} * * * *",,')
    assert (line, name) == (3, "x")
    assert "over 400 characters" in message and len(message) < 200


def test_a_value_beyond_what_csv_takes_does_not_hide_the_rows_after_it() -> None:
    assert only_problem(f"{'x' * 200_000},0 5 * * *,,")[0] == 3


def test_json_without_end_is_a_problem() -> None:
    inventory = read("x,0 5 * * *," + "[" * 100_000 + "\n", "name,schedule,args\n")
    (problem,) = inventory.problems
    assert (problem.place.line, problem.schedule) == (2, "x")


def test_a_quote_that_is_not_closed_is_told_where_it_begins() -> None:
    inventory = read('first,0 1 * * *,,\nx,"0 5 * * *,,\ny,0 2 * * *,,\n')
    assert [one.name for one in inventory.schedules] == ["first"]
    (problem,) = inventory.problems
    assert problem.place.line == 3 and "unexpected end of data" in problem.message


def test_a_week_is_a_duration() -> None:
    (schedule,) = read("x,0 5 * * *,,604800\n").schedules
    assert schedule.duration == timedelta(weeks=1)


def test_quotes_keep_commas_and_lines() -> None:
    inventory = read('"x, ""y""\nz","0 5,15 * * *",,\nb,0 6 * * *,,\nc,0 26 * * *,,\n')
    first, second = inventory.schedules
    assert (first.name, timing_text(first.timing)) == ('x, "y"\nz', "0 5,15 * * *")
    assert (first.place, second.place) == (Place("f.csv", 2), Place("f.csv", 4))
    assert inventory.problems[0].place.line == 5


def test_blanks_around_values_and_empty_lines_mean_nothing() -> None:
    inventory = read(" x , 0 5 * * * , UTC , 60 \n\n\ny,0 25 * * *,,\n", HEADER.replace(",", " , "))
    assert [(one.name, one.zone) for one in inventory.schedules] == [("x", "UTC")]
    assert [one.place.line for one in inventory.problems] == [5]


def test_names_that_come_again_are_told_apart() -> None:
    assert [one.id for one in read("x,0 5 * * *,,\nx,0 6 * * *,,\n").schedules] == ["x", "x#2"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_end_of_line_is_one(end: str) -> None:
    inventory = read_csv("f", end.join(["name,schedule", "a,0 5 * * *", "b,0 25 * * *", ""]))
    assert [one.place for one in inventory.schedules] == [Place("f", 2)]
    assert [one.place for one in inventory.problems] == [Place("f", 3)]


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("", "it lacks 'name'"),
        ("\n\n", "it lacks 'name'"),
        ("name,cron\n", "it lacks 'schedule'"),
        ("name,schedule,colour\n", "no column 'colour'"),
        ("name,schedule,name\n", "column 'name' is given twice"),
        ("0 5 * * * /usr/bin/true\n", "it lacks 'name'"),
    ],
)
def test_a_file_that_is_no_table_of_schedules_is_refused(header: str, part: str) -> None:
    with pytest.raises(InvalidSchedule, match=part) as caught:
        read_csv("f.csv", header)
    assert caught.value.expression == "f.csv"


def test_a_header_that_is_no_csv_is_told_at_its_line() -> None:
    ((line, _, message),) = problems_of(read_csv("f.csv", '"name"x,schedule\na,0 5 * * *\n'))
    assert line == 1 and "no CSV" in message


def test_a_header_alone_is_an_empty_inventory() -> None:
    assert read("") == Inventory("f.csv")


@pytest.mark.parametrize("header", ["name,schedule\n", '"name","schedule"\n'])
def test_a_byte_order_mark_is_no_part_of_the_first_name(header: str) -> None:
    inventory = read_csv("f.csv", f"\ufeff{header}a,0 5 * * *\n")
    assert [one.name for one in inventory.schedules] == ["a"]


# -- any text --------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from(
        ["0 5 * * *", "every 9s", "H H * * *", "UTC", "-1", "celery", "{}", '"', "\ufeff"]
    ),
    st.text(max_size=12),
)
ROWS = st.lists(st.lists(VALUES, max_size=6).map(",".join), max_size=6).map("\n".join)
FULL = (
    "name,schedule,dialect,timezone,duration_estimate_seconds,args,kwargs,fromdate,priority,status"
)


@settings(deadline=None)
@given(st.one_of(st.text(), ROWS, ROWS.map(lambda rows: f"{FULL}\n{rows}")))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    with suppress(IdempotencyError):
        assert_placed(read_csv("f", text), text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1).map(str.strip).filter(bool), st.integers(0, 59))))
def test_what_is_written_as_csv_is_read_again(rows: list[tuple[str, int]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["name", "schedule"])
    writer.writerows((name, f"{minute} 5 * * *") for name, minute in rows)
    inventory = read_csv("f", file.getvalue())
    assert not inventory.problems
    found = [(one.name, timing_text(one.timing)) for one in inventory.schedules]
    assert found == [(name, f"{minute} 5 * * *") for name, minute in rows]
