"""The committed configuration of Prometheus and Alertmanager, made to run here and faster.

Invariant: only addresses, intervals, paths and receivers differ from what is committed; routes,
grouping, inhibition and jobs are those that a user installs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from idemwatch.alerts.windows import UNITS_MS, TimeScale

SCALE: Final = TimeScale(60)
INTERVAL: Final = "1s"
ROUTE_TIMES: Final = frozenset(("group_wait", "group_interval", "repeat_interval"))
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_UNITS: Final = {**dict(UNITS_MS), "w": 7 * 86_400_000, "y": 365 * 86_400_000}

Config = dict[str, Any]


def committed(name: str) -> Config:
    """A configuration of alerts/, such as `prometheus.yml`."""
    read = yaml.safe_load((folder() / name).read_text("utf-8"))
    assert isinstance(read, dict), name
    return read


def folder() -> Path:
    """The folder of the committed configuration."""
    from idemwatch import alerts

    return Path(str(alerts.__file__)).parent


def prometheus(
    given: Mapping[str, Any],
    *,
    rules: Sequence[Path],
    targets: Mapping[str, str],
    discovery_url: str,
    alertmanager: str,
) -> Config:
    """`given` with the rules, addresses and interval of the demo.

    targets: HOST:PORT by job, for jobs with static targets; raises KeyError for one without.
    discovery_url: where jobs with http_sd find theirs.
    """
    config = copy.deepcopy(dict(given))
    config["global"] = {**config.get("global", {}), **_interval(), "evaluation_interval": INTERVAL}
    config["rule_files"] = [str(path) for path in rules]
    for sender in config["alerting"]["alertmanagers"]:
        sender["static_configs"] = [{"targets": [alertmanager]}]
    config["scrape_configs"] = [
        _scraped(job, targets, discovery_url) for job in config["scrape_configs"]
    ]
    return config


def _scraped(job: Config, targets: Mapping[str, str], discovery_url: str) -> Config:
    changed = {**job, **_interval()}
    if "static_configs" in job:
        changed["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    if "http_sd_configs" in job:
        changed["http_sd_configs"] = [{"url": discovery_url, "refresh_interval": INTERVAL}]
    return changed


def _interval() -> Config:
    return {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}


def alertmanager(given: Mapping[str, Any], *, webhook_url: str) -> Config:
    """`given` with all receivers but the empty ones replaced by `webhook_url`/NAME."""
    config = copy.deepcopy(dict(given))
    # What else stands there are the addresses and secrets of the receivers that are replaced.
    config["global"] = {k: v for k, v in config.get("global", {}).items() if k == "resolve_timeout"}
    config["templates"] = [str(folder() / path) for path in config.get("templates", [])]
    config["receivers"] = [_received(one, webhook_url) for one in config["receivers"]]
    config["route"] = _faster(config["route"])
    return config


def _received(receiver: Config, webhook_url: str) -> Config:
    name = receiver["name"]
    if len(receiver) == 1:
        return receiver
    hook = {"url": f"{webhook_url}/{name}", "send_resolved": True}
    return {"name": name, "webhook_configs": [hook]}


def _faster(route: Config) -> Config:
    """A route and those below it, with their times divided."""
    changed = dict(route)
    for name in ROUTE_TIMES & route.keys():
        changed[name] = faster(route[name])
    if "routes" in route:
        changed["routes"] = [_faster(one) for one in route["routes"]]
    return changed


def faster(duration: str) -> str:
    """A duration as Prometheus writes it, divided by the time scale, but 1 s at least."""
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration, as 5m or 1h30m")
    return SCALE.window(sum(int(number) * _UNITS[unit] for number, unit in parts) / 1000)
