"""Crontab files, read as cron reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.crontab_source import (
    LONGEST_COMMAND,
    LONGEST_TASK,
    read_system_crontab,
    read_user_crontab,
)
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import timing_text
from idemwatch.scheduler.place import Place
from support.placed import assert_placed, problems_of

PATH = "/var/spool/cron/ana"
GOOD = "0 5 * * * true\n"


def read(text: str) -> Inventory:
    return read_user_crontab(PATH, text)


def schedules(text: str) -> tuple[Schedule, ...]:
    inventory = read(text)
    assert not inventory.problems
    return inventory.schedules


def only(text: str) -> Schedule:
    (found,) = schedules(text)
    return found


def problem(line: str, *, system: bool = False) -> tuple[int, str]:
    """Column and message of the problem of a line between two that are read."""
    good = GOOD.replace("true", "root true") if system else GOOD
    text = f"{good}{line}\n{good}"
    inventory = (read_system_crontab if system else read_user_crontab)(PATH, text)
    assert [one.place and one.place.line for one in inventory.schedules] == [1, 3]
    ((found, column, message),) = problems_of(inventory)
    assert found == 2 and inventory.problems[0].schedule == "ana:2"
    return column, message


# -- what is read ----------------------------------------------------------------------------------


def test_a_line_is_a_schedule_with_its_command_and_its_place() -> None:
    found = only("# nightly\n\n  \t*/5 1-3\t* * mon-FRI   /opt/x --all  # now\n")
    assert (found.id, found.name, found.place) == ("ana:3", "ana:3", Place(PATH, 3, 4))
    assert timing_text(found.timing) == "*/5 1-3 * * mon-FRI"
    assert (found.task, found.kwargs, found.zone) == ("/opt/x --all  # now", "{}", "UTC")


def test_comments_blanks_and_an_empty_file_are_nothing() -> None:
    for text in ("", "\n", "# 0 5 * * * x\n \t\n\t# y\n", "# no newline", "  "):
        assert read(text) == Inventory(PATH)


@pytest.mark.parametrize(
    "name", ["@yearly", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]
)
def test_a_name_of_a_time_stands_for_its_five_fields(name: str) -> None:
    found = only(f"{name}\t true\n")
    assert found.timing == parse_cron(name) and found.task == "true"


def test_a_user_stands_before_the_command_of_a_system_crontab() -> None:
    inventory = read_system_crontab("/etc/crontab", "0 5 * * * root\tx y\n@daily LAN\\ana z\n")
    found = [(one.id, one.task, json.loads(one.kwargs)) for one in inventory.schedules]
    assert found == [
        ("crontab:1", "x y", {"user": "root"}),
        ("crontab:2", "z", {"user": "LAN\\ana"}),
    ]


def test_a_minus_before_the_minutes_only_keeps_the_run_out_of_the_log() -> None:
    assert timing_text(only("-*/15 * * * * x\n").timing) == "*/15 * * * *"
    assert only("-@daily x\n").task == "x"
    assert problem("- 5 * * * x")[0] == 1


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "command", "given"),
    [
        (r"date +\%F", "date +%F", None),
        ("mail -s hi ana%one%two", "mail -s hi ana", "one%two"),
        (r"x \\% y", r"x \\", " y"),
        (r"x a\b \n", r"x a\b \n", None),
        (r"x%a\%b", "x", "a%b"),
        ("x\\", "x\\", None),
        ("FOO=bar x", "FOO=bar x", None),
    ],
)
def test_a_percent_sign_ends_the_command_unless_escaped(
    written: str, command: str, given: str | None
) -> None:
    found = only(f"0 5 * * * {written}\n")
    assert found.task == command
    assert json.loads(found.kwargs).get("stdin") == given


def test_long_commands_are_short_tasks_that_stay_apart() -> None:
    same = "x" * LONGEST_TASK
    first, second, third = schedules("".join(f"0 5 * * * {same}{end}\n" for end in ("", "1", "2")))
    assert first.task == same
    assert second.task != third.task
    assert len(second.task) <= LONGEST_TASK and second.task.startswith("x" * 100)


def test_a_command_that_cron_cuts_is_told_and_read() -> None:
    text = f"0 5 * * * {'x' * LONGEST_COMMAND}\n0 5 * * * {'x' * LONGEST_COMMAND}y\n"
    inventory = read(text)
    assert len(inventory.schedules) == 2 and inventory.problems == ()
    (doubt,) = inventory.doubts
    assert doubt.place[1:] == (2, 11) and "1000 characters" in doubt.message


def test_carriage_returns_are_told_once_and_the_lines_are_read() -> None:
    text = "# c\r\nCRON_TZ=Europe/London\r\n\r\n0 5 * * * x\r\n0 6 * * * y\r\n@reboot z\r\n"
    inventory = read(text)
    found = [(one.task, one.zone) for one in inventory.schedules]
    assert found == [("x", "Europe/London"), ("y", "Europe/London")]
    (first,) = inventory.doubts
    assert first.place[1:] == (4, 12) and "(of lines in all: 2)" in first.message
    ((line, _, message),) = problems_of(inventory)
    assert line == 6 and "@reboot" in message


def test_a_byte_order_mark_is_told_and_the_first_line_is_read() -> None:
    inventory = read("\ufeff0 5 * * * x\n")
    assert [one.task for one in inventory.schedules] == ["x"]
    (doubt,) = inventory.doubts
    assert doubt.place[1:] == (1, 1) and "byte order mark" in doubt.message
    assert inventory.problems == ()


# -- variables -------------------------------------------------------------------------------------


def test_a_zone_holds_for_the_lines_after_it() -> None:
    text = "@daily a\nCRON_TZ=Europe/London\n@daily b\n CRON_TZ = 'America/New_York' \n@daily c\n"
    assert [one.zone for one in schedules(text)] == ["UTC", "Europe/London", "America/New_York"]
    assert [one.zone for one in schedules('CRON_TZ=Asia/Tokyo\nCRON_TZ=""\n@daily a\n')] == ["UTC"]
    assert only("CRON_TZ=:Asia/Tokyo\n@daily a\n").zone == "Asia/Tokyo"


@pytest.mark.parametrize(
    "line",
    ["MAILTO=root", 'MAILTO=""', "A = b c = d ", "'A B'=c", '"A"="b c"', "TZ=Nowhere/X", 'A=b"c'],
)
def test_other_variables_are_passed_over(line: str) -> None:
    assert only(f"{line}\n@daily x\n").zone == "UTC"


@pytest.mark.parametrize("zone", ["Europe/Lodon", "UTC+3", "+02:00", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_told_and_utc_is_used_as_the_c_library_does(zone: str) -> None:
    inventory = read(f"CRON_TZ=Asia/Tokyo\nCRON_TZ={zone}\n@daily x\n")
    assert [one.zone for one in inventory.schedules] == ["UTC"]
    ((line, column, message),) = problems_of(inventory)
    assert (line, column) == (2, 9) and "no such IANA zone" in message


@pytest.mark.parametrize("line", ["A=", "A='b", "A='b' c", "'A=b", "A B=c", '"A" "B"=c'])
def test_what_is_no_variable_to_cron_is_no_variable(line: str) -> None:
    assert problem(line)[0] >= 1


# -- lines that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column", "part"),
    [
        ("61 5 * * * x", 1, "minute: 61 is not in 0-59"),
        ("0 25 * * * x", 3, "hour: 25 is not in 0-23"),
        ("0  5\t32 * * x", 6, "day of month: 32"),
        ("0 5 1 foo * x", 7, "month: 'FOO'"),
        ("0 5 * * monday x", 9, "day of week: 'MONDAY'"),
        ("\t0 5 * * 8 x", 10, "day of week: 8"),
        ("*/0 * * * * x", 1, "a step of 0"),
        ("0 5 ? * * x", 5, "'?' is of other crons"),
        ("H 5 * * * x", 1, "'H' is of other crons"),
        ("0 H(1-5)/2 * * * x", 3, "'H' is of other crons"),
        ("@reboot x", 1, "@reboot names no time: run it at start"),
        ("@Daily x", 1, "in lower case"),
        ("@every_minute x", 1, "cron knows @yearly"),
        ("0 0 5 * * * x", 11, "'*' is a sixth field"),
        ("0 0 5 1 * 1-5 x", 11, "'1-5' is a sixth field"),
        ("0 0 12 1/1 * ? * x", 14, "'?' is a sixth field"),
        ("0 5 * * *", 1, "no command follows"),
        ("0 5 * * *  ", 1, "no command follows"),
        ("@hourly", 1, "no command follows"),
        ("0 5 * *", 1, "it has 4 of cron's five fields"),
        ("word", 1, "it has 1 of cron's five fields"),
        ("0 5 * * * %x", 11, "it is empty"),
        ("0 5 * * * x\0y", 12, "NUL byte"),
        ("0\xa05 * * * x y", 1, "it has 6 fields"),
    ],
)
def test_a_wrong_line_is_told_with_the_column_of_what_is_wrong(
    line: str, column: int, part: str
) -> None:
    found, message = problem(line)
    assert found == column and part in message


@pytest.mark.parametrize(
    ("line", "column", "part"),
    [
        ("0 5 * * *", 1, "a user and a command must follow"),
        ("0 5 * * * backup", 1, "a user and a command must follow"),
        ("@daily backup", 1, "a user and a command must follow"),
        ("0 5 * * * /usr/bin/x -a", 11, "'/usr/bin/x' is no user"),
        ("@daily A=b x", 8, "'A=b' is no user"),
        ("0 0 5 * * * root x", 11, "'*' is a sixth field"),
        ("0 25 * * * root x", 3, "hour: 25"),
    ],
)
def test_a_wrong_line_of_a_system_crontab_is_told(line: str, column: int, part: str) -> None:
    found, message = problem(line, system=True)
    assert found == column and part in message


def test_a_last_line_without_a_newline_is_not_run_and_told() -> None:
    inventory = read("0 5 * * * a\n  0 6 * * * b")
    assert [one.task for one in inventory.schedules] == ["a"]
    ((line, column, message),) = problems_of(inventory)
    assert (line, column) == (2, 3) and "does not end with a newline" in message


def test_endless_fields_commands_and_blanks_are_read_in_no_time() -> None:
    long = 1_000_000
    lines = [",".join(["1"] * 40_000) + " * * * * x", "a" * long, "A" + " " * long + "b",
             '"' * long, "0 5 * * * " + "\\" * long, "A=b" + " " * long + "c"]  # fmt: skip
    inventory = read("\n".join([*lines, ""]))
    assert [one.place.line for one in inventory.problems] == [1, 2, 3, 4]
    assert [one.place.line for one in inventory.doubts] == [5]
    assert all(len(one.message) < 300 for one in inventory.problems)


# -- any text --------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(["0", "*", "*/5", "1-5", "@daily", "@reboot", "root", "A=b", "CRON_TZ=UTC", "%",
                     "CRON_TZ=x", "-", "#", "\\", "'", '"', "=", "\r", "\0", "H", "every", "\x0b"]),
    st.text(max_size=6),
)  # fmt: skip
LINES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=8).map("\n".join)
READERS = st.sampled_from([read_user_crontab, read_system_crontab])


@settings(deadline=None)
@given(READERS, st.one_of(st.text(), LINES))
def test_any_text_is_read_and_each_problem_has_its_line(reader: Any, text: str) -> None:
    inventory = reader("tab", text)
    assert_placed(inventory, text)
    for one in inventory.problems:
        assert 1 <= one.place.line <= text.count("\n") + 1 and one.place.column >= 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=9, unique=True))
def test_each_line_that_counts_is_a_schedule_or_a_problem(minutes: list[int]) -> None:
    text = "".join(f"{minute} 5 * * {minute} x\n" for minute in minutes)
    inventory = read(text)
    assert len(inventory.schedules) + len(inventory.problems) == len(minutes)
    assert len(inventory.schedules) == sum(minute < 8 for minute in minutes)


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    ranges = st.tuples(numbers, numbers).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    steps = st.integers(1, high - low).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), steps, st.lists(numbers.map(str) | ranges, min_size=1,
                                                   max_size=3).map(",".join))  # fmt: skip


EXPRESSIONS = st.tuples(
    _field(0, 59), _field(0, 23), _field(1, 31), _field(1, 12), _field(0, 7)
).map(" ".join)
ENTRIES = st.tuples(EXPRESSIONS, st.sampled_from(["UTC", "Europe/London", "Asia/Tokyo"]))


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=8), st.sampled_from([" ", "\t", " \t "]), st.booleans())
def test_a_crontab_that_is_written_reads_back_as_the_same_meanings(
    entries: list[tuple[str, str]], blank: str, system: bool
) -> None:
    lines = []
    for number, (expression, zone) in enumerate(entries):
        fields = blank.join(expression.split())
        user = f"ana{blank}" if system else ""
        lines += [f"CRON_TZ={zone}", "# c", f"{fields}{blank}{user}run{number}"]
    inventory = (read_system_crontab if system else read_user_crontab)(
        "tab", "".join(f"{line}\n" for line in lines)
    )
    assert not inventory.problems
    found = [(one.timing.meaning, one.zone, one.task) for one in inventory.schedules]
    assert found == [
        (parse_cron(expression).meaning, zone, f"run{number}")
        for number, (expression, zone) in enumerate(entries)
    ]
