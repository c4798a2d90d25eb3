"""Each service of docker-compose.yml: locked in, checked, run as the demo runs it, and configured.

What configuration is mounted into a container is read here as the container would read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.demo import services as shared
from support import compose
from support.compose import (
    ROOT,
    address_of,
    assert_listens,
    has_health_check,
    in_repository,
    services,
)

ENTRYPOINTS = {"prometheus", "alertmanager"}
"""Services whose image begins their command already."""
COMPOSE_ALONE = {"prometheus": ["--web.external-url="], "alertmanager": ["--web.external-url="]}
"""Where a container must be told what the demo need not: the address that users see."""
FILLED: dict[str, dict[str, object]] = {
    "exporter": {"exporter": "0.0.0.0:9911", "refresh_seconds": 15},
    "traffic": {"pattern": "mixed"},
    "prometheus": {
        "prometheus_config": "/etc/prometheus/prometheus.yml",
        "prometheus_data": "/prometheus",
        "prometheus": "0.0.0.0:9090",
        "retention": "30d",
    },
    "alertmanager": {
        "alertmanager_config": "/etc/alertmanager/alertmanager.yml",
        "alertmanager_data": "/alertmanager",
        "alertmanager": "0.0.0.0:9093",
    },
}
PINNED = re.compile(r"(?:[\w.-]+/)?[\w.-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?")
every_service = pytest.mark.parametrize("name", sorted(services()))


# Each service


@every_service
def test_images_are_pinned(name: str) -> None:
    assert PINNED.fullmatch(services()[name]["image"]), services()[name]["image"]


def test_our_image_bears_our_version() -> None:
    from importlib.metadata import version

    own = {service["image"] for service in services().values() if "build" in service}
    assert own == {f"idemwatch:{version('idemwatch')}"}


@every_service
def test_each_service_is_locked_in(name: str) -> None:
    service = services()[name]
    assert int(str(service["user"]).split(":")[0]) > 0, "runs as root"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service["pids_limit"] and service["logging"]["options"]["max-size"]


@every_service
def test_each_service_has_a_memory_limit_and_a_restart_policy(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")


@every_service
def test_health_is_checked_where_something_answers(name: str) -> None:
    answers = bool(compose.ports()[name])
    assert has_health_check(services()[name]) == answers


def test_health_is_asked_at_a_port_that_is_listened_on() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    default = re.findall(r"HEALTH_URL=(\S+)", dockerfile)[0]
    for name, service in services().items():
        test = " ".join(map(str, service.get("healthcheck", {}).get("test", ())))
        urls = re.findall(r"http://\S+", test)
        if compose.is_ours(service) and has_health_check(service):
            urls = [compose.settings(service).get("HEALTH_URL", default)]
        for url in urls:
            host, port = address_of(url)
            assert host == "127.0.0.1" and port in compose.ports()[name]


@pytest.mark.parametrize("name", sorted(shared.SERVICES))
def test_commands_are_those_that_the_demo_runs(name: str) -> None:
    shared_words = shared.command(name, **FILLED.get(name, {}))
    wanted = shared_words[1:] if name in ENTRYPOINTS else shared_words
    words = [str(word) for word in services()[name]["command"]]
    assert words[: len(wanted)] == wanted
    more = [word.partition("=")[0] + "=" for word in words[len(wanted) :]]
    assert more == COMPOSE_ALONE.get(name, [])


def test_redis_keeps_what_it_was_given() -> None:
    config = (ROOT / "docker/redis.conf").read_text().splitlines()
    assert "maxmemory-policy noeviction" in config and "appendonly yes" in config
    (limit,) = [int(line.split()[1].removesuffix("mb")) for line in config if "maxmemory " in line]
    assert 2 * limit <= int(services()["redis"]["mem_limit"].removesuffix("m"))  # a rewrite forks


def test_workers_are_listed_by_a_name_that_others_can_resolve() -> None:
    worker = compose.settings(services()["worker"])
    assert worker["IDEMWATCH_METRICS_ADDRESS"].startswith("0.0.0.0:")
    assert "IDEMWATCH_METRICS_ADVERTISE" not in worker, "one name for all of them is wrong"


def test_nobody_sees_grafana_without_a_password() -> None:
    grafana = compose.settings(services()["grafana"])
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == grafana["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == "secret-of-grafana_admin_password"


# The configuration that is mounted


def scrape_targets(job: dict[str, Any]) -> Iterator[str]:
    for static in job.get("static_configs", ()):
        yield from static["targets"]
    for found in job.get("http_sd_configs", ()):
        yield found["url"]


def test_prometheus_scrapes_what_is_there() -> None:
    config = yaml.safe_load(
        in_repository("prometheus", "/etc/prometheus/prometheus.yml").read_text()
    )
    jobs = {job["job_name"]: list(scrape_targets(job)) for job in config["scrape_configs"]}
    assert {"idemwatch", "idemwatch-worker"} <= set(jobs)
    for targets in jobs.values():
        assert targets
        for target in targets:
            if not target.startswith(("localhost:", "127.0.0.1:")):
                assert_listens(target, asked_by="prometheus")


def test_prometheus_loads_the_rules_and_knows_alertmanager() -> None:
    config = yaml.safe_load(
        in_repository("prometheus", "/etc/prometheus/prometheus.yml").read_text()
    )
    for pattern in config["rule_files"]:
        folder = in_repository("prometheus", str(Path("/etc/prometheus") / Path(pattern).parent))
        assert list(folder.glob(Path(pattern).name)), pattern
    managers = [
        target
        for manager in config["alerting"]["alertmanagers"]
        for static in manager["static_configs"]
        for target in static["targets"]
    ]
    assert managers
    for target in managers:
        assert_listens(target, asked_by="prometheus")


def test_alertmanager_finds_its_templates() -> None:
    path = in_repository("alertmanager", "/etc/alertmanager/alertmanager.yml")
    for pattern in yaml.safe_load(path.read_text())["templates"]:
        where = str(Path("/etc/alertmanager") / Path(pattern).parent)
        assert list(in_repository("alertmanager", where).glob(Path(pattern).name)), pattern


def test_grafana_is_given_its_data_source_and_its_boards() -> None:
    folder = in_repository("grafana", "/etc/grafana/provisioning/datasources")
    sources = [
        one
        for file in folder.glob("*.yml")
        for one in yaml.safe_load(file.read_text())["datasources"]
    ]
    assert sources
    for source in sources:
        assert_listens(source["url"], asked_by="grafana")
    folder = in_repository("grafana", "/etc/grafana/provisioning/dashboards")
    for file in folder.glob("*.yml"):
        for provider in yaml.safe_load(file.read_text())["providers"]:
            boards = in_repository("grafana", provider["options"]["path"])
            assert list(boards.glob("*.json")), boards


def test_grafana_opens_a_board_that_exists() -> None:
    path = compose.settings(services()["grafana"])["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert in_repository("grafana", path).is_file()
