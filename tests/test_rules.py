"""The rules: committed as they are built, each alert tested by promtool where it fires and not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.alerts.names import BOARDS, GRAFANA, RUNBOOKS
from idemwatch.alerts.rule import SEVERITIES, Alert, Build, Record
from idemwatch.alerts.rule_files import ALERTS as ALERTS_FILE
from idemwatch.alerts.rule_files import RECORDING, rule_groups, texts
from idemwatch.alerts.thresholds import RANGES, Thresholds
from idemwatch.alerts.whole_files import write
from idemwatch.alerts.windows import MOST_SCALE, TimeScale, duration
from support.alerting import ALERTS, attempt, run

BUILD = Build()
CASES = sorted((ALERTS / "promtool").glob("*.yml"))
KINDS = ("fires", "just below", "silent")
LEAST_SAMPLES = 4
SCRAPE_SECONDS = 15
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# A threshold just over or under its default, and the alert that must notice.
MOVED = {
    "hit_rate": ("IdempotencyHitRateHigh", 0.048, 0.11),
    "least_checks": ("IdempotencyHitRateHigh", 99, 10_000),
    "task_hit_rate": ("IdempotencyTaskHitRateHigh", 0.248, 0.34),
    "task_least_checks": ("IdempotencyTaskHitRateHigh", 19, 10_000),
    "duplicates_per_hour": ("IdempotencyDuplicatesPerHour", 9, 11),
    "health": ("ScheduleHealthLow", 69, 71),
    "hotspots": ("ScheduleHotspots", 2, 4),
}


def _alerts(build: Build = BUILD) -> list[Alert]:
    rules = [rule for group in rule_groups(build)[ALERTS_FILE] for rule in group.rules]
    return [rule for rule in rules if isinstance(rule, Alert)]


def _expressions(build: Build = BUILD) -> list[str]:
    groups = [group for file in rule_groups(build).values() for group in file]
    return [rule.expr for group in groups for rule in group.rules]


def _cases() -> list[dict[str, Any]]:
    return [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]


def _seconds(text: str) -> float:
    return sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[smhd])", text))


NAMES = [alert.name for alert in _alerts()]
GROUPS = [group.name for file in rule_groups(BUILD).values() for group in file]
"""promtool evaluates groups in any order unless it is told one, and then results vary."""


def test_committed_rules_are_what_is_built() -> None:
    built = texts(BUILD)
    committed = {path.name: path.read_text() for path in (ALERTS / "rules").iterdir()}
    assert committed == built, "make rules"


@pytest.mark.parametrize("factor", [1, 7, 60, MOST_SCALE])
def test_promtool_accepts_the_rules_at_any_scale(tmp_path: Path, factor: float) -> None:
    build = replace(BUILD, scale=TimeScale(factor), job="a.job", worker_job="other:job/w-1")
    write(tmp_path, texts(build))
    answer = run("promtool", "check", "rules", tmp_path / RECORDING, tmp_path / ALERTS_FILE)
    assert answer.count("SUCCESS") == 2


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_promtool_finds_each_case_as_told(path: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", path)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Watchdog"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_alert_has_a_case_of_each_kind(name: str, kind: str) -> None:
    found = [case for case in _cases() if case["name"].startswith(f"{name}: {kind}")]
    assert found
    for case in found:
        checks = [one for one in case["alert_rule_test"] if one["alertname"] == name]
        assert checks
        assert any(one["exp_alerts"] for one in checks) == (kind == "fires")


def test_no_case_is_of_an_alert_that_is_not_there() -> None:
    told = {one["alertname"] for case in _cases() for one in case.get("alert_rule_test", ())}
    assert told == set(NAMES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_cases_evaluate_the_groups_in_order(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["group_eval_order"] == GROUPS


def test_each_threshold_can_be_moved() -> None:
    assert set(MOVED) == set(RANGES)


@pytest.mark.parametrize(
    ("threshold", "value"), [(name, value) for name, moved in MOVED.items() for value in moved[1:]]
)
def test_a_moved_threshold_is_noticed_by_a_case(
    tmp_path: Path, threshold: str, value: float
) -> None:
    build = replace(BUILD, thresholds=replace(Thresholds(), **{threshold: value}))
    write(tmp_path, texts(build))
    name = MOVED[threshold][0]
    cases = [case for case in _cases() if case["name"].startswith(f"{name}:")]
    test = tmp_path / "cases.yml"
    document = {
        "rule_files": [RECORDING, ALERTS_FILE],
        "evaluation_interval": "15s",
        "group_eval_order": GROUPS,
        "tests": cases,
    }
    test.write_text(yaml.safe_dump(document))
    done = attempt("promtool", "test", "rules", test)
    assert done.returncode == 1
    assert f"alertname: {name}" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert.name)
def test_an_alert_tells_what_whoever_is_woken_needs(alert: Alert) -> None:
    rule = alert.yaml(BUILD)
    told = rule["annotations"]
    assert rule["labels"]["severity"] in SEVERITIES
    assert told["summary"].strip()
    assert "$value" in told["description"]
    assert told["runbook_url"] == f"{RUNBOOKS}/{alert.name}.md"
    board = told["dashboard_url"].removeprefix(f"{GRAFANA}/d/")
    assert re.match(r"[\w-]+", board)[0] in BOARDS  # type: ignore[index]
    assert ("var-task={{ $labels.task" in board) == ("task" in _labels(alert))


def _labels(alert: Alert) -> set[str]:
    """The labels that the board about idempotency can be narrowed by."""
    if alert.board == BOARDS[1] and re.search(r"by \([^)]*task|^(round\()?task:", alert.expr):
        return {"task"}
    return set()


def test_alerts_are_named_once() -> None:
    assert len(NAMES) == len(set(NAMES))


def test_recorded_series_are_level_metric_operations() -> None:
    rules = [rule for group in rule_groups(BUILD)[RECORDING] for rule in group.rules]
    names = [rule.name for rule in rules if isinstance(rule, Record)]
    assert len(names) == len(set(names)) == len(rules)
    for name in names:
        assert re.fullmatch(r"(task_scope|task|scope|job):idemwatch_\w+:\w+", name)


def test_every_recorded_series_that_is_used_is_recorded() -> None:
    recorded = {rule.name for group in rule_groups(BUILD)[RECORDING] for rule in group.rules}
    used = set(re.findall(r"\b\w+:idemwatch_\w+:\w+", "\n".join(_expressions())))
    assert used <= recorded


def test_every_window_holds_scrapes_enough() -> None:
    windows = re.findall(r"\[(\w+)\]", "\n".join(_expressions()))
    assert windows
    assert min(map(_seconds, windows)) >= 5 * LEAST_SAMPLES * SCRAPE_SECONDS


def test_every_scaled_window_holds_scrapes_of_a_second() -> None:
    build = replace(BUILD, scale=TimeScale(MOST_SCALE))
    windows = re.findall(r"\[(\w+)\]", "\n".join(_expressions(build)))
    assert min(map(_seconds, windows)) >= LEAST_SAMPLES


def test_the_scale_divides_every_window() -> None:
    scaled = replace(BUILD, scale=TimeScale(60))
    pattern = r"\[(\w+)\]|offset (\w+)"
    for real, fast in zip(_expressions(), _expressions(scaled), strict=True):
        before = [_seconds("".join(one)) for one in re.findall(pattern, real)]
        after = [_seconds("".join(one)) for one in re.findall(pattern, fast)]
        assert after == [one / 60 for one in before]


@pytest.mark.parametrize("key", ["for", "keep_firing_for"])
def test_the_scale_divides_every_wait_down_to_what_takes_real_time(key: str) -> None:
    scaled = replace(BUILD, scale=TimeScale(60))
    for alert in _alerts():
        real, fast = alert.yaml(BUILD).get(key, "0s"), alert.yaml(scaled).get(key, "0s")
        least = alert.real_seconds if key == "for" else 0
        assert _seconds(fast) == max(_seconds(real) / 60, least)


def test_scaled_groups_are_evaluated_each_second() -> None:
    scaled = replace(BUILD, scale=TimeScale(60))
    groups = [group.yaml(scaled) for file in rule_groups(scaled).values() for group in file]
    assert {group["interval"] for group in groups} == {"1s", "2s"}
    assert "interval" not in rule_groups(BUILD)[ALERTS_FILE][0].yaml(BUILD)


def test_state_of_several_exporters_is_their_largest_and_never_their_sum() -> None:
    for expr in _expressions():
        for place in re.finditer(r'idemwatch_\w+\{job="idemwatch"[,}]', expr):
            before = expr[: place.start()]
            assert re.search(r"max by \([\w, ]+\) \((max_over_time\()?$", before), expr


def test_every_series_is_of_a_named_job() -> None:
    for expr in _expressions():
        for series in re.findall(r"\b(?:\w+:)?idemwatch_\w+(?::\w+)?(.)", expr):
            assert series == "{", expr


@pytest.mark.parametrize(
    ("seconds", "factor", "text"),
    [
        (300, 1, "5m"),
        (5400, 1, "1h30m"),
        (86400, 1, "1d"),
        (300, 60, "5s"),
        (86400, 60, "24m"),
        (120, 75, "1s600ms"),
        (15, 60, "1s"),
    ],
)
def test_windows_are_written_as_prometheus_reads_them(
    seconds: float, factor: float, text: str
) -> None:
    assert TimeScale(factor).window(seconds) == text


def test_a_window_is_not_shorter_than_what_takes_real_time() -> None:
    assert TimeScale(60).window(120, least=20) == "20s"
    assert TimeScale(60).number(120, least=20) == "20"
    assert TimeScale().window(120, least=20) == "2m"


@pytest.mark.parametrize("factor", [0, 0.5, -1, MOST_SCALE + 1, float("inf"), float("nan")])
def test_an_absurd_scale_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"time scale: .* is not from 1 to 75"):
        TimeScale(factor)


def test_durations_lose_nothing() -> None:
    for milliseconds in (1, 999, 1000, 61_001, 86_400_000, 90_061_001):
        assert round(1000 * _seconds(duration(milliseconds))) == milliseconds


def test_large_thresholds_are_written_in_full() -> None:
    build = replace(BUILD, thresholds=replace(Thresholds(), least_checks=123_456_789))
    assert ">= 123456789" in texts(build)[ALERTS_FILE]
