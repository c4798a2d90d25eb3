"""Prometheus and Alertmanager beside the demo, and a webhook that gets what they tell.

They load the committed configuration with other addresses and times (see time_lapse.py), and the
rules of `idemwatch rules build --time-scale 60`.
"""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml
from idemwatch.alerts.names import STATE_JOB
from idemwatch.alerts.rule import Build
from idemwatch.alerts.rule_files import texts
from idemwatch.alerts.whole_files import write

from . import time_lapse
from .crew import Crew
from .listening import Listening
from .webhook import Notification, Webhook

READY: Final = "/-/ready"
RETENTION: Final = "2h"
PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "alertmanager"
WATCHDOG: Final = "Watchdog"
SCRAPED: Final = f'up{{job="{STATE_JOB}"}} == 1'
SCRAPE_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 5.0


class Monitoring:
    """Both, and what they tell. Started at once; `wait` before anything is to be judged."""

    def __init__(self, crew: Crew, exporter: Listening, webhook: Webhook) -> None:
        self._folder, self._exporter, self._webhook = crew.folder, exporter, webhook
        self._alertmanager = _alertmanager(crew, webhook.url)
        self._prometheus = crew.listen(PROMETHEUS, self._given, ready=READY)

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus listens."""
        return self._prometheus.url

    @property
    def alertmanager_url(self) -> str:
        """Where Alertmanager listens."""
        return self._alertmanager.url

    def wait(self) -> None:
        """Wait for both, and for the first scrape of the exporter; then load the rules.

        Not before, since Prometheus takes 5 s to find its targets, and nobody is to be paged for an
        exporter that was not looked for. Raises ProcessFailed.
        """
        for one in (self._exporter, self._alertmanager, self._prometheus):
            one.wait()
        self._reload()
        self._until(lambda: bool(self._query(SCRAPED)), "it scraped the state exporter")
        self._reload(rules=_rules(self._folder / "rules"))
        self._until(lambda: bool(self._get("rules")["groups"]), "it loaded the rules")

    def notifications(self) -> list[Notification]:
        """What was delivered, also after they have ended; but for the watchdog's."""
        return [one for one in self._webhook.notifications() if one.alertname != WATCHDOG]

    def firing(self) -> set[str]:
        """Alerts that Prometheus fires now, those too that Alertmanager inhibits.

        Raises OSError when it does not answer.
        """
        alerts = self._get("alerts")["alerts"]
        names = {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}
        return names - {WATCHDOG}

    def _given(self, address: str) -> dict[str, object]:
        return {
            "prometheus_config": self._configure(address, ()),
            "prometheus_data": self._folder / "prometheus-data",
            "retention": RETENTION,
        }

    def _configure(self, address: str, rules: Sequence[Path]) -> Path:
        config = time_lapse.prometheus(
            time_lapse.committed("prometheus.yml"),
            rules=rules,
            targets={STATE_JOB: self._exporter.address, PROMETHEUS: address},
            discovery_url=f"{self._exporter.url}/sd",
            alertmanager=self._alertmanager.address,
        )
        return _written(self._folder / "prometheus.yml", config)

    def _reload(self, rules: Sequence[Path] = ()) -> None:
        """Those it waited for may have moved to another port meanwhile."""
        self._configure(self._prometheus.address, rules)
        self._prometheus.child.send(signal.SIGHUP)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            try:
                return condition()
            except OSError:  # too busy to answer
                return False

        self._prometheus.child.wait_until(holds, SCRAPE_SECONDS, what)

    def _query(self, expression: str) -> list[object]:
        return list(self._get(f"query?{urlencode({'query': expression})}")["result"])

    def _get(self, path: str) -> dict[str, Any]:
        url = f"{self._prometheus.url}/api/v1/{path}"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as reply:  # noqa: S310  ours
            data: dict[str, Any] = json.load(reply)["data"]
        return data


def _alertmanager(crew: Crew, webhook_url: str) -> Listening:
    committed = time_lapse.committed("alertmanager.yml")
    config = time_lapse.alertmanager(committed, webhook_url=webhook_url)
    given = {
        "alertmanager_config": _written(crew.folder / "alertmanager.yml", config),
        "alertmanager_data": crew.folder / "alertmanager-data",
    }
    return crew.listen(ALERTMANAGER, lambda _: given, ready=READY)


def _rules(folder: Path) -> list[Path]:
    """The files that `idemwatch rules build` writes."""
    files = texts(Build(scale=time_lapse.SCALE))
    write(folder, files)
    return [folder / name for name in files]


def _written(path: Path, config: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return path
