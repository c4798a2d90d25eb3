"""prometheus.yml and alertmanager.yml, as the real programs understand them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.alerts.names import STATE_JOB, WORKER_JOB
from idemwatch.alerts.rule import Alert, Build
from idemwatch.alerts.rule_files import ALERTS as ALERTS_FILE
from idemwatch.alerts.rule_files import rule_groups
from support.alerting import ALERTS, Alertmanager, run, running_alertmanager
from support.stores import wait_until

CONFIG = ALERTS / "alertmanager.yml"
README = ALERTS.parent / "README.md"
SECRETS = "/run/secrets/"
ALL = {
    rule.name: rule.severity
    for group in rule_groups(Build())[ALERTS_FILE]
    for rule in group.rules
    if isinstance(rule, Alert)
}
RECEIVERS = {
    "critical": "pagerduty,slack",
    "warning": "slack",
    "info": "email",
    "none": "dead-man",
}
STATE = {"job": STATE_JOB}
WORKER = {"job": WORKER_JOB}
BLIND = [name for name in ALL if re.match("Schedule|BeatStalled|StoreDown|NoW|Collector", name)]
# What is told (its cause), and what then is not; labels beside the job.
INHIBITED: list[tuple[dict[str, str], dict[str, str]]] = [
    *(({"alertname": "ExporterDown"} | STATE, {"alertname": name} | STATE) for name in BLIND),
    ({"alertname": "BeatStalled"} | STATE, {"alertname": "ScheduleOverdue", "task": "t"} | STATE),
    ({"alertname": "ScheduleHealthLow"} | STATE, {"alertname": "ScheduleHotspots"} | STATE),
    (
        {"alertname": "CollectorFailing", "collector": "queues"} | STATE,
        {"alertname": "CollectorStale", "collector": "queues"} | STATE,
    ),
    ({"alertname": "NoWorkers"} | STATE, {"alertname": "WorkerDown", "instance": "w"} | WORKER),
    *(
        (
            {"alertname": "StoreDown", "store": store} | STATE,
            {"alertname": "CollectorFailing", "collector": collector} | STATE,
        )
        for store, collectors in {
            "postgres": ("postgres", "records", "schedules", "beats"),
            "redis": ("redis", "redis_records", "workers"),
            "broker": ("broker", "queues"),
        }.items()
        for collector in collectors
    ),
    ({"alertname": "StoreDown", "store": "postgres"} | STATE, {"alertname": "BeatStalled"} | STATE),
    ({"alertname": "StoreDown", "store": "broker"} | STATE, {"alertname": "BeatStalled"} | STATE),
    (
        {"alertname": "StoreDown", "store": "redis"} | STATE,
        {"alertname": "CircuitOpen", "store": "redis"} | WORKER,
    ),
    (
        {"alertname": "StoreDown", "store": "redis"} | STATE,
        {"alertname": "IdempotencyUnavailable"} | WORKER,
    ),
    *(
        (
            {"alertname": "IdempotencyHitRateHigh"} | WORKER,
            {"alertname": name, "task": "t"} | WORKER,
        )
        for name in (
            "IdempotencyTaskHitRateHigh",
            "IdempotencyDuplicatesPerHour",
            "IdempotencyHitRateAnomaly",
        )
    ),
    (
        {"alertname": "IdempotencyTaskHitRateHigh", "task": "t"} | WORKER,
        {"alertname": "IdempotencyDuplicatesPerHour", "task": "t"} | WORKER,
    ),
]
TOLD: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"alertname": "ExporterDown"} | STATE, {"alertname": "IdempotencyHitRateHigh"} | WORKER),
    ({"alertname": "ExporterDown"} | STATE, {"alertname": "WorkerDown"} | WORKER),
    ({"alertname": "ScheduleOverdue"} | STATE, {"alertname": "BeatStalled"} | STATE),
    (
        {"alertname": "StoreDown", "store": "redis"} | STATE,
        {"alertname": "IdempotencyUnprotectedRuns"} | WORKER,
    ),
    ({"alertname": "StoreDown", "store": "redis"} | STATE, {"alertname": "BeatStalled"} | STATE),
    (
        {"alertname": "StoreDown", "store": "redis"} | STATE,
        {"alertname": "CollectorFailing", "collector": "records"} | STATE,
    ),
    (
        {"alertname": "StoreDown", "store": "redis"} | STATE,
        {"alertname": "CircuitOpen", "store": "postgres"} | WORKER,
    ),
    (
        {"alertname": "IdempotencyTaskHitRateHigh", "task": "t"} | WORKER,
        {"alertname": "IdempotencyDuplicatesPerHour", "task": "u"} | WORKER,
    ),
]
_clusters = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """The committed configuration in a real Alertmanager, that has none of the secrets."""
    with running_alertmanager(CONFIG, tmp_path_factory.mktemp("alertmanager")) as running:
        yield running


def test_the_configuration_of_prometheus_is_accepted_with_its_rules() -> None:
    answer = run("promtool", "check", "config", ALERTS / "prometheus.yml")
    assert "2 rule files found" in answer
    assert f"SUCCESS: {len(ALL)} rules found" in answer


def test_prometheus_scrapes_the_jobs_that_the_rules_are_about() -> None:
    jobs = yaml.safe_load((ALERTS / "prometheus.yml").read_text())["scrape_configs"]
    assert [job["job_name"] for job in jobs] == [STATE_JOB, WORKER_JOB]


def test_what_the_readme_adds_to_a_prometheus_is_what_the_example_has(tmp_path: Path) -> None:
    (text,) = re.findall(r"^ *```yaml\n(.*?)^ *```$", README.read_text(), re.MULTILINE | re.DOTALL)
    added = yaml.safe_load(text)
    assert _without_hosts(added["scrape_configs"]) == _without_hosts(
        yaml.safe_load((ALERTS / "prometheus.yml").read_text())["scrape_configs"]
    )
    assert "idemwatch rules build /etc/prometheus/idemwatch " in README.read_text()
    shutil.copytree(ALERTS / "rules", tmp_path / "idemwatch")
    (tmp_path / "prometheus.yml").write_text(text)
    answer = run("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert "2 rule files found" in answer


def _without_hosts(jobs: object) -> object:
    return yaml.safe_load(re.sub(r"[\w.]+:9911", "HOST", yaml.safe_dump(jobs)))


@pytest.mark.parametrize("name", ["prometheus.yml", "alertmanager.yml"])
def test_configuration_is_plain_yaml(name: str) -> None:
    events = list(yaml.parse((ALERTS / name).read_text()))
    assert not [one for one in events if isinstance(one, yaml.AliasEvent)]
    assert not [one for one in events if getattr(one, "anchor", None)]


def test_the_configuration_of_alertmanager_is_accepted_without_its_secrets() -> None:
    answer = run("amtool", "check-config", CONFIG)
    assert "SUCCESS" in answer
    assert "1 templates" in answer


@pytest.mark.parametrize(("name", "severity"), ALL.items())
def test_each_alert_goes_to_who_its_severity_is_for(name: str, severity: str) -> None:
    labels = (f"alertname={name}", f"severity={severity}", f"job={STATE_JOB}")
    answer = run("amtool", "config", "routes", "test", f"--config.file={CONFIG}", *labels)
    assert answer.strip() == RECEIVERS[severity]


def test_a_severity_that_nobody_knows_is_told_too() -> None:
    command = ("config", "routes", "test", f"--config.file={CONFIG}", "severity=odd")
    assert run("amtool", *command).strip() == "slack"


def test_only_information_is_muted() -> None:
    routes = yaml.safe_load(CONFIG.read_text())["route"]["routes"]
    muted = [one["receiver"] for one in routes if "mute_time_intervals" in one]
    assert muted == ["email"]


def test_secrets_stand_in_files_only() -> None:
    found = dict(_leaves(yaml.safe_load(CONFIG.read_text())))
    files = {path: value for path, value in found.items() if path.endswith("_file")}
    assert len(files) == 4
    assert all(str(value).startswith(SECRETS) for value in files.values())
    secret = re.compile(r"(password|token|credentials|routing_key|service_key|api_url|secret)$")
    assert not [path for path in found if secret.search(path)]
    assert not [value for value in found.values() if re.search(r"://[^/]*@", str(value))]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _leaves(below, f"{path}.{number}")
    else:
        yield path, value


def test_every_cause_is_inhibited_by_a_case_here() -> None:
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    causes = {rule["source_matchers"][0].split('"')[1] for rule in rules}
    assert causes == {cause["alertname"] for cause, _ in INHIBITED}


def _name(labels: dict[str, str]) -> str:
    return "-".join(value for key, value in labels.items() if key != "job")


def _posted(
    server: Alertmanager, cause: dict[str, str], effect: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Both in a cluster of their own, so that no other case has to do with them."""
    own = {"cluster": f"c{next(_clusters)}"}
    server.post(cause | own, effect | own)
    wait_until(lambda: bool(server.status(**cause, **own) and server.status(**effect, **own)))
    return cause | own, effect | own


@pytest.mark.parametrize(("cause", "effect"), INHIBITED, ids=_name)
def test_who_is_told_the_cause_is_not_told_its_effect(
    server: Alertmanager, cause: dict[str, str], effect: dict[str, str]
) -> None:
    told, silent = _posted(server, cause, effect)
    wait_until(lambda: bool(server.status(**silent)["inhibitedBy"]))
    assert server.status(**told)["inhibitedBy"] == []


@pytest.mark.parametrize(("cause", "effect"), TOLD, ids=_name)
def test_what_does_not_follow_is_told(
    server: Alertmanager, cause: dict[str, str], effect: dict[str, str]
) -> None:
    _, told = _posted(server, cause, effect)
    # A pair that is inhibited, posted later, shows that the server has taken in both.
    _, silent = _posted(server, *INHIBITED[0])
    wait_until(lambda: bool(server.status(**silent)["inhibitedBy"]))
    assert server.status(**told)["inhibitedBy"] == []


def test_another_environment_inhibits_nothing(server: Alertmanager) -> None:
    own = {"cluster": f"c{next(_clusters)}"}
    cause = {"alertname": "ExporterDown", "environment": "staging"} | STATE | own
    effect = {"alertname": "StoreDown", "environment": "production"} | STATE | own
    server.post(cause, effect)
    _, silent = _posted(server, *INHIBITED[0])
    wait_until(lambda: bool(server.status(**silent)["inhibitedBy"]))
    assert server.status(**effect)["inhibitedBy"] == []
