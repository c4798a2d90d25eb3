"""Reports as text, JSON, SARIF and JUnit XML, patches, and the file that a report goes to."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.report_file import require_folder, write_report
from idemwatch.idempotency.sarif import MOST_RESULTS
from idemwatch.scheduler.capacity import Capacity
from idemwatch.scheduler.changes import moves, without_duplicates
from idemwatch.scheduler.crontab_source import read_system_crontab
from idemwatch.scheduler.csv_source import read_csv
from idemwatch.scheduler.findings import RULES, Finding, Severity
from idemwatch.scheduler.idempotency_checks import Evidence
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.json_report import MOST_IDS, as_json, json_report, schema
from idemwatch.scheduler.junit_report import junit_report
from idemwatch.scheduler.patch import patch_of
from idemwatch.scheduler.place import Place
from idemwatch.scheduler.planner import plan
from idemwatch.scheduler.report import Report
from idemwatch.scheduler.sarif_report import sarif_report
from idemwatch.scheduler.terminal import Screen
from idemwatch.scheduler.text_report import text_report
from idemwatch.scheduler.validation import validate
from support.patching import apply

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ROOT = Path("/repo")
HEAD = "name,schedule,timezone,duration_estimate_seconds\n"
STRANGE = 'Zürich "<&>" \x1b[31m\ufffe\ud83d\ude00'.encode("utf-16", "surrogatepass").decode(
    "utf-16"
)


def inventory(rows: Sequence[str], path: str = "ops/fleet.csv") -> Inventory:
    return read_csv(path, HEAD + "".join(f"{row}\n" for row in rows))


def judged(rows: Sequence[str], path: str = "ops/fleet.csv", **options: Any) -> Report:
    return validate(inventory(rows, path), NOW, Capacity(14, "default"), **options)


def crowd(count: int, expression: str = "0 0 * * *") -> list[str]:
    return [f"job {number},{expression},UTC,60" for number in range(count)]


TROUBLED = [
    *crowd(12), "broken,61 * * * *,UTC,60", "seven,*/7 * * * *,UTC,60", "seven,*/7 * * * *,UTC,60",
    "slow,*/5 * * * *,UTC,1200", "night,30 2 * * *,America/New_York,60",
]  # fmt: skip


def text(report: Report, **options: Any) -> str:
    return "\n".join(text_report(report, **options))


# -- text ------------------------------------------------------------------------------------------


def test_summary_counts_and_names_what_was_found() -> None:
    told = text(judged(TROUBLED))
    for line in (
        "  Errors:   2", "  Warnings: 3", "  Info:     2",
        "  • broken, line 14: '61 * * * *': minute: ", "    • seven, line 15: ",
        "  • seven#2, line 16: means the same as seven (line 15), which is older",
        "  • 00:00 - 15 tasks (",
    ):  # fmt: skip
        assert line in told, told
    assert "Checking" not in told


def test_verbose_tells_of_each_check_and_of_what_was_not_asked() -> None:
    told = text(judged(crowd(3)), verbose=True)
    for line in ("Checking 3 active schedules...", "Checking for schedule hotspots...",
                 "  ok  No schedule hotspots found", "Health score: 100/100 (OK), grade A",
                 "All checks passed."):  # fmt: skip
        assert line in told
    unasked = Evidence(unasked=("neither",))
    assert "Not asked: neither" in text(judged(crowd(3), evidence=unasked))


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("size", [0, 1, 150, 5000])
def test_text_is_as_long_as_anybody_reads(size: int, verbose: bool) -> None:
    rows = [f"job {n},*/7 * * * *,UTC,60" for n in range(size)]
    told = text_report(judged(rows), verbose=verbose)
    assert len(told) < 90 and max(map(len, told)) <= 100
    counted = "1 active schedule\n" if size == 1 else f"{size:,} active schedules\n"
    assert counted in "\n".join(told)
    if size > 10:
        assert any(line.strip() == f"... and {size - 10:,} more" for line in told)


def test_the_hottest_come_first_where_there_are_many() -> None:
    rows = [row for hour in range(20) for row in crowd(11 + hour, f"0 {hour} * * *")]
    told = text(judged(rows)).splitlines()
    at = next(number for number, line in enumerate(told) if "the hottest first:" in line)
    assert told[at + 1].startswith("    • 19:00 - 30 tasks (214% load)")


def test_names_of_others_cannot_move_the_cursor() -> None:
    report = judged([f'"{"x" * 5000}\x1b[2J\nERRORS",61 * * * *,UTC,60'])
    told = text(report, verbose=True)
    assert "\x1b" not in told and "\nERRORS:\n" in told and max(map(len, told.splitlines())) <= 200


def test_colour_and_unicode_are_for_screens_that_have_them() -> None:
    report = judged(TROUBLED)
    assert "\x1b" not in text(report) and "\x1b[31m" in text(report, on=Screen(colour=True))
    assert text(report, on=Screen(unicode=False), verbose=True).isascii()


def test_one_schedule_is_told_with_its_next_times() -> None:
    told = text(judged(["daily,0 0 * * *,UTC,90", *crowd(2)], only="daily"))
    assert "Schedule:  daily: 0 0 * * * in UTC, task daily, 90 s a run, PENDING" in told
    assert "next due: Tue 2026-11-24 00:00, Wed 2026-11-25 00:00" in told and "00:00 (UTC)" in told


@pytest.mark.parametrize(
    ("dates", "told"),
    [
        ("2026-11-25,2026-11-27", "next due: Wed 2026-11-25 09:00, Thu 2026-11-26 09:00 (UTC)"),
        (",2026-11-24T09:00", "next due: never"),
        (",2026-11-24T09:01", "next due: Tue 2026-11-24 09:00 (UTC)"),
    ],
)
def test_a_schedule_is_due_within_its_dates_only(dates: str, told: str) -> None:
    rows = f"name,schedule,fromdate,uptodate\nsome,0 9 * * *,{dates}\n"
    found = read_csv("f.csv", rows)
    assert told in text(validate(found, NOW, Capacity(14, "default"), only="some"))


# -- JSON ------------------------------------------------------------------------------------------


def strict(part: Any) -> Any:
    """The schema, with every key that it does not describe refused."""
    if isinstance(part, list):
        return [strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    closed = {"additionalProperties": False} if "properties" in part else {}
    return {**{name: strict(one) for name, one in part.items()}, **closed}


def test_schema_describes_every_key_and_requires_it() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    changed = replace(
        judged(TROUBLED), changes=tuple(without_duplicates(inventory(TROUBLED).schedules))
    )
    for report in (judged([]), judged(TROUBLED), judged(TROUBLED, only="seven"), changed):
        jsonschema.Draft202012Validator(strict(schema())).validate(as_json(report))


def test_schema_tells_of_each_key() -> None:
    def untold(name: str, part: Any) -> list[str]:
        if not isinstance(part, dict):
            return []
        described = {"description", "$ref", "oneOf"} & part.keys()
        below = part.get("properties", {}) | {"item": part.get("items")}
        found = [] if described or name in ("item", "root") else [name]
        return found + [one for key, value in below.items() for one in untold(key, value)]

    assert untold("root", schema()) == []


def test_json_is_ascii_and_names_some_of_many_ids() -> None:
    told = json_report(judged([*crowd(150), "Zürich,61 * * * *,UTC,60"]))
    assert told.isascii()
    (hotspot,) = [one for one in json.loads(told)["findings"] if one["code"] == "hotspot"]
    assert (len(hotspot["schedules"]), hotspot["schedules_total"]) == (MOST_IDS, 150)


@pytest.mark.parametrize(
    ("rows", "result"), [([], "passed"), (crowd(12), "warnings"), (TROUBLED, "errors")]
)
def test_json_tells_the_result(rows: Sequence[str], result: str) -> None:
    assert as_json(judged(rows))["result"] == result


# -- SARIF -----------------------------------------------------------------------------------------


def sarif(report: Report, root: Path = ROOT) -> dict[str, Any]:
    log = json.loads(sarif_report(report, "1.2.3", root))
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    run: dict[str, Any] = log["runs"][0]
    return run


def test_sarif_has_what_the_standard_and_code_scanning_require() -> None:
    run = sarif(judged(TROUBLED))
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("idemwatch", "1.2.3")
    for rule in driver["rules"]:
        assert rule["help"]["text"] and rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note") and result["message"]["text"]
        assert len(result["locations"]) == 1 and result["partialFingerprints"]
    assert run["invocations"][0]["executionSuccessful"] is True
    prints = [json.dumps(one["partialFingerprints"]) for one in run["results"]]
    assert len(set(prints)) == len(prints)


def test_sarif_points_at_the_line() -> None:
    report = judged(["broken,61 * * * *,UTC,60"])
    (result,) = sarif(report)["results"]
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "ops/fleet.csv", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 2},
    }
    place = Place("ops/fleet.csv", 2, 8)
    moved = replace(report, findings=tuple(replace(one, place=place) for one in report.findings))
    (location,) = sarif(moved)["results"][0]["locations"]
    assert location["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 8}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/repo/ops/a b.csv", "ops/a%20b.csv"), ("/etc/crontab", "file:///etc/crontab"),
        ("table", "table"), ("../out.csv", "file:///out.csv"),
    ],
)  # fmt: skip
def test_sarif_tells_paths_as_seen_from_the_checkout(path: str, uri: str) -> None:
    (result,) = sarif(judged(["broken,61 * * * *,UTC,60"], path))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_sarif_keeps_the_worst_and_tells_what_it_left_out() -> None:
    many = [f"job {number},*/7 * * * *,UTC,60" for number in range(MOST_RESULTS + 10)]
    run = sarif(judged(["broken,61 * * * *,UTC,60", *many]))
    assert len(run["results"]) == MOST_RESULTS
    levels = [one["level"] for one in run["results"]]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    (told,) = run["invocations"][0]["toolExecutionNotifications"]
    assert "more findings were left out" in told["message"]["text"]


# -- JUnit -----------------------------------------------------------------------------------------


def test_junit_has_a_suite_for_each_check_and_a_failure_for_each_finding() -> None:
    report = judged(TROUBLED)
    root = ET.fromstring(junit_report(report))
    suites = {suite.get("name"): suite for suite in root}
    assert root.tag == "testsuites" and list(suites) == list(report.checks)
    assert int(root.get("failures", "")) == len(root.findall(".//failure"))
    assert int(root.get("tests", "")) == len(root.findall(".//testcase"))
    for suite in suites.values():
        assert int(suite.get("tests", "")) == len(suite) >= 1
        assert int(suite.get("failures", "")) == len(suite.findall(".//failure"))
    (broken,) = suites["rows"]
    assert (broken.get("file"), broken.get("line")) == ("ops/fleet.csv", "14")
    assert not suites["expressions"].findall("*/failure[@type='info: uneven_step']")
    names = [(one.get("classname"), one.get("name")) for one in root.iter("testcase")]
    assert len(set(names)) == len(names), "GitLab shows one of those that are called alike"


def test_junit_of_a_healthy_fleet_has_no_failure() -> None:
    root = ET.fromstring(junit_report(judged([])))
    assert root.get("failures") == "0" and len(root) == int(root.get("tests", ""))


@pytest.mark.parametrize("form", ["junit", "sarif", "json"])
def test_any_name_makes_a_valid_document(form: str) -> None:
    one = Finding(code="never", severity=Severity.WARNING, message=STRANGE, subject=STRANGE,
                  schedules=(STRANGE,), place=Place(STRANGE, 3))  # fmt: skip
    report = replace(judged([]), findings=(one,), source=STRANGE)
    document = {
        "junit": junit_report(report),
        "sarif": sarif_report(report, "1", ROOT),
        "json": json_report(report),
    }[form]
    assert document.isascii() and "rich" in document
    if form == "junit":
        assert len(ET.fromstring(document).findall(".//failure")) == 1
    else:
        json.loads(document)


def test_every_rule_is_in_sarif() -> None:
    assert [rule["id"] for rule in sarif(judged([]))["tool"]["driver"]["rules"]] == list(RULES)


# -- patches ---------------------------------------------------------------------------------------


def always(content: str) -> Callable[[str], str]:
    return lambda _: content


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_patch_of_a_csv_makes_the_changes_and_no_other(end: str, last: bool) -> None:
    rows = [f'"job, {n}","0 {n % 3},12 * * *",UTC,60' for n in range(40)]
    rows += ['"job, 3","0 0,12 * * *",UTC,60', *crowd(12)]
    content = (HEAD.strip() + "\n" + "\n".join(rows) + ("\n" if last else "")).replace("\n", end)
    before = read_csv("f.csv", content)
    changes = without_duplicates(before.schedules)
    found = plan(before.schedules, NOW, capacity=14)
    gone = {one.before.id for one in changes}
    changes += [one for one in moves(found.moves) if one.before.id not in gone]
    diff, rest = patch_of(changes, always(content))
    assert rest == [] and len(changes) > 5
    after = read_csv("f.csv", apply(diff, "f.csv", content)).schedules
    wanted = {one.before.id: one.after.timing for one in changes}
    kept = [one for one in before.schedules if one.id not in gone]
    assert [one.timing for one in after] == [wanted.get(one.id, one.timing) for one in kept]


def test_patch_of_a_crontab_changes_one_field() -> None:
    content = "# nightly\nMAILTO=ops\n0  0 * * *\troot\t/bin/job one\n@daily root /bin/two\n"
    before = read_system_crontab("cron", content)
    found = plan(before.schedules, NOW, capacity=1, strategy="spread")
    diff, rest = patch_of(moves(found.moves), always(content))
    assert rest == [] and len(found.moves) >= 1
    after = read_system_crontab("cron", apply(diff, "cron", content))
    becomes = {move.before.id: move.after.timing for move in found.moves}
    assert {one.timing for one in after.schedules} == {
        becomes.get(one.id, one.timing) for one in before.schedules
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('"two\nlines",0 0 * * *,UTC,60\n', "a row of two lines"),
        ("0 0 * * *,0 0 * * *,UTC,60\n", "a name that looks like an expression"),
    ],
)
def test_what_is_more_than_one_field_is_handed_back(content: str, why: str) -> None:
    before = read_csv("f.csv", HEAD + content + content)
    changes = without_duplicates(before.schedules)
    assert patch_of(changes, always(HEAD + content + content)) == ("", changes), why


def test_a_file_that_is_away_or_a_manifest_is_no_patch() -> None:
    def away(path: str) -> str:
        raise FileNotFoundError(path)

    rows = ["a,0 0 * * *,UTC,60", "a,0 0 * * *,UTC,60"]
    for path in ("f.csv", "f.yaml", "-"):
        changes = without_duplicates(inventory(rows, path).schedules)
        assert patch_of(changes, away) == ("", changes)


# -- the file --------------------------------------------------------------------------------------


def test_report_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    link = tmp_path / "latest.json"
    link.symlink_to(path)
    write_report(link, "new €")
    assert path.read_text("utf-8") == "new €" and link.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["latest.json", "report.json"]


def test_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_report(path, "half\ud800")
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_folders_that_are_none_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "none" / "r.json", tmp_path / "file" / "r.json"):
        with pytest.raises(ConfigurationError, match="--output: "):
            require_folder(path)
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_report(tmp_path / "none" / "r.json", "")
    require_folder(tmp_path / "r.json")


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_report(Path("/dev/null"), "report")
    assert Path("/dev/null").is_char_device()


def test_week_is_seven_days_from_the_moment_asked_for() -> None:
    week = as_json(judged([]))["week"]
    assert week == {"start": "2026-11-24T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    assert datetime.fromisoformat(week["end"]) - NOW == timedelta(days=7)
