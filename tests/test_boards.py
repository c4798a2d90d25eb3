"""The four boards: what each shows, by which limits, and where it leads."""

from __future__ import annotations

import json
import math
import re

import pytest
import yaml
from idemwatch.alerts.names import BOARDS, IDEMPOTENCY, OVERVIEW, PIPELINE, RUNBOOKS, SCHEDULES
from idemwatch.alerts.rule import Alert, Build
from idemwatch.alerts.rule_files import rule_groups
from idemwatch.alerts.thresholds import HOT, Thresholds
from idemwatch.dashboards import looks, promql
from idemwatch.dashboards.boards import board, boards
from idemwatch.dashboards.layout import Line, placed
from idemwatch.dashboards.options import Options
from idemwatch.dashboards.panels import stat, text
from idemwatch.dashboards.queries import queries, substituted
from idemwatch.exporter.catalogue import catalogue
from support.panels import MADE, columns, limits, panel
from support.venv import ROOT

PROVISIONING = ROOT / "dashboards" / "provisioning"
FIRST_SCREEN = 22
"""Lines that fit on a screen of 1500x1100, under Grafana's own bars."""
CHOSEN = Thresholds(hit_rate=0.125, task_hit_rate=0.5, health=82, hotspots=7.5)

uid = pytest.mark.parametrize("uid", BOARDS)


NUMBERS_OF_THE_OLD_PAGES = {
    OVERVIEW: [
        "Hit rate", "Schedule health", "Active schedules", "Hotspots", "Active tasks",
        "Scheduled tasks", "Firing alerts", "Breakdown by endpoint", "Duplicates prevented",
    ],
    IDEMPOTENCY: [
        "Checks and hits per hour", "Top duplicates", "Hit rate by scope", "Endpoints and scopes",
        "Total records", "Unique endpoints", "Duplicate tasks",
    ],
    SCHEDULES: [
        "Health score", "Grade", "Active schedules", "Hotspots", "Critical", "Recommendations",
        "Load of the day", "Critical conflicts", "All schedules", "Overdue and next runs",
    ],
    PIPELINE: [
        "Workers", "Queue length", "Beats live", "Collectors", "Scrape time", "Refresh time",
        "Stores", "Targets",
    ],
}  # fmt: skip
BELOW = {
    "Endpoints and scopes", "All schedules", "Overdue and next runs", "Collectors", "Scrape time",
    "Refresh time", "Recommendations",
}  # fmt: skip


@uid
def test_every_number_of_the_pages_that_it_replaces_has_its_panel(uid: str) -> None:
    titles = [one["title"] for one in MADE[uid]["panels"]]
    assert not set(NUMBERS_OF_THE_OLD_PAGES[uid]) - set(titles)


@uid
def test_nobody_scrolls_for_the_main_answer(uid: str) -> None:
    below = [
        one["title"]
        for one in MADE[uid]["panels"]
        if one["title"] in set(NUMBERS_OF_THE_OLD_PAGES[uid]) - BELOW
        and one["gridPos"]["y"] + 4 > FIRST_SCREEN
    ]
    assert not below


@uid
def test_stats_come_first_then_graphs_then_tables(uid: str) -> None:
    order = {"stat": 0, "table": 2, "text": 3}
    section: list[int] = []
    for one in MADE[uid]["panels"]:
        section = [] if one["type"] == "row" else [*section, order.get(one["type"], 1)]
        if one["title"] == "Half hours by load":  # the bands of the graph above it
            section.pop()
        assert section == sorted(section), one["title"]


@uid
def test_there_are_no_pies(uid: str) -> None:
    kinds = {one["type"] for one in MADE[uid]["panels"]}
    assert kinds <= {
        "stat", "timeseries", "barchart", "table", "state-timeline", "heatmap", "text", "row",
    }  # fmt: skip


def test_colours_change_exactly_at_the_thresholds_of_the_alerts() -> None:
    made = boards(Options(thresholds=CHOSEN))
    first = math.nextafter(0.125, 1)
    for uid in (OVERVIEW, IDEMPOTENCY):
        assert limits(panel(uid, "Hit rate", made, "stat")) == [(0, "green"), (first, "red")]
    assert limits(panel(OVERVIEW, "Schedule health", made)) == [(0, "red"), (82, "green")]
    assert limits(panel(SCHEDULES, "Health score", made)) == [(0, "red"), (82, "green")]
    for uid in (OVERVIEW, SCHEDULES):
        assert limits(panel(uid, "Hotspots", made)) == [(0, "green"), (8, "red")]
    graph = panel(OVERVIEW, "Hit rate", made, "timeseries")
    assert limits(graph) == [(0, "transparent"), (0.125, "red")]
    rates = json.dumps(panel(OVERVIEW, "Breakdown by endpoint", made)["fieldConfig"]["overrides"])
    assert f'{{"color": "red", "value": {math.nextafter(0.5, 1)}}}' in rates


def test_default_limits_are_those_of_the_alerts() -> None:
    assert limits(panel(OVERVIEW, "Hit rate", kind="stat"))[1][0] == math.nextafter(0.05, 1)
    assert limits(panel(OVERVIEW, "Schedule health"))[1][0] == 70
    assert limits(panel(OVERVIEW, "Hotspots"))[1][0] == 4  # the alert fires over three


def test_red_bars_are_the_hotspots() -> None:
    bars = panel(SCHEDULES, "Load of the day")
    assert limits(bars) == [(0, "blue"), (math.nextafter(HOT, 1), "red")]
    assert bars["options"]["xField"] == columns(bars)[0] == "Half hour"
    assert bars["transformations"][0]["options"]["sort"] == [{"field": "slot"}]
    assert bars["fieldConfig"]["defaults"]["color"] == {"mode": "thresholds"}
    assert bars["fieldConfig"]["defaults"]["custom"]["gradientMode"] == "scheme"


def test_the_hit_rate_is_that_of_the_alert() -> None:
    (one,) = panel(OVERVIEW, "Hit rate", kind="stat")["targets"]
    assert one["instant"] and "[5m]" in one["expr"]
    assert one["expr"].count("duplicate|running") == 2


def test_tables_show_what_the_old_ones_did() -> None:
    assert columns(panel(IDEMPOTENCY, "Top duplicates")) == [
        "Endpoint", "Scope", "Hits", "Records", "Max hits", "First seen", "Last hit",
    ]  # fmt: skip
    assert columns(panel(OVERVIEW, "Breakdown by endpoint")) == [
        "Endpoint", "Checks", "Hits", "Hit rate",
    ]  # fmt: skip
    loads = ["Load before", "Load after"]
    moves = ["Schedule", "Current", "Recommended", "Reason"]
    assert columns(panel(SCHEDULES, "Critical conflicts")) == [*moves, *loads]
    table = panel(SCHEDULES, "Recommendations", kind="table")
    assert columns(table) == [*moves, "Urgency", *loads]


def test_numbers_in_labels_are_read_as_numbers_before_they_are_renamed() -> None:
    first, second = panel(IDEMPOTENCY, "Top duplicates")["transformations"]
    assert first["id"] == "convertFieldType" and second["id"] == "organize"
    numbers = {one["targetField"] for one in first["options"]["conversions"]}
    assert numbers == {"records", "max_hits", "first_seen", "last_hit"}
    assert {one["destinationType"] for one in first["options"]["conversions"]} == {"number"}


def test_our_alerts_are_shown_and_the_watchdog_is_not() -> None:
    groups = [group for found in rule_groups(Build()).values() for group in found]
    alerts = [rule.name for group in groups for rule in group.rules if isinstance(rule, Alert)]
    shown = [name for name in alerts if re.fullmatch(promql.ALERTS_OF_OURS, name)]
    assert set(alerts) - set(shown) == {"Watchdog"}


def test_alerts_lead_to_runbooks_that_exist() -> None:
    table = panel(OVERVIEW, "Firing alerts", kind="table")
    assert f"{RUNBOOKS}/${{__data.fields.Alert}}.md" in json.dumps(table)
    assert "No alert fires" in json.dumps(table)


@uid
def test_links_reach_boards_that_exist_and_keep_time_and_variables(uid: str) -> None:
    others = [one["url"] for one in MADE[uid]["links"]]
    assert others == [f"/d/{other}" for other in BOARDS if other != uid]
    assert all(one["keepTime"] and one["includeVars"] for one in MADE[uid]["links"])
    for link in re.findall(r'"url": "(/d/[^"]+)"', json.dumps(MADE[uid]["panels"])):
        path, _, asked = link.partition("?")
        target = path.removeprefix("/d/")
        names = {one["name"] for one in MADE[target]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", asked)) <= names
        assert "${__url_time_range}" in asked and "${datasource:queryparam}" in asked


@uid
def test_links_of_rows_name_columns_that_the_table_has(uid: str) -> None:
    for one in MADE[uid]["panels"]:
        if one["type"] == "table":
            named = re.findall(r"__data\.fields\.(\w+)", json.dumps(one))
            assert set(named) <= set(columns(one)), one["title"]


@uid
def test_alerts_are_marked_on_graphs(uid: str) -> None:
    marks = MADE[uid]["annotations"]["list"][1]
    assert marks["enable"] and marks["target"]["expr"] == promql.FIRING
    assert marks["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@uid
def test_what_is_asked_for_is_exported_with_these_labels(uid: str) -> None:
    known = {name: set(labels) for one in catalogue() for name, labels in one.series.items()}
    for asked in queries(MADE[uid]):
        for name, matchers in re.findall(r"(idemwatch_\w+)\{([^}]*)\}", asked.expr):
            labels = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers))
            assert labels - {"job", "instance"} <= known[name], f"{asked.panel}: {name}"


@uid
def test_queries_are_given_with_their_variables_filled_in(uid: str) -> None:
    found = queries(MADE[uid], job="a", instance="b", rate_interval="7s", range="8s")
    assert found and not any("$" in one.expr.replace('"$1"', "") for one in found)
    assert any("[7s]" in one.expr for one in found) or uid == SCHEDULES


def test_a_variable_that_no_board_has_is_an_error() -> None:
    with pytest.raises(KeyError):
        substituted("up{job=~'$jop'}")


@uid
def test_boards_say_what_to_do_where_there_is_nothing(uid: str) -> None:
    about = MADE[uid]["panels"][-1]
    assert about["type"] == "text"
    assert "job `idemwatch`" in about["options"]["content"]
    assert "job `idemwatch-worker`" in about["options"]["content"]
    for one in MADE[uid]["panels"]:
        if one["type"] not in ("row", "text"):
            assert one["fieldConfig"]["defaults"]["noValue"] != "No data"


def test_a_line_that_does_not_fill_the_width_is_refused() -> None:
    with pytest.raises(ValueError, match="23 columns wide"):
        placed([Line(4, [(11, text("a", "b", "c")), (12, stat("a", "b", "up"))])])


def test_steps_begin_under_all_values() -> None:
    assert looks.steps("green", (-5, "red"))["steps"][0] == {"color": "green", "value": -5}
    assert [one["value"] for one in looks.steps("a", (0.5, "b"), (70.0, "c"))["steps"]] == [
        0, 0.5, 70,
    ]  # fmt: skip


def test_one_board_is_the_same_as_among_all() -> None:
    assert board(OVERVIEW, Options()) == MADE[OVERVIEW]


def test_grafana_is_given_the_boards_and_a_source_for_them() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())
    (source,) = sources["datasources"]
    assert (source["type"], source["isDefault"], source["url"]) == (
        "prometheus", True, "http://prometheus:9090",
    )  # fmt: skip
    providers = yaml.safe_load((PROVISIONING / "dashboards" / "idemwatch.yml").read_text())
    (provider,) = providers["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)


def test_the_last_tick_is_red_when_the_alert_on_beats_fires() -> None:
    groups = [group for found in rule_groups(Build()).values() for group in found]
    (alert,) = [rule for group in groups for rule in group.rules if rule.name == "BeatStalled"]
    first = limits(panel(PIPELINE, "Last beat tick"))[1][0]
    assert f"> {math.floor(first)}" in alert.expr and first > math.floor(first)
