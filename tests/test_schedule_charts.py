"""Bars, rulers and tables: what fits a screen, and what a screen can show."""

from __future__ import annotations

import itertools
import os
import pty
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.scheduler.bars import Axis, axis_for, bar, ruler
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.clock import zone_of
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.health import health
from idemwatch.scheduler.load import load_map
from idemwatch.scheduler.load_view import Day, load_chart, load_summary
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.occurrences import occurrences
from idemwatch.scheduler.plan_view import plan_chart
from idemwatch.scheduler.planner import plan
from idemwatch.scheduler.schedule_view import duration_text
from idemwatch.scheduler.starts import start_slots, starts_by_slot
from idemwatch.scheduler.terminal import NARROWEST, Screen
from idemwatch.scheduler.text_table import Column, columns_of, cut, table
from support import commands
from support.inventories import at_midnight, csv_file
from support.venv import clean_environ

NOW = datetime(2026, 11, 24, tzinfo=UTC)
RED, YELLOW, GREEN = "\x1b[31m", "\x1b[33m", "\x1b[32m"
WIDTHS = (NARROWEST, 60, 80, 120, 300)


def schedule(expression: str, **changed: object) -> Schedule:
    return schedule_of({"cron_expression": expression, **changed})


def day(count: int, capacity: float = 14) -> Day:
    schedules = [schedule("0 0 * * *", id=number) for number in range(count)]
    found = health(schedules, NOW, capacity=capacity)
    starts = starts_by_slot(schedules, found.load, "UTC")
    return Day(found, starts, Capacity(capacity, "option"), "UTC")


# -- bars ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "drawn"),
    [
        (0.0, "          |   |     "),
        (0.001, "▏         |   |     "),
        (0.25, "█████     |   |     "),
        (0.26, "█████▎    |   |     "),
        (0.5, "██████████|   |     "),
        (0.65, "█████████████ |     "),
        (0.7, "██████████████|     "),
        (1.0, "████████████████████"),
    ],
)
def test_a_bar_ends_at_its_load_to_an_eighth(load: float, drawn: str) -> None:
    assert bar(load, Axis(20, 1.0), Screen()) == drawn


def test_a_bar_is_plain_where_the_output_has_no_blocks() -> None:
    assert bar(0.26, Axis(20, 1.0), Screen(unicode=False)) == "#####     |   |     "
    assert bar(0.001, Axis(20, 1.0), Screen(unicode=False)).startswith("# ")


@pytest.mark.parametrize(
    ("load", "colour"), [(0.5, GREEN), (0.51, YELLOW), (0.7, YELLOW), (0.71, RED), (9, RED)]
)
def test_a_bar_is_yellow_over_50_and_red_over_70_percent(load: float, colour: str) -> None:
    axis = axis_for([load], 20)
    assert bar(load, axis, Screen(colour=True)).startswith(colour)
    assert "\x1b" not in bar(load, axis, Screen())


@given(
    loads=st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
    width=st.integers(1, 300),
    unicode=st.booleans(),
)
def test_a_bar_fills_the_axis_whatever_the_load(
    loads: list[float], width: int, unicode: bool
) -> None:
    axis = axis_for(loads, width)
    for load in loads:
        assert len(bar(load, axis, Screen(unicode=unicode))) == width
    assert len(ruler(axis)) == width


def test_the_ruler_names_the_marks_where_they_are() -> None:
    line = ruler(Axis(60, 1.0))
    assert [line.index(text) for text in ("50%", "70%", "100%")] == [30, 42, 56]
    assert ruler(Axis(60, 7.43)).split() == ["50%", "743%"], "what has no room is left out"


# -- charts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unicode", [True, False], ids=["unicode", "ascii"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 12, 1000, 100_000])
def test_no_line_of_a_chart_is_wider_than_the_screen(width: int, count: int, unicode: bool) -> None:
    shown = day(min(count, 1000), capacity=14 if count < 100_000 else 0.1)
    lines = load_chart(shown, Screen(width, unicode=unicode))
    assert len(lines) == 49 and max(map(len, lines)) <= width
    assert len({len(line) for line in lines[1:]}) == 1
    assert unicode or all(line.isascii() for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_two_bars_in_a_row_share_the_screen_and_the_axis(width: int) -> None:
    schedules = [schedule("0 0 * * *", id=number) for number in range(30)]
    found = plan(schedules, NOW, capacity=14)
    lines = plan_chart(found, "UTC", Screen(width))
    assert max(map(len, lines)) <= width
    assert (lines[2].split()[0], lines[2].split()[-1]) == ("00:00", f"{found.after.load.max():.0%}")
    assert lines[2].split()[1].startswith("█")


def test_what_a_chart_comes_to_fits_80_columns() -> None:
    assert max(map(len, load_summary(day(1000), Screen()))) <= 80
    assert load_summary(day(0), Screen())[0] == "highest load  0%"


# -- starts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "slots"),
    [
        ({"cron_expression": "0 0 * * *"}, [0]),
        ({"cron_expression": "*/30 1 * * *"}, [2, 3]),
        ({"cron_expression": "0 3 * * 1"}, [6]),
        ({"cron_expression": "0 3 1 1 *"}, []),
        ({"cron_expression": "every 43200s"}, [0, 24]),
        ({"cron_expression": "* * * * *"}, list(range(48))),
        ({"cron_expression": "* * * * *", "status": "PAUSED"}, []),
        ({"cron_expression": "0 * * * *", "fromdate": "2026-11-30T21:30"}, [44, 46]),
        ({"cron_expression": "0 * * * *", "uptodate": "2026-11-24T02:00"}, [0, 2]),
        ({"is_recurring": False, "fromdate": "2026-11-24T05:15", "task": "t", "id": 1}, [10]),
    ],
)
def test_a_schedule_starts_in_its_half_hours(given_: dict[str, object], slots: list[int]) -> None:
    one = schedule_of(given_)
    load = load_map([one], NOW, capacity=1)
    assert start_slots([one], load, "UTC") == [tuple(slots)]
    assert sum(starts_by_slot([one, one], load, "UTC")) == 2 * len(slots)


@given(
    expression=st.sampled_from(
        ["*/7 * * * *", "5 */5 * * *", "0 9-17 * * 1-5", "59 23 * * *", "30 2 * * 0", "0 0 1 * *",
         "every 5000s", "every 100000s"]
    ),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    hours=st.integers(0, 24 * 365),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_half_hours_of_starts_are_those_of_the_occurrences(
    expression: str, zone: str, hours: int
) -> None:
    one, start = schedule(expression, timezone=zone), NOW + timedelta(hours=hours, minutes=3)
    load = load_map([one], start, capacity=1)
    here = zone_of("Asia/Kathmandu")
    moments = itertools.takewhile(
        lambda moment: moment < start + timedelta(days=7),
        occurrences(one.timing, zone_of(zone), start - timedelta(microseconds=1)),
    )
    local = [moment.astimezone(here) for moment in moments]
    slots = {moment.hour * 2 + moment.minute // 30 for moment in local}
    assert start_slots([one], load, "Asia/Kathmandu") == [tuple(sorted(slots))]


def test_a_change_of_the_clock_moves_the_start_within_the_week() -> None:
    one = schedule("30 12 * * *", timezone="America/New_York")
    before = datetime(2026, 10, 29, tzinfo=UTC)  # the clock goes back on 1 November
    load = load_map([one], before, capacity=1)
    assert start_slots([one], load, "UTC") == [(33, 35)]
    assert [slot for slot, high in enumerate(load.by_half_hour()) if high] == [33, 35]


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("short", 5, "short"),
        ("rather long", 8, "rath…ong"),
        ("rather long", 1, "…"),
        ("早上好早上好", 7, "早…好"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
    ],
)
def test_text_is_cut_in_its_middle(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert columns_of(cut(text, width)) <= width


def test_text_is_cut_by_dots_where_there_is_no_ellipsis() -> None:
    assert cut("rather long", 8, unicode=False) == "rat..ong"


@given(st.text(max_size=60), st.integers(2, 40), st.booleans())
def test_what_is_cut_fits(text: str, width: int, unicode: bool) -> None:
    assert columns_of(cut(text, width, unicode=unicode)) <= width


def test_only_columns_that_may_be_cut_are_cut_and_only_at_a_terminal() -> None:
    columns = (Column("NAME", least=6), Column("EXPRESSION"), Column("LOAD", right=True))
    rows = [["a" * 50, "*/5 * * * *", "7%"], ["b", "@daily", "100%"]]
    narrow = table(columns, rows, Screen(40, terminal=True))
    assert narrow == [
        "NAME                   EXPRESSION   LOAD",
        f"{'a' * 10}…{'a' * 10}  */5 * * * *    7%",
        "b                      @daily       100%",
    ]
    assert table(columns, rows, Screen(40))[1].startswith("a" * 50)
    hopeless = table(columns, rows, Screen(10, terminal=True))
    assert hopeless[1] == "aaa…aa  */5 * * * *    7%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25s"), (45, "45s"), (60, "1m"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"),
     (172_800, "48h"), (59.999, "1m")],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_text(schedule("@daily", duration_estimate_seconds=seconds).duration) == text


# -- at a terminal ---------------------------------------------------------------------------------


def at_terminal(*arguments: str, **environ: str) -> str:
    """What the command writes to a terminal, of 80 columns unless `COLUMNS` says other."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65_536):
                shown.append(data)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [commands.PROGRAM, "schedules", *arguments, "--at", NOW.isoformat()],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=clean_environ(**{"TERM": "xterm", "COLUMNS": "80", **environ}),
        timeout=commands.DEADLINE_SECONDS,
        check=False,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert done.returncode == 0
    return b"".join(shown).decode().replace("\r\n", "\n")


@pytest.fixture
def crowded(tmp_path: Path) -> str:
    rows = [*at_midnight(12), *(row.replace("0 0 *", "0 6 *") for row in at_midnight(8))]
    return csv_file(tmp_path, [*rows, f"{'long name ' * 9},0 9 * * *,celery,UTC,app.task,60"])


def test_colours_are_shown_at_a_terminal_only(crowded: str) -> None:
    lines = at_terminal("load", "--source", crowded).splitlines()
    assert lines[1].startswith(f"00:00 {RED}█") and lines[13].startswith(f"06:00 {YELLOW}█")
    assert lines[19].startswith(f"09:00 {GREEN}█")
    assert "\x1b" not in commands.output("schedules", "load", "--source", crowded)
    for calm in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in at_terminal("load", "--source", crowded, **calm)


def test_blocks_are_shown_where_the_output_is_utf_8_only(crowded: str) -> None:
    for encoding in ("ascii", "latin-1"):
        for command in ("load", "optimize", "list"):
            shown = at_terminal(command, "--source", crowded, PYTHONIOENCODING=encoding)
            assert shown.isascii() and ("####" in shown or command == "list")
    assert "█" in at_terminal("load", "--source", crowded, PYTHONIOENCODING="UTF8")


def test_names_that_the_output_cannot_write_are_escaped(tmp_path: Path) -> None:
    source = csv_file(tmp_path, ["früh 早,0 3 * * *,celery,UTC,t,60"])
    latin = commands.run("schedules", "list", "--source", source, PYTHONIOENCODING="ascii")
    assert latin.returncode == 0 and "fr\\xfch \\u65e9" in latin.stdout


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_tables_and_charts_fit_the_terminal(crowded: str, columns: int) -> None:
    for command in ("load", "optimize"):
        shown = at_terminal(command, "--source", crowded, COLUMNS=str(columns), NO_COLOR="1")
        bars = [line for line in shown.splitlines() if line[2:3] == ":"]
        assert len(bars) == 48 and max(map(len, bars)) <= columns


@pytest.mark.parametrize("zone", ["UTC", "America/Argentina/ComodRivadavia"])
def test_the_list_fits_80_columns(crowded: str, zone: str) -> None:
    shown = at_terminal("list", "--source", crowded, "--timezone", zone, NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= 80
    assert "long" in shown and "long name " * 8 not in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_reason_is_told_whole_over_as_many_lines_as_it_needs(crowded: str, columns: int) -> None:
    midnight = ("--not-before", "00:00", "--not-after", "00:00")
    shown = at_terminal(
        "recommend", "report", "600", "--source", crowded, *midnight,
        COLUMNS=str(columns), NO_COLOR="1",
    )  # fmt: skip
    assert max(map(len, shown.splitlines())) <= columns
    assert " ".join(shown.split()).endswith(
        "The least loaded period that is allowed (86%), suitable for a report of 10 minutes"
    )


def test_long_work_is_explained_at_a_terminal(tmp_path: Path) -> None:
    source = csv_file(tmp_path, at_midnight(2_000))
    shown = at_terminal("load", "--source", source, "--capacity", "5000")
    assert shown.startswith("looking at 2,000 schedules ...\r")
    assert "looking" not in commands.run("schedules", "load", "--source", source).stderr
