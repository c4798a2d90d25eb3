"""Boards, rules and runbooks ask only for what is exported, with labels that it has.

`exporter/catalogue.py` knows what is exported; here it meets what is asked for.
"""

from __future__ import annotations

import re

import pytest
import yaml
from idemwatch.exporter.catalogue import catalogue
from support import metric_contract as contract
from support.metric_contract import Asked, problems
from support.promql import TARGET, Query, Series

KNOWN = {
    "a_total": Series(TARGET | {"task", "outcome"}, {"outcome": ["hit", "miss"]}),
    "b": Series(TARGET, counts=False),
    "h_bucket": Series(TARGET | {"le"}),
}


def test_boards_ask_for_what_is_exported() -> None:
    assert not problems(contract.asked_by_boards())


def test_tables_name_every_column_that_comes_and_no_other() -> None:
    found = list(contract.tables())
    assert found
    for where, come, told in found:
        assert come == told, f"{where}: {sorted(come ^ told)}"


def test_alerts_ask_for_what_is_exported_and_name_labels_that_they_have() -> None:
    assert not problems(contract.asked_by_alerts())


def test_recording_rules_ask_for_what_is_exported() -> None:
    rules = contract.rules("record")
    assert not problems(Asked(rule["record"], str(rule["expr"])) for rule in rules)


def test_runbooks_ask_for_what_is_exported() -> None:
    assert not problems(contract.asked_by_runbooks())


def test_rules_are_tested_with_series_that_exist() -> None:
    assert not problems(contract.series_of_promtool())


def test_recorded_names_are_of_the_levels_that_they_have() -> None:
    for rule in contract.rules("record"):
        level = str(rule["record"]).partition(":")[0].split("_")
        labels = contract.known()[rule["record"]].labels - {"job"}
        assert labels <= {*level}, f"{rule['record']} has the labels {sorted(labels)}"


def test_texts_name_metrics_that_exist() -> None:
    families = {entry.name for entry in catalogue()}
    wrong = [
        f"{page}: {name}"
        for page, name in contract.named_in_pages()
        if name not in contract.known() and name not in families
    ]
    assert not wrong


def test_alertmanager_speaks_of_alerts_that_exist() -> None:
    text = (contract.ROOT / "alerts/alertmanager.yml").read_text()
    alerts = {str(rule["alert"]) for rule in contract.rules("alert")}
    named = re.findall(r'alertname\s*=~?\s*"([^"]+)"', text)
    assert named
    for pattern in (one for several in named for one in several.split("|")):
        assert any(re.fullmatch(pattern, alert) for alert in alerts), pattern


def test_alertmanager_goes_by_labels_that_alerts_have() -> None:
    config = yaml.safe_load((contract.ROOT / "alerts/alertmanager.yml").read_text())
    given = set(config["route"]["group_by"])
    for rule in config["inhibit_rules"]:
        given |= set(rule["equal"])
    own = {label for rule in contract.rules("alert") for label in rule.get("labels", ())}
    answers = {
        label
        for rule in contract.rules("alert")
        for label in Query(str(rule["expr"]), contract.known()).labels
    }
    outside = {"alertname", "environment", "cluster"}  # external labels tell Prometheuses apart
    assert given <= own | answers | outside


# The measure itself: each of these mistakes is seen.


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("c_total", "c_total does not exist"),
        ("sum(rate(c_total[5m])) > 0", "c_total does not exist"),
        ('{__name__=~"a_.+"}', "names no series"),
        ('a_total{queue="x"}', "a_total matched by queue"),
        ('a_total{outcome="hot"}', "outcome is never 'hot'"),
        ('a_total{outcome=~"hit|hot"}', "outcome is never 'hot'"),
        ("sum by (queue) (a_total)", "sum by queue"),
        ("sum by (task) (sum by (outcome) (a_total))", "sum by task"),
        ("sum by (task) (sum(a_total))", "sum by task"),
        ("max without (queue) (b)", "max without queue"),
        ("topk by (queue) (3, a_total)", "topk by queue"),
        ("rate(b[5m])", "b is no counter"),
        ("histogram_quantile(0.9, sum(rate(h_bucket[5m])))", "histogram_quantile over le"),
        ("a_total / on (task) b", "on task"),
        ("a_total * on (job) group_left (zone) b", "group_left zone"),
        ('label_replace(b, "x", "$1", "task", "(.*)")', "label_replace from task"),
        ("sum(a_total", "cannot be parsed"),
        ("sum(a_total) by task", "cannot be parsed"),
    ],
)
def test_a_mistake_is_seen(query: str, problem: str) -> None:
    assert any(problem in told for told in Query(query, KNOWN).problems)


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        (
            'sum by (task) (rate(a_total{outcome=~"hit|miss", job=~"$job"}[$__rate_interval]))',
            "task",
        ),
        ("increase(a_total[${__range_s}s])", "instance job outcome task"),
        ("max without (instance) (b) > 3", "job"),
        ("sum(a_total)", ""),
        ("sum(a_total) or vector(0)", ""),
        ("sum by (task) (a_total) / sum by (task) (a_total)", "task"),
        ("a_total / ignoring (outcome) a_total", "instance job task"),
        ("a_total / on (task) a_total", "task"),
        ("a_total * on (job) group_left () b", "instance job outcome task"),
        ("sum by (task) (a_total) and on () (b > 1)", "task"),
        ("100 * b", "instance job"),
        ("topk(5, sum by (task) (a_total))", "task"),
        ("histogram_quantile(0.9, sum by (le, job) (rate(h_bucket[5m])))", "job"),
        ('label_replace(b, "x", "$1", "job", "(.*)")', "instance job x"),
        ('absent(b{job="x"})', "job"),
        ('count_values("version", b)', "version"),
        ("time() - max(b)", ""),
        ("max_over_time((sum by (task) (a_total))[1h:1m])", "task"),
    ],
)
def test_the_labels_of_an_answer_are_known(query: str, labels: str) -> None:
    found = Query(query, KNOWN)
    assert not found.problems
    assert sorted(found.labels) == labels.split()


def test_nothing_to_check_is_a_failure(tmp_path: object) -> None:
    with pytest.raises(AssertionError, match="nothing is asked"):
        problems(())
    with pytest.raises(AssertionError, match="there is no"):
        contract.files("dashboards/no-such-folder/*.json")
