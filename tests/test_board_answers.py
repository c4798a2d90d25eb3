"""What the boards ask, answered by Prometheus over series that are known."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from idemwatch.alerts.names import IDEMPOTENCY, OVERVIEW, PIPELINE, SCHEDULES
from idemwatch.dashboards import looks
from idemwatch.dashboards.queries import substituted
from support.panels import panel


def answer(expr: str, series: Mapping[str, Any], wanted: Mapping[str, float], at: Path) -> None:
    """`expr` over constant series is what is wanted, says promtool."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: apt-get install prometheus"
    test = {
        "interval": "15s",
        "input_series": [
            {"series": name, "values": value if "_" in str(value) else f"{value}x40"}
            for name, value in series.items()
        ],
        "promql_expr_test": [{
            "expr": substituted(expr), "eval_time": "10m",
            "exp_samples": [{"labels": name, "value": value} for name, value in wanted.items()],
        }],
    }  # fmt: skip
    path = at / "test.yml"
    path.write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(
        [program, "test", "rules", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


OF = 'job="idemwatch", instance="a"'
OF_OTHER = 'job="idemwatch", instance="b"'


def first_query(uid: str, title: str, kind: str = "") -> str:
    return str(panel(uid, title, kind=kind)["targets"][0]["expr"])


def claims(outcome: str, step: int, task: str = "t") -> dict[str, Any]:
    labels = f'task="{task}", scope="global", outcome="{outcome}"'
    return {f'idemwatch_claims_total{{job="w", instance="a", {labels}}}': f"0+{step}"}


def test_the_hit_rate_divides_sums_and_leaves_out_what_stands_outside(tmp_path: Path) -> None:
    series = {
        **claims("granted", 80), **claims("duplicate", 10), **claims("running", 5, "other"),
        **claims("taken_over", 5), **claims("unavailable", 900), **claims("bypassed", 900),
    }  # fmt: skip
    answer(first_query(OVERVIEW, "Hit rate", "stat"), series, {"{}": 0.15}, tmp_path)


@pytest.mark.parametrize("series", [{}, claims("granted", 0)], ids=["no worker", "no traffic"])
def test_the_hit_rate_of_nothing_is_zero(tmp_path: Path, series: Mapping[str, Any]) -> None:
    answer(first_query(OVERVIEW, "Hit rate", "stat"), series, {"{}": 0}, tmp_path)


def test_the_breakdown_has_each_task_in_one_row(tmp_path: Path) -> None:
    series = {**claims("granted", 3), **claims("duplicate", 1), **claims("granted", 1, "idle")}
    query = first_query(OVERVIEW, "Breakdown by endpoint").replace("$__range", "5m")
    series |= claims("duplicate", 0, "idle")
    rows = {'{task="t", hits="20", rate="0.25"}': 80, '{task="idle", hits="0", rate="0"}': 20}
    answer(query, series, rows, tmp_path)


def test_top_duplicates_have_all_their_values_in_one_row(tmp_path: Path) -> None:
    def of(metric: str, value: float, task: str = "t") -> dict[str, float]:
        labels = f'{OF}, task="{task}", scope="user"'
        return {f"idemwatch_endpoint_{metric}{{{labels}}}": value}

    series = {
        **of("hits", 12), **of("max_hits", 3), **of("records", 9),
        **of("first_seen_timestamp_seconds", 1759305600),
        **of("hits", 0, "never"), **of("max_hits", 0, "never"),
    }  # fmt: skip
    row = (
        '{task="t", scope="user", max_hits="3", records="9", first_seen="1759305600000", '
        'last_hit="0"}'
    )
    answer(first_query(IDEMPOTENCY, "Top duplicates"), series, {row: 12}, tmp_path)


def test_moves_have_both_loads_in_one_row_whatever_two_exporters_tell(tmp_path: Path) -> None:
    labels = 'schedule="s", current="0 0 * * *", recommended="15 0 * * *", urgency="critical", '
    labels += 'reason="hotspot"'
    series = {
        f"idemwatch_schedule_recommendation_load_{when}_ratio{{{of}, {labels}}}": value
        for when, value in (("before", 0.85), ("after", 0.45)) for of in (OF, OF_OTHER)
    }  # fmt: skip
    row = f'{{{labels}, after="0.45"}}'
    answer(first_query(SCHEDULES, "Recommendations", "table"), series, {row: 0.85}, tmp_path)
    row = row.replace('urgency="critical", ', "")
    answer(first_query(SCHEDULES, "Critical conflicts"), series, {row: 0.85}, tmp_path)
    answer(first_query(SCHEDULES, "Critical", "stat"), {
        **series, f"idemwatch_schedule_health_score{{{OF}}}": 40,
    }, {"{}": 1}, tmp_path)  # fmt: skip


def test_no_recommendations_are_none_but_nothing_without_an_exporter(tmp_path: Path) -> None:
    query = first_query(SCHEDULES, "Recommendations", "stat")
    answer(query, {f"idemwatch_schedule_health_score{{{OF}}}": 98}, {"{}": 0}, tmp_path)
    answer(query, {}, {}, tmp_path)


def test_a_schedule_that_never_ran_has_a_row_too(tmp_path: Path) -> None:
    labels = f'{OF}, schedule="s", task="t"'
    series = {f"idemwatch_schedule_expected_duration_seconds{{{labels}}}": 2.5}
    row = (
        '{schedule="s", task="t", next_run="0", last_run="0", last_success="0", every="0", '
        'takes="2.5"}'
    )
    answer(first_query(SCHEDULES, "Overdue and next runs"), series, {row: 0}, tmp_path)


def test_runs_are_sorted_by_how_late_they_are_and_then_by_when_they_are_due() -> None:
    assert panel(SCHEDULES, "Overdue and next runs")["options"]["sortBy"] == [
        {"displayName": "Late", "desc": True}, {"displayName": "Next run", "desc": False},
    ]  # fmt: skip


def test_of_two_grades_the_better_is_told_as_of_two_scores(tmp_path: Path) -> None:
    def grades(of: str, mine: str) -> dict[str, float]:
        return {
            f'idemwatch_schedule_health_grade{{{of}, grade="{grade}"}}': float(grade == mine)
            for grade in looks.GRADES
        }

    series = {**grades(OF, "B"), **grades(OF_OTHER, "D")}
    answer(first_query(SCHEDULES, "Grade"), series, {"{}": 2}, tmp_path)


@pytest.mark.parametrize(("up", "down"), [((1, 1), 0), ((1, 0), 1)])
def test_stores_down_are_counted(tmp_path: Path, up: tuple[int, int], down: int) -> None:
    series = {
        f'idemwatch_store_up{{{OF}, store="{store}"}}': value
        for store, value in zip(("redis", "postgres"), up, strict=True)
    }
    answer(first_query(OVERVIEW, "Stores down"), series, {"{}": down}, tmp_path)


def test_alerts_tell_what_they_are_about_and_since_when(tmp_path: Path) -> None:
    def alert(name: str, more: str = "") -> dict[str, float]:
        labels = f'alertname="{name}", severity="critical", job="w"{more}'
        return {
            f'ALERTS{{{labels}, alertstate="firing"}}': 1,
            f"ALERTS_FOR_STATE{{{labels}}}": 60,
        }

    series = {
        **alert("IdempotencyHitRateHigh"), **alert("StoreDown", ', store="redis"'),
        **alert("Watchdog"), **alert("SomethingElse"),
    }  # fmt: skip
    wanted = {
        '{alertname="IdempotencyHitRateHigh", severity="critical"}': 60000,
        '{alertname="StoreDown", severity="critical", about="redis"}': 60000,
    }
    answer(first_query(OVERVIEW, "Firing alerts", "table"), series, wanted, tmp_path)
    answer(first_query(OVERVIEW, "Firing alerts", "stat"), series, {"{}": 2}, tmp_path)
    answer(first_query(OVERVIEW, "Firing alerts", "stat"), alert("Watchdog"), {"{}": 0}, tmp_path)


def test_breakers_stand_even_where_there_is_no_worker(tmp_path: Path) -> None:
    query = first_query(IDEMPOTENCY, "Circuit breakers")
    answer(query, {}, {'{store="no worker"}': 0}, tmp_path)
    series = {'idemwatch_circuit_open{job="w", instance="a", store="redis"}': 1.0}
    answer(query, series, {'{store="redis"}': 1}, tmp_path)


STOOD_IN = [
    (IDEMPOTENCY, "Circuit breakers", "idemwatch_circuit_open", '{store="no worker"}'),
    (PIPELINE, "Stores", "idemwatch_store_up", '{store="all"}'),
    (PIPELINE, "Targets", "up", '{instance="nothing is scraped"}'),
    (SCHEDULES, "Grade over time", "idemwatch_schedule_health_score", "{}"),
]


@pytest.mark.parametrize(("uid", "title", "metric", "row"), STOOD_IN)
def test_the_time_before_an_install_is_blank_and_not_a_band_that_says_so(
    tmp_path: Path, uid: str, title: str, metric: str, row: str
) -> None:
    """The end of the time that a board shows is where it is known by now."""
    query = first_query(uid, title)
    value = {"Circuit breakers": 0, "Grade over time": 0}.get(title, -1)
    answer(query, {}, {row: value}, tmp_path)
    assert query.count("@ end()") == 1
    series = {f'{metric}{{job="idemwatch", instance="a", store="redis"}}': "1x4 stale _x35"}
    answer(query.replace("@ end()", "@ 30"), series, {}, tmp_path)


def test_a_task_is_unprotected_if_some_worker_runs_it_so(tmp_path: Path) -> None:
    series = {
        f'idemwatch_enabled{{job="w", instance="{instance}", task="{task}"}}': value
        for instance, task, value in (("a", "t", 1.0), ("b", "t", 0.0), ("a", "kept", 1.0))
    }
    query = first_query(PIPELINE, "Tasks without protection")
    answer(query, series, {'{task="t"}': 0}, tmp_path)
