"""Boards keep the rules of Grafana's dashboard-linter, and those of the model of Grafana 11 to 13.

Queries are looked at with the parser of Prometheus' grammar, and all of them by promtool.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from idemwatch.alerts.names import BOARDS
from idemwatch.dashboards import boards as made
from idemwatch.dashboards.queries import expressions, substituted
from promql_parser import Call, MatrixSelector, VectorSelector

MADE = made.boards()
PANELS = {
    f"{uid}: {panel['title']}": panel for uid in BOARDS for panel in MADE[uid]["panels"]
}  # fmt: skip
QUERIES = {
    f"{uid}: {where}": expr for uid in BOARDS for where, expr in expressions(MADE[uid])
}  # fmt: skip
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"none", "short", "percentunit", "locale", "s", "ops", "dateTimeAsIso", "dateTimeFromNow"}
"""Those of Grafana's that we use."""
OF_ALERTS = {"ALERTS", "ALERTS_FOR_STATE"}
"""Prometheus' own series of alerts: one about a whole job has no instance, and may have no job."""
LEGACY = {
    "__inputs", "cacheTimeout", "dataFormat", "displayMode", "error", "fontSize", "gnetId",
    "hideTimeOverride", "intervalFactor", "metric", "minSpan", "nullPointMode", "repeatDirection",
    "rows", "sharedCrosshair", "span", "step", "style", "tagsQuery", "target", "timeShift",
    "useTags", "yaxes",
}  # fmt: skip
DRAWN = [name for name, panel in PANELS.items() if panel["type"] not in ("row", "text")]

uid = pytest.mark.parametrize("uid", BOARDS)
drawn = pytest.mark.parametrize("name", DRAWN)
query = pytest.mark.parametrize("name", QUERIES)


def variables(uid: str) -> dict[str, Any]:
    return {one["name"]: one for one in MADE[uid]["templating"]["list"]}


@uid
def test_boards_have_a_variable_for_the_data_source(uid: str) -> None:
    found = variables(uid)["datasource"]
    assert (found["type"], found["query"], found["label"]) == (
        "datasource", "prometheus", "Data source",
    )  # fmt: skip


@uid
def test_other_variables_ask_that_source_each_time_the_range_changes(uid: str) -> None:
    for name, one in variables(uid).items():
        if name != "datasource":
            assert one["type"] == "query" and one["datasource"] == SOURCE
            assert (one["label"], one["allValue"], one["refresh"]) == (name.capitalize(), ".+", 2)
            assert one["multi"] and one["includeAll"]
            assert one["query"]["query"] == one["definition"]
            assert one["current"] == {"text": ["All"], "value": ["$__all"]}
    assert {"job", "instance"} <= set(variables(uid))


@uid
def test_variables_are_used_and_what_is_used_is_there(uid: str) -> None:
    used = {
        name for _, expr in expressions(MADE[uid]) for name in re.findall(r"\$([a-z]\w*)", expr)
    }
    assert used == set(variables(uid)) - {"datasource"}


@uid
def test_variables_are_asked_for_in_promql(uid: str) -> None:
    for one in variables(uid).values():
        if one["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", one["definition"])
            assert asked, one["definition"]
            assert isinstance(promql_parser.parse(substituted(asked[1])), VectorSelector)


@uid
def test_boards_cannot_be_edited_and_refresh(uid: str) -> None:
    board = MADE[uid]
    assert board["editable"] is False
    assert (board["refresh"], board["graphTooltip"], board["uid"]) == ("30s", 1, uid)
    assert board["tags"] == ["idemwatch"] and board["schemaVersion"] >= 41
    assert board["time"] == {"from": "now-1h", "to": "now"}


@pytest.mark.parametrize("name", PANELS)
def test_panels_have_a_title(name: str) -> None:
    assert PANELS[name]["title"].strip()


@pytest.mark.parametrize("name", [n for n, panel in PANELS.items() if panel["type"] != "row"])
def test_panels_tell_what_they_show(name: str) -> None:
    text = PANELS[name]["description"]
    assert len(text) > 20 and text[-1] == ".", text


@drawn
def test_panels_ask_the_chosen_source_and_have_a_query(name: str) -> None:
    assert PANELS[name]["datasource"] == SOURCE
    assert PANELS[name]["targets"]
    assert [one["refId"] for one in PANELS[name]["targets"]] == [
        "A", "B", "C", "D", "E",
    ][: len(PANELS[name]["targets"])]  # fmt: skip
    for one in PANELS[name]["targets"]:
        assert one["datasource"] == SOURCE and one["range"] is not one["instant"]


@drawn
def test_units_are_grafanas(name: str) -> None:
    panel = PANELS[name]
    if panel["type"] == "heatmap":
        assert panel["options"]["yAxis"]["unit"] in UNITS
        return
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for one in panel["fieldConfig"]["overrides"]:
        for entry in one["properties"]:
            assert entry["id"] != "unit" or entry["value"] in UNITS


@drawn
def test_tables_and_bars_are_of_one_moment_and_the_rest_of_a_range(name: str) -> None:
    panel = PANELS[name]
    for one in panel["targets"]:
        if panel["type"] in ("table", "barchart"):
            assert (one["instant"], one["format"]) == (True, "table")
        else:
            # The last point of a range is hours old at 30 days, and stays when all is gone.
            assert one["instant"] is (panel["type"] == "stat")


@drawn
def test_an_empty_table_is_one_query_and_says_so(name: str) -> None:
    """Two queries that find nothing are an empty grid in Grafana 12."""
    panel = PANELS[name]
    assert len(panel["fieldConfig"]["defaults"]["noValue"]) > 5
    if panel["type"] == "table":
        assert len(panel["targets"]) == 1


@drawn
def test_bands_show_their_mapped_texts(name: str) -> None:
    """Grafana merges by thresholds, if colours are by thresholds, and forgets the mappings."""
    panel = PANELS[name]
    if panel["type"] == "state-timeline":
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["color"]["mode"] == "fixed" and defaults["mappings"]
        assert all(one["options"] for one in defaults["mappings"])


@drawn
def test_texts_for_nothing_can_be_read_at_the_size_of_their_panel(name: str) -> None:
    """A figure's text is made as small as its panel is narrow: 12 pixels are about 6.6 wide."""
    panel = PANELS[name]
    if panel["type"] == "stat":
        room = panel["gridPos"]["w"] * 1168 / 24 - 8 - 18 - 16
        assert len(panel["fieldConfig"]["defaults"]["noValue"]) * 6.6 <= room


@drawn
def test_legends_of_tasks_stand_on_the_right_with_room(name: str) -> None:
    """Ten long names under a graph are more than the third of its height that they may take."""
    panel = PANELS[name]
    legends = [one["legendFormat"] for one in panel["targets"]]
    if panel["type"] == "timeseries" and "{{task}}" in legends:
        assert panel["options"]["legend"]["placement"] == "right"
        assert panel["gridPos"]["w"] >= 12 and panel["gridPos"]["h"] >= 6


@drawn
def test_a_heatmap_has_no_scale_that_would_be_infinite_while_it_is_empty(name: str) -> None:
    if PANELS[name]["type"] == "heatmap":
        assert PANELS[name]["options"]["legend"] == {"show": False}


def visited(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """A parsed query's nodes, each with those it is in."""
    yield node, above
    inner = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
    for one in [*inner, *getattr(node, "args", ()), getattr(node, "vector_selector", None)]:
        if one is not None:
            yield from visited(one, (*above, node))


def nodes(name: str) -> list[tuple[Any, tuple[Any, ...]]]:
    return list(visited(promql_parser.parse(substituted(QUERIES[name], rate_interval="61s"))))


def selectors(name: str) -> list[tuple[VectorSelector, tuple[Any, ...]]]:
    return [(node, above) for node, above in nodes(name) if isinstance(node, VectorSelector)]


@query
def test_the_parser_finds_every_metric(name: str) -> None:
    """Or the rules below would hold of nothing."""
    found = [node.name for node, _ in selectors(name)]
    assert len(found) == len(
        re.findall(r"\b(?:idemwatch_\w+|ALERTS\w*|up|scrape_\w+)\{", QUERIES[name])
    )
    assert found


@query
def test_every_selector_is_narrowed_to_job_and_instance(name: str) -> None:
    asked = promql_parser.parse(substituted(QUERIES[name], job="THE_JOB", instance="THE_INSTANCE"))
    for node, _ in visited(asked):
        if isinstance(node, VectorSelector) and node.name not in OF_ALERTS:
            matchers = {str(one) for one in node.matchers.matchers}
            assert any("THE_JOB" in one and "=~" in one for one in matchers), node
            assert any("THE_INSTANCE" in one and "=~" in one for one in matchers), node


@query
def test_counters_are_asked_for_their_growth(name: str) -> None:
    for node, above in selectors(name):
        if (node.name or "").endswith(("_total", "_bucket", "_count", "_sum")):
            assert isinstance(above[-1], MatrixSelector) and isinstance(above[-2], Call), node
            assert above[-2].func.name in ("rate", "increase"), node


@query
def test_rates_are_of_grafanas_rate_interval(name: str) -> None:
    for node, above in nodes(name):
        if isinstance(node, MatrixSelector) and above[-1].func.name in ("rate", "irate"):
            assert node.range.total_seconds() == 61, node


@query
def test_buckets_are_made_into_quantiles_or_a_heatmap(name: str) -> None:
    for node, above in selectors(name):
        if (node.name or "").endswith("_bucket") and "spread" not in name:
            calls = [one.func.name for one in above if isinstance(one, Call)]
            assert "histogram_quantile" in calls


def test_promtool_reads_every_query(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: apt-get install prometheus"
    rules = [
        {"record": f"query:{number}", "expr": substituted(expr)}
        for number, expr in enumerate(QUERIES.values())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [program, "check", "rules", "--lint=none", path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout and len(rules) > 100


def walked(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for name, one in value.items():
            yield from walked(one, f"{path}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from walked(one, f"{path}.{number}")


@uid
def test_nothing_is_null_and_nothing_is_of_an_older_grafana(uid: str) -> None:
    board = {**MADE[uid], "annotations": []}  # whose `target` is new
    for path, value in walked(board):
        above, _, last = path.rpartition(".")
        assert value is not None, path
        assert last not in LEGACY or above.endswith(".legend"), path
    assert 100 not in [panel.get("maxDataPoints") for panel in board["panels"]]


@uid
def test_lines_of_panels_fill_the_width_and_none_overlap(uid: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in MADE[uid]["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} over {taken[x, y]}"
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert taken.keys() == {(x, y) for x in range(24) for y in range(height)}


@uid
def test_panels_have_ids_of_their_own(uid: str) -> None:
    ids = [panel["id"] for panel in MADE[uid]["panels"]]
    assert ids == list(range(1, len(ids) + 1))


@drawn
def test_titles_fit_even_beside_the_open_menu(name: str) -> None:
    """A screen of 1500 pixels has 1200 beside the menu, and a letter about 7.3."""
    panel = PANELS[name]
    room = panel["gridPos"]["w"] * 1168 / 24 - 8 - 16 - 28
    assert len(panel["title"]) * 7.3 <= room, f"{panel['title']} needs more than {room:.0f}"


@drawn
def test_columns_of_tables_leave_room_for_names(name: str) -> None:
    panel = PANELS[name]
    widths = [
        entry["value"]
        for one in panel["fieldConfig"]["overrides"]
        for entry in one["properties"]
        if entry["id"] == "custom.width"
    ]
    names = len(panel["fieldConfig"]["overrides"]) - len(widths)
    if panel["type"] == "table":
        room = panel["gridPos"]["w"] * 1168 / 24 - 42 - sum(widths)
        assert names and room / names >= 180, f"{room:.0f} pixels for {names} columns"


@drawn
def test_names_of_tasks_are_not_cut(name: str) -> None:
    """They have no blank at which Grafana would break them."""
    panel = PANELS[name]
    if panel["type"] != "table" or "task" not in json.dumps(panel["transformations"]):
        return
    (named,) = [one["options"]["renameByName"] for one in panel["transformations"]
                if one["id"] == "organize"]  # fmt: skip
    columns = {
        one["matcher"]["options"]: next(
            (entry["value"] for entry in one["properties"] if entry["id"] == "custom.width"), None
        )
        for one in panel["fieldConfig"]["overrides"]
    }
    fixed = [width for width in columns.values() if width]
    room = panel["gridPos"]["w"] * 1168 / 24 - 42 - sum(fixed)
    width = columns[named["task"]] or room / (len(columns) - len(fixed))
    assert width >= 7.1 * len("facility.tasks.create_scheduled_reports") + 12


@drawn
def test_columns_are_wide_enough_for_their_heads(name: str) -> None:
    for one in PANELS[name]["fieldConfig"]["overrides"]:
        for entry in one["properties"]:
            if entry["id"] == "custom.width":
                assert entry["value"] >= 7.3 * len(one["matcher"]["options"]) + 16
