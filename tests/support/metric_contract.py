"""What boards, rules and runbooks may ask for, and what they do ask for.

Everything is found by its place in the repository. Invariant: a place with nothing in it is an
error, so that a folder that moved is not taken for one without mistakes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from idemwatch.exporter.catalogue import Entry, catalogue
from idemwatch.idempotency.redelivery import UNAVAILABLE_HEADER, WAIT_HEADER

from .promql import ANY, TARGET, Query, Series

ROOT: Final = Path(__file__).parents[2]
BOARDS: Final = "dashboards/json/*.json"
RULES: Final = "alerts/rules/*.yml"
RUNBOOKS: Final = "alerts/runbooks/*.md"
PROMTOOL: Final = "alerts/promtool/*.yml"
PAGES: Final = ("README.md", "CONTRIBUTING.md", "docs/*.md", RUNBOOKS)
OF_PROMETHEUS: Final[Mapping[str, Series]] = {
    name: Series(TARGET, counts=False)
    for name in ("up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added")
}
OF_ITSELF: Final[Mapping[str, Series]] = {
    "prometheus_notifications_dropped_total": Series(TARGET),
    "prometheus_notifications_errors_total": Series(TARGET | {"alertmanager"}),
    "prometheus_notifications_sent_total": Series(TARGET | {"alertmanager"}),
}
"""What Prometheus tells of itself, where it is told to scrape itself."""
METRIC: Final = re.compile(r"\b(?:\w+:)?idemwatch_\w*[a-z0-9](?::\w+)?(?![\w*])")
SQL: Final = re.compile(r"^```sql$.*?^```$", re.MULTILINE | re.DOTALL)
_VALUES_OF: Final = re.compile(r"label_values\((?:(?P<query>.+),\s*)?(?P<label>\w+)\)", re.DOTALL)
_OF_COMMAND: Final = re.compile(r"promtool query (?:instant|range) \S+ '([^']+)'")
_RESULT_OF: Final = re.compile(r"query_result\((?P<query>.+)\)", re.DOTALL)


class Asked(NamedTuple):
    """A query and where it stands; `shown`: labels of its answer that are named beside it."""

    where: str
    text: str
    shown: frozenset[str] = frozenset()


def files(pattern: str) -> list[Path]:
    """All files of a pattern; none is an error."""
    found = sorted(ROOT.glob(pattern))
    assert found, f"there is no {pattern}"
    return found


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules with the key `record`, or all with the key `alert`."""
    loaded = [yaml.safe_load(path.read_text()) for path in files(RULES)]
    found = [
        rule
        for file in loaded
        for group in file["groups"]
        for rule in group["rules"]
        if kind in rule
    ]
    assert found, f"no rule has {kind}"
    return found


@cache
def exported() -> Mapping[str, Series]:
    """All that workers and the state exporter export, and Prometheus itself."""
    known = {**OF_PROMETHEUS, **(OF_ITSELF if _scrapes_itself() else {})}
    for entry in catalogue():
        for name, labels in entry.series.items():
            known[name] = _joined(known.get(name), entry, frozenset(labels) | TARGET)
    names = tuple(str(rule["alert"]) for rule in rules("alert"))
    values = {"alertname": names, "alertstate": ("pending", "firing")}
    alerts = Series(ANY, values, counts=False)
    return {**known, "ALERTS": alerts, "ALERTS_FOR_STATE": alerts}


def _scrapes_itself() -> bool:
    config = yaml.safe_load((ROOT / "alerts/prometheus.yml").read_text())
    targets = (
        target
        for job in config["scrape_configs"]
        for static in job.get("static_configs", ())
        for target in static["targets"]
    )
    return any(target == "localhost:9090" for target in targets)


def _joined(before: Series | None, entry: Entry, labels: frozenset[str]) -> Series:
    """Two sources may tell one metric, if both mean the same by it."""
    counts = entry.kind in ("counter", "histogram")
    if before is None:
        return Series(labels, entry.values, counts)
    assert (before.labels, before.counts) == (labels, counts), f"{entry.name} is told in two ways"
    both = {
        label: tuple(dict.fromkeys((*before.values.get(label, ()), *values)))
        for label, values in entry.values.items()
    }
    return Series(labels, both, counts)


@cache
def known() -> Mapping[str, Series]:
    """The same, and what the recording rules make of it."""
    found, left = dict(exported()), rules("record")
    while left:
        ready = [rule for rule in left if not _waits(rule, left)]
        assert ready, f"recorded from each other: {[rule['record'] for rule in left]}"
        for rule in ready:
            found[str(rule["record"])] = _recorded(rule, found)
        left = [rule for rule in left if rule not in ready]
    return found


def _waits(rule: Mapping[str, Any], left: Iterable[Mapping[str, Any]]) -> bool:
    return bool(Query(str(rule["expr"]), {}).named & {str(other["record"]) for other in left})


def _recorded(rule: Mapping[str, Any], found: Mapping[str, Series]) -> Series:
    query = Query(str(rule["expr"]), found)
    assert not query.problems, f"{rule['record']}: {query.problems}"
    values: dict[str, tuple[str, ...]] = {}
    for name in query.named:
        for label, some in found[name].values.items():
            if label in query.labels:
                values[label] = tuple(dict.fromkeys((*values.get(label, ()), *some)))
    return Series(query.labels | set(rule.get("labels", ())), values, counts=False)


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document, at any depth."""
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from objects(child)


def asked_by_boards() -> Iterator[Asked]:
    """The queries of panels, annotations and variables."""
    for path in files(BOARDS):
        board = json.loads(path.read_text())
        for panel in objects(board):
            if isinstance(panel.get("expr"), str):
                where = f"{path.name}: {panel.get('refId', panel.get('name', '?'))}"
                legend = re.findall(r"\{\{\s*(\w+)\s*\}\}", str(panel.get("legendFormat", "")))
                yield Asked(where, panel["expr"], frozenset(legend))
        for variable in board["templating"]["list"]:
            yield from _asked_by_variable(path.name, variable)


def tables() -> Iterator[tuple[str, set[str], set[str]]]:
    """Where each table stands, the columns that its answers have, and those that it speaks of."""
    for path in files(BOARDS):
        for panel in json.loads(path.read_text())["panels"]:
            for step in panel.get("transformations", ()):
                if step["id"] == "organize":
                    options = step["options"]
                    told = {*options["renameByName"], *options["excludeByName"]}
                    yield f"{path.name}: {panel['title']}", _columns(panel), told


def _columns(panel: Mapping[str, Any]) -> set[str]:
    """Columns of a panel's answers, as Grafana makes them from instant queries."""
    queries = [Query(str(target["expr"]), known()) for target in panel["targets"]]
    return {"Time", "Value"}.union(*(query.labels for query in queries))


def _asked_by_variable(board: str, variable: Mapping[str, Any]) -> Iterator[Asked]:
    if variable["type"] != "query":
        return
    query = variable["query"]
    text = query["query"] if isinstance(query, dict) else query
    where = f"{board}: variable {variable['name']}"
    if of := _VALUES_OF.fullmatch(text):
        if of["query"]:
            yield Asked(where, of["query"], frozenset({of["label"]}))
    elif of := _RESULT_OF.fullmatch(text):
        yield Asked(where, of["query"])
    else:
        raise AssertionError(f"{where}: {text} is neither label_values nor query_result")


def asked_by_alerts() -> Iterator[Asked]:
    """The expressions of alerts with the labels that their texts name, and queries in the texts."""
    for rule in rules("alert"):
        texts = " ".join(map(str, rule.get("annotations", {}).values()))
        own = {str(label) for label in rule.get("labels", ())}
        shown = set(re.findall(r"\$labels\.(\w+)", texts)) - own
        yield Asked(rule["alert"], str(rule["expr"]), frozenset(shown))
        for inner, after in re.findall(r"query `([^`]+)`(.*?)(?=query `|$)", texts, re.DOTALL):
            named = re.findall(r"(?<!\$labels)\.Labels\.(\w+)", after)
            yield Asked(f"{rule['alert']}: its text", inner, frozenset(named))


def asked_by_runbooks() -> Iterator[Asked]:
    """Queries in runbooks: blocks marked promql, one query a paragraph, and promtool's."""
    for path in files(RUNBOOKS):
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL):
            for query in re.split(r"\n\s*\n", block.strip()):
                yield Asked(path.name, query)
        for query in _OF_COMMAND.findall(path.read_text()):
            yield Asked(path.name, query)


def series_of_promtool() -> Iterator[Asked]:
    """The input series of the rules' tests."""
    for path in files(PROMTOOL):
        for test in objects(yaml.safe_load(path.read_text())):
            if "series" in test:
                yield Asked(path.name, str(test["series"]))


def problems(asked: Iterable[Asked]) -> list[str]:
    """All that is wrong with the queries, each in a line. No query at all is an error."""
    queries = list(asked)
    assert queries, "nothing is asked"
    found = []
    for where, text, shown in queries:
        query = Query(text, known())
        query.needs(shown, query.labels, "named beside it:")
        found += [f"{where}: {problem}: {' '.join(text.split())}" for problem in query.problems]
    return found


def named_in_pages() -> Iterator[tuple[str, str]]:
    """Page and name of every metric that a text names; SQL names tables and roles."""
    others = {WAIT_HEADER, UNAVAILABLE_HEADER, *_logins()}
    for path in (path for pattern in PAGES for path in files(pattern)):
        for match in METRIC.finditer(SQL.sub("", path.read_text())):
            if match[0] not in others:
                yield path.name, match[0]


def _logins() -> set[str]:
    """The roles and users that the files of docs/rights make."""
    return {name for path in files("docs/rights/*") for name in METRIC.findall(path.read_text())}
