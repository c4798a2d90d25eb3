"""What each check finds, with which severity, and how it is selected: plain values in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.errors import UnknownSchedule
from idemwatch.scheduler.findings import CHECKS, RULES, Finding, Severity
from idemwatch.scheduler.idempotency_checks import CallFact, Evidence
from idemwatch.scheduler.inventory import Inventory, Problem, inventory_of
from idemwatch.scheduler.model import Overlap, Schedule, Status
from idemwatch.scheduler.occurrences import Interval
from idemwatch.scheduler.place import Place
from idemwatch.scheduler.report import Report
from idemwatch.scheduler.validation import validate

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SAFE = CallFact(idempotent=True)
DAY = timedelta(days=1)


def at(expression: str, id: str = "a", **changed: object) -> Schedule:  # noqa: A002
    given = {"id": id, "task": "app.task", "timing": parse_cron(expression), "args": f'["{id}"]'}
    return Schedule(**{**given, **changed})  # type: ignore[arg-type]


def crowd(expression: str, size: int) -> list[Schedule]:
    return [at(expression, f"{expression} {number}") for number in range(size)]


def checked(
    *schedules: Schedule, problems: Sequence[Problem] = (), evidence: Evidence | None = None,
    checks: Sequence[str] = tuple(CHECKS), only: str | None = None, zone: str = "UTC",
) -> Report:  # fmt: skip
    inventory = inventory_of("fleet.csv", schedules, problems)
    return validate(
        inventory, NOW, Capacity(14, "default"), zone=zone, checks=checks,
        evidence=evidence or Evidence(), only=only,
    )  # fmt: skip


def of_tasks(*schedules: Schedule, **facts: CallFact) -> Report:
    """With what an app says; it is told by id, and by default all is well."""
    calls = {one.id: facts.get(one.id, SAFE) for one in schedules}
    return checked(*schedules, evidence=Evidence({}, calls))


def found(report: Report, code: str) -> list[Finding]:
    return [one for one in report.findings if one.code == code]


def codes(report: Report) -> list[str]:
    return [one.code for one in report.findings]


def test_a_healthy_fleet_passes_every_check() -> None:
    report = of_tasks(at("5 3 * * *"), at("20 4 * * *", "b"))
    assert report.findings == () and report.exit_code() == 0
    assert report.checks == tuple(CHECKS) and report.rows == report.active == 2


def test_no_schedules_pass() -> None:
    assert (checked().exit_code(), checked().health.score) == (0, 100)


def test_a_row_that_cannot_be_read_is_an_error_at_its_place() -> None:
    place = Place("fleet.csv", 7, 3)
    report = checked(problems=[Problem(place, "it is wrong", "nightly")])
    (one,) = found(report, "unreadable")
    assert (one.severity, one.place, one.subject) == (Severity.ERROR, place, "nightly")
    assert (report.exit_code(), report.rows, report.active) == (2, 1, 0)


def test_duplicates_are_errors_that_name_the_oldest() -> None:
    first, second, third = (
        at(text, name, args="[]", place=Place("fleet.csv", line))
        for text, name, line in (
            ("@daily", "a", 2),
            ("00 00 * * *", "b", 3),
            ("0 0 1-31 * *", "c", 4),
        )
    )
    report = checked(first, second, third)
    assert [one.schedules for one in found(report, "duplicate")] == [("b", "a"), ("c", "a")]
    assert all("means the same as a (line 2)" in one.message for one in found(report, "duplicate"))
    assert report.exit_code() == 2


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED])
def test_what_does_not_fire_is_no_duplicate_and_no_load(status: Status) -> None:
    idle = [at("0 0 * * *", str(number), args="[]", status=status) for number in range(20)]
    report = checked(at("0 0 * * *", args="[]"), *idle)
    assert report.findings == () and (report.rows, report.active) == (21, 1)


def test_a_hotspot_is_a_warning_with_its_tasks_and_load() -> None:
    report = checked(*crowd("0 8 * * *", 12), *crowd("15 8 * * 1", 2), *crowd("0 9 * * *", 9))
    (one,) = found(report, "hotspot")
    assert str(one) == "08:00: 14 tasks (86% load), 12 runs at once on Tue 24 Nov 08:00"
    assert one.severity is Severity.WARNING and len(one.schedules) == 14
    assert report.exit_code() == 1 and report.exit_code(Severity.ERROR) == 0


def test_hotspots_are_told_in_the_zone_that_was_asked_for() -> None:
    report = checked(*crowd("0 8 * * *", 12), zone="Asia/Kathmandu")
    (one,) = found(report, "hotspot")
    assert one.subject == "13:30" and one.message.endswith("Tue 24 Nov 13:45")


def test_schedules_that_meet_themselves_or_another_are_warnings() -> None:
    slow = at("*/5 * * * *", duration=timedelta(minutes=10))
    here = {"asset_id": "pump", "duration": timedelta(minutes=20)}
    report = checked(slow, at("0 3 * * *", "b", **here), at("10 3 * * *", "c", **here))
    (self_met,) = found(report, "overrunning")
    assert self_met.message == "runs for 10 min, its next start comes after 5 min"
    assert [one.schedules for one in found(report, "contending")] == [("b", "c"), ("c", "b")]
    assert report.exit_code() == 1


@pytest.mark.parametrize(
    ("expression", "zone", "code", "exit_code"),
    [
        ("0 0 30 2 *", "UTC", "never", 1),
        ("30 2 * * *", "America/New_York", "gap", 1),
        ("30 1 * * *", "America/New_York", "fold", 1),
        ("* 9 * * *", "UTC", "every_minute", 1),
        ("*/7 * * * *", "UTC", "uneven_step", 0),
    ],
)
def test_what_is_surely_not_meant_is_told(
    expression: str, zone: str, code: str, exit_code: int
) -> None:
    report = checked(at(expression, zone=zone))
    assert codes(report) == [code] and report.exit_code() == exit_code
    assert report.findings[0].message.startswith(f"{expression!r}: ")


@pytest.mark.parametrize(
    ("hotspots", "exit_code"), [(0, 0), (3, 1), (4, 1), (5, 2)], ids=["100", "78", "68", "58"]
)
def test_health_is_an_error_below_60_and_a_warning_below_75(hotspots: int, exit_code: int) -> None:
    fleet = [one for hour in range(hotspots) for one in crowd(f"0 {2 * hour} * * *", 12)]
    report = checked(*fleet)
    assert report.exit_code() == exit_code
    assert len(found(report, "health")) == (report.health.score < 75)


# -- idempotency -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "errors"), [(10, 0), (11, 1), (1500, 1)])
def test_more_than_ten_duplicates_in_an_hour_are_an_error(number: int, errors: int) -> None:
    report = checked(at("0 0 * * *"), evidence=Evidence({"app.task": number, "other": 3}))
    assert len(found(report, "many_duplicates")) == errors
    for one in found(report, "many_duplicates"):
        assert str(one) == f"app.task: {number:,} duplicates in last hour"
        assert one.schedules == ("a",)


def test_duplicates_of_a_task_without_schedule_are_told_too() -> None:
    report = checked(evidence=Evidence({"by.hand": 11}))
    assert [one.subject for one in found(report, "many_duplicates")] == ["by.hand"]


def test_a_task_is_told_once_for_all_its_schedules() -> None:
    fleet = [at("5 1 * * *"), at("5 2 * * *", "b"), at("5 3 * * *", "c", task="gone")]
    report = of_tasks(*fleet, a=CallFact(), b=CallFact(), c=CallFact(registered=False))
    assert [(one.code, one.schedules) for one in report.findings] == [
        ("not_idempotent", ("a", "b")), ("unregistered", ("c",)),
    ]  # fmt: skip
    assert report.exit_code() == 1


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE_ONE])
def test_an_overlap_rule_needs_a_lease(overlap: Overlap) -> None:
    one = at("5 1 * * *", overlap=overlap)
    assert codes(of_tasks(one, a=CallFact())) == ["not_idempotent", "blind_overlap"]
    assert codes(of_tasks(one)) == []


@pytest.mark.parametrize(
    ("fact", "severity"),
    [
        ({"one_key": True, "ttl": 26 * DAY / 24}, Severity.ERROR),
        ({"one_key": True, "ttl": 26 * DAY / 24, "doubt": "or not"}, Severity.WARNING),
        ({"one_key": True, "ttl": DAY}, None),
        ({"one_key": False, "ttl": 26 * DAY}, None),
    ],
)
def test_one_key_that_outlives_the_gap_swallows_firings(
    fact: Mapping[str, object], severity: Severity | None
) -> None:
    call = CallFact(idempotent=True, **fact)  # type: ignore[arg-type]
    report = of_tasks(at("5 1 * * *"), a=call)
    assert [one.severity for one in found(report, "swallowed")] == ([severity] if severity else [])


def test_what_runs_once_swallows_nothing() -> None:
    forever = CallFact(idempotent=True, one_key=True, ttl=366 * DAY)
    assert codes(of_tasks(at("0 0 29 2 *"), a=forever)) == []
    every = Schedule(id="a", task="app.task", timing=Interval(timedelta(hours=1)))
    assert codes(of_tasks(every, a=forever)) == ["swallowed"]


def test_a_key_that_cannot_be_computed_is_an_error() -> None:
    report = of_tasks(at("5 1 * * *"), a=CallFact(idempotent=True, error="KeyError: 'day'"))
    assert [str(one) for one in report.findings] == ["a: KeyError: 'day'"]
    assert report.exit_code() == 2


# -- selection -------------------------------------------------------------------------------------


def troubled() -> list[Schedule]:
    return [
        *crowd("0 8 * * *", 12), at("5 5 * * *", "x", args="[]"), at("5 5 * * *", "y", args="[]"),
        at("*/7 * * * *", "z", name="the seventh"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        (("duplicates",), {"duplicate"}),
        (("hotspots",), {"hotspot"}),
        (("idempotency",), set()),
        (("hotspots", "duplicates"), {"duplicate", "hotspot"}),
        (tuple(CHECKS), {"duplicate", "hotspot", "uneven_step"}),
    ],
)
def test_only_the_checks_that_are_asked_for_are_made(
    checks: tuple[str, ...], expected: set[str]
) -> None:
    report = checked(*troubled(), checks=checks)
    assert {*codes(report)} == expected
    assert {*report.checks} == {*checks}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("x", ["duplicate"]), ("y", ["duplicate"]), ("0 8 * * * 3", ["hotspot"]),
        ("z", ["hotspot", "uneven_step"]), ("the seventh", ["hotspot", "uneven_step"]),
    ],
)  # fmt: skip
def test_one_schedule_is_looked_at_in_its_fleet(asked: str, expected: list[str]) -> None:
    report = checked(*troubled(), only=asked)
    assert codes(report) == expected
    assert len(report.subjects) == 1 and report.active == 15


def test_a_row_that_cannot_be_read_can_be_asked_for() -> None:
    problems = [Problem(Place("table"), "wrong", "12 (nightly)"), Problem(Place("f", 3), "no", "b")]
    for asked in ("12", "12 (nightly)"):
        report = checked(at("0 0 * * *"), problems=problems, only=asked)
        assert [one.message for one in report.findings] == ["wrong"]


def test_an_unknown_schedule_is_refused_with_names_that_are_near() -> None:
    with pytest.raises(UnknownSchedule, match=r"fleet\.csv has no schedule 'the sevent'; did you"):
        checked(*troubled(), only="the sevent")
    with pytest.raises(UnknownSchedule) as caught:
        checked(only="anything")
    assert caught.value.near == ()


def test_every_finding_has_a_rule_of_a_check() -> None:
    assert {rule.check for rule in RULES.values()} == {*CHECKS}
    assert all(rule.help.endswith(".") and rule.one and rule.many for rule in RULES.values())


def test_order_of_findings_is_that_of_the_checks() -> None:
    inventory = Inventory("f", tuple(troubled()), (Problem(Place("f", 2), "no"),))
    report = validate(inventory, NOW, Capacity(14, "default"), checks=[*CHECKS][::-1])
    order = list(CHECKS)
    places = [order.index(one.check) for one in report.findings]
    assert places == sorted(places)
