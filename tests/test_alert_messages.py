"""The templates: what people read in Slack, PagerDuty and e-mail, and that it gets there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.alerts.names import STATE_JOB
from support.alerting import ALERTS, attempt, run, running_alertmanager
from support.stores import wait_until

CONFIG = ALERTS / "alertmanager.yml"
TEMPLATES = ALERTS / "templates" / "idemwatch.tmpl"
SECRETS = "/run/secrets/"


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
