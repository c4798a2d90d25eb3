"""What is surely not meant in a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from idemwatch.scheduler.clock import zone_of
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.lint import lint
from idemwatch.scheduler.occurrences import Interval

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NEW_YORK = "America/New_York"


def codes(expression: str, zone: str = "UTC", dialect: str = "vixie") -> list[str]:
    return [found.code for found in lint(parse_cron(expression, dialect), zone_of(zone), NOW)]


@pytest.mark.parametrize(
    ("expression", "zone", "found"),
    [
        ("0 9 * * *", "UTC", []),
        ("0 0 30 2 *", "UTC", ["never"]),
        ("0 0 29 2 *", "UTC", []),
        ("* 9 * * *", "UTC", ["every_minute"]),
        ("* * * * *", "UTC", []),
        ("*/7 * * * *", "UTC", ["uneven_step"]),
        ("*/5 */5 * * *", "UTC", ["uneven_step"]),
        ("*/15 */6 * * *", "UTC", []),
        ("*/59 * * * *", "UTC", ["uneven_step"]),
        ("30 2 * * *", NEW_YORK, ["gap"]),
        ("30 1 * * *", NEW_YORK, ["fold"]),
        ("30 1,2 * * *", NEW_YORK, ["gap", "fold"]),
        ("30 2 * * 1", NEW_YORK, []),
        ("30 3 * * *", NEW_YORK, []),
        ("30 * * * *", NEW_YORK, []),
        ("*/5 2 * * *", NEW_YORK, []),
        ("0 0 * * *", "America/Santiago", ["gap"]),
        ("@daily", "Asia/Beirut", ["gap"]),
        ("15 2 * * *", "Australia/Lord_Howe", ["gap"]),
        ("45 1 * * *", "Australia/Lord_Howe", ["fold"]),
        ("45 2 * * *", "Australia/Lord_Howe", []),
        ("30 2 * * *", "Africa/Casablanca", ["fold", "gap"]),
        ("30 1,2 * * *", "Antarctica/Troll", ["gap", "fold"]),
        ("30 23 * * *", "America/Santiago", ["fold"]),
        ("* 0-5,18 * * *", "UTC", ["every_minute"]),
    ],
)
def test_findings(expression: str, zone: str, found: list[str]) -> None:
    assert codes(expression, zone) == found


def test_a_finding_says_when_and_what_to_do() -> None:
    (gap,) = lint(parse_cron("30 2 * * *"), zone_of(NEW_YORK), NOW)
    assert gap.message.startswith("2027-03-14 02:30 is skipped")
    (step,) = lint(parse_cron("*/7 * * * *"), zone_of("UTC"), NOW)
    assert step.message.endswith("from minute 56 to the next 0 it is 4 minutes, not 7")


def test_only_a_change_of_the_clock_within_400_days_counts() -> None:
    """On 12 March the clock is put forward in 2028."""
    cron, zone = parse_cron("30 2 12 3 *"), zone_of(NEW_YORK)
    for days, found in ((400, ["gap"]), (401, []), (1, ["gap"]), (0, [])):
        now = datetime(2028, 3, 12, 7, tzinfo=UTC) - timedelta(days=days)
        assert [one.code for one in lint(cron, zone, now)] == found, days


@pytest.mark.parametrize(
    ("expression", "meant"),
    [("* 9 * * *", "at 09:00"), ("* 9,17 * * *", "once in each of them")],
)
def test_what_a_star_was_meant_to_be_is_told(expression: str, meant: str) -> None:
    (found,) = lint(parse_cron(expression), zone_of("UTC"), NOW)
    assert found.message.endswith(f"write 0 in place of * if it is meant to fire {meant}")


def test_a_year_that_is_over_never_comes_again() -> None:
    assert codes("0 0 0 1 1 ? 2020", dialect="quartz") == ["never"]
    assert codes("0 0 0 1 1 ? 2099", dialect="quartz") == []
    assert codes("0 0 0 30 2 ? 2099", dialect="quartz") == ["never"]


def test_an_interval_has_nothing_to_ask_about() -> None:
    assert lint(Interval(timedelta(seconds=7)), zone_of(NEW_YORK), NOW) == []
