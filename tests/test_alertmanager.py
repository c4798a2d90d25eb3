"""prometheus.yml, alertmanager.yml and the templates, as the real programs understand them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.alerts.names import STATE_JOB, WORKER_JOB
from idemwatch.alerts.rule import Alert, Build
from idemwatch.alerts.rule_files import ALERTS as ALERTS_FILE
from idemwatch.alerts.rule_files import rule_groups
from support.alerting import ALERTS, Alertmanager, attempt, run, running_alertmanager
from support.stores import wait_until

CONFIG = ALERTS / "alertmanager.yml"
TEMPLATES = ALERTS / "templates" / "idemwatch.tmpl"
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


def _group(*alerts: dict[str, Any], status: str = "firing", **common: str) -> dict[str, Any]:
    labels = {"alertname": "StoreDown", "severity": "critical", "job": STATE_JOB, **common}
    return {
        "receiver": "slack",
        "status": status,
        "externalURL": "http://alertmanager:9093",
        "alerts": [{"labels": labels, **one} for one in alerts],
        "groupLabels": {"alertname": "StoreDown"},
        "commonLabels": labels,
        "commonAnnotations": alerts[0]["annotations"] if len(alerts) == 1 else {},
    }


def _one(store: str, status: str = "firing") -> dict[str, Any]:
    return {
        "status": status,
        "startsAt": "2026-03-01T02:03:04Z",
        "annotations": {
            "summary": f"{store} does not answer",
            "description": f'<{store}> & "value" 0',
            "runbook_url": "https://example.com/runbooks/StoreDown.md",
            "dashboard_url": "https://grafana.example.com/d/idemwatch-pipeline",
        },
    }


def _rendered(
    folder: Path, name: str, group: dict[str, Any], kind: str = "text", pipe: str = ""
) -> str:
    data = folder / "data.json"
    data.write_text(json.dumps(group))
    text = f'{{{{ template "idemwatch.{name}" . }}}}{pipe}'
    options = (f"--template.glob={TEMPLATES}", f"--template.data={data}")
    rendered = ("template", "render", *options, f"--template.type={kind}")
    return run("amtool", *rendered, f"--template.text={text}").strip()


@pytest.mark.parametrize(
    ("group", "title"),
    [
        (_group(_one("redis")), "[FIRING:1] StoreDown: redis does not answer"),
        (
            _group(_one("redis"), environment="production"),
            "[FIRING:1] StoreDown (production): redis does not answer",
        ),
        (
            _group(_one("redis"), _one("postgres")),
            "[FIRING:2] StoreDown: redis does not answer, and others",
        ),
        (
            _group(_one("redis", "resolved"), status="resolved"),
            "[RESOLVED] StoreDown: redis does not answer",
        ),
    ],
)
def test_the_title_says_what_and_how_many(
    tmp_path: Path, group: dict[str, Any], title: str
) -> None:
    assert _rendered(tmp_path, "title", group) == title


def test_the_text_has_all_that_is_needed(tmp_path: Path) -> None:
    group = _group(_one("redis"), _one("postgres"), _one("broker", "resolved"))
    assert _rendered(tmp_path, "text", group) == (
        "2 firing\n"
        '- <redis> & "value" 0\n'
        "  since 2026-03-01 02:03:04 UTC\n"
        '- <postgres> & "value" 0\n'
        "  since 2026-03-01 02:03:04 UTC\n"
        "1 resolved\n"
        "- broker does not answer\n"
        "Runbook: https://example.com/runbooks/StoreDown.md\n"
        "Board: https://grafana.example.com/d/idemwatch-pipeline\n"
        "Silence: http://alertmanager:9093/#/silences/new?filter=%7Balertname%3D%22StoreDown%22"
        "%2Cjob%3D%22idemwatch%22%2Cseverity%3D%22critical%22%7D"
    )


def test_the_link_of_a_silence_bears_any_label(tmp_path: Path) -> None:
    group = _group(_one("redis"), schedule='at "noon" + 1, daily')
    assert "schedule%3D%22at%20%5C%22noon%5C%22%20%2B%201%2C%20daily%22" in _rendered(
        tmp_path, "silence", group
    )


@pytest.mark.parametrize(
    ("status", "severity", "colour"),
    [
        ("firing", "critical", "danger"),
        ("firing", "warning", "warning"),
        ("resolved", "critical", "good"),
    ],
)
def test_the_colour_is_that_of_the_severity(
    tmp_path: Path, status: str, severity: str, colour: str
) -> None:
    group = _group(_one("redis", status), status=status, severity=severity)
    assert _rendered(tmp_path, "colour", group) == colour


def test_the_mail_escapes_what_it_shows(tmp_path: Path) -> None:
    group = _group(_one("redis"), schedule="at noon")
    mail = _rendered(tmp_path, "email", group, kind="html")
    assert "schedule%3D%22at%20noon%22%2Cseverity%3D%22critical%22%7D" in mail
    assert "<li>&lt;redis&gt; &amp; &#34;value&#34; 0" in mail
    assert '<a href="https://example.com/runbooks/StoreDown.md">Runbook</a>' in mail
    assert "[FIRING:1] StoreDown: redis does not answer" in mail


class _Inbox(BaseHTTPRequestHandler):
    """Slack and PagerDuty: keeps what it is sent, by its path."""

    got: dict[str, Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got[self.path] = (json.loads(body), self.headers.get("Authorization"))
        self.send_response(202 if self.path == "/pagerduty" else 200)
        self.end_headers()
        self.wfile.write(b'{"status": "success"}')

    def log_message(self, *_: Any) -> None:
        """Not on the tests' output."""


@pytest.fixture
def inbox() -> Iterator[tuple[str, dict[str, Any]]]:
    """Its address, and what it got."""
    handler = type("Inbox", (_Inbox,), {"got": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", handler.got  # type: ignore[attr-defined]
        listening.shutdown()
        thread.join()


def _config(folder: Path, url: str) -> Path:
    """The committed one with other addresses, secrets and pauses; its templates are found."""
    config = yaml.safe_load(
        CONFIG.read_text()
        .replace(SECRETS, f"{folder}/")
        .replace("https://deadman.example.com", url)
        .replace("templates/*", f"{ALERTS}/templates/*")
    )
    config["global"]["pagerduty_url"] = f"{url}/pagerduty"
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = "0s"
    (folder / "slack_webhook_url").write_text(f"{url}/slack")
    (folder / "pagerduty_routing_key").write_text("the key")
    (folder / "deadman_token").write_text("the token")
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_page_arrives_with_its_texts_links_and_secrets(
    tmp_path: Path, inbox: tuple[str, dict[str, Any]]
) -> None:
    url, got = inbox
    group = _group(_one("redis"))
    with running_alertmanager(_config(tmp_path, url), tmp_path) as server:
        server.post(group["commonLabels"], **group["commonAnnotations"])
        server.post({"alertname": "Watchdog", "severity": "none"}, summary="x")
        wait_until(lambda: len(got) == 3)
    page, slack = got["/pagerduty"][0], got["/slack"][0]["attachments"][0]
    assert page["routing_key"] == "the key"
    assert page["payload"]["summary"] == "[FIRING:1] StoreDown: redis does not answer"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["custom_details"]["runbook"].endswith("/StoreDown.md")
    assert [link["text"] for link in page["links"]] == ["Runbook", "Board", "Silence"]
    assert slack["title"] == "[FIRING:1] StoreDown: redis does not answer"
    assert '- <redis> & "value" 0' in slack["text"]
    assert slack["color"] == "danger"
    assert [button["text"] for button in slack["actions"]] == ["Runbook", "Board", "Silence"]
    assert got["/idemwatch"][1] == "Bearer the token"


def test_a_template_that_does_not_parse_is_found(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "bad.tmpl").write_text('{{ define "x" }}{{ end')
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIG.read_text())
    assert attempt("amtool", "check-config", config).returncode == 1
