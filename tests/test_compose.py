"""docker-compose.yml holds together: what it names exists, and nothing in it is left open.

What needs a Docker engine is not tried here. In its place: the schema of Compose, the names that
point from one part to another, and the commands, which the demo runs without Docker.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from idemwatch.idempotency.settings import load as load_settings
from support import compose
from support.compose import (
    ROOT,
    Refused,
    assert_listens,
    has_health_check,
    on_host,
    services,
    yaml_of,
)

every_service = pytest.mark.parametrize("name", sorted(services()))


# The file


def test_schema_of_compose_is_met() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(compose.FILE)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_are_the_documented_ones() -> None:
    wanted = "redis postgres migrate worker beat exporter traffic prometheus alertmanager grafana"
    assert sorted(wanted.split()) == sorted(services())
    assert services()["beat"]["scale"] == 2


def test_only_traffic_waits_to_be_asked_for() -> None:
    profiles = {
        name: service["profiles"] for name, service in services().items() if "profiles" in service
    }
    assert profiles == {"traffic": ["demo"]}


# Secrets


@pytest.mark.parametrize("name", sorted(compose.passwords()))
@pytest.mark.parametrize("given", [None, ""], ids=["unset", "empty"])
def test_a_missing_password_is_refused_with_what_to_do(name: str, given: str | None) -> None:
    rest = {other: value for other, value in compose.passwords().items() if other != name}
    with pytest.raises(Refused, match=rf"set {name} in \.env, see \.env\.example"):
        compose.load(rest if given is None else {**rest, name: given})


def test_the_example_as_it_stands_is_refused() -> None:
    set_there = {name: value for name, value in compose.example().items() if value}
    with pytest.raises(Refused):
        compose.load(set_there)


def test_every_variable_is_in_the_example_and_no_other_is() -> None:
    assert {match["name"] for match in compose.variables()} == set(compose.example())


def test_each_variable_is_required_or_has_the_default_of_the_example() -> None:
    for match in compose.variables():
        name, kind, rest = match.group("name", "kind", "rest")
        shown = compose.example()[name]
        assert kind == ("-" if shown else "?"), f"{name} is neither required nor has a default"
        if kind == "-" and not name.endswith("_FILE"):
            assert rest == shown, f"{name}: another default than in .env.example"


def test_the_secrets_that_must_be_set_are_passwords() -> None:
    assert set(compose.passwords()) == {
        "POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_ADMIN_PASSWORD",
    }  # fmt: skip


def secret_places() -> Iterator[tuple[str, str]]:
    """What looks like the place of a secret, in the file as it is written."""
    written = yaml.safe_load(compose.FILE.read_text())["services"]
    for name, service in written.items():
        for key, value in service.get("environment", {}).items():
            in_url = re.search(r"://[^:@]*:(.*)@", str(value))
            if in_url or re.search(r"PASSWORD|SECRET|TOKEN|AUTH$|_KEY", key):
                yield f"{name}: {key}", in_url[1] if in_url else str(value)


def test_no_password_is_written_down() -> None:
    places = dict(secret_places())
    assert {"worker: IDEMWATCH_REDIS_URL", "postgres: POSTGRES_PASSWORD"} <= set(places)
    for place, value in places.items():
        assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{place} holds a secret"


def test_no_password_stands_in_a_command() -> None:
    for name, service in services().items():
        words = " ".join(map(str, service.get("command", ())))
        assert not any(secret in words for secret in compose.passwords().values()), name


def test_settings_of_our_services_are_accepted() -> None:
    for name, service in services().items():
        if compose.is_ours(service):
            settings = load_settings({}, {k: str(v) for k, v in compose.settings(service).items()})
            assert settings.database_url and "secret-of-postgres" in settings.database_url, name
            assert settings.redis_url and "secret-of-redis" in settings.redis_url, name
            assert_listens(settings.database_url, asked_by=name)
            assert_listens(settings.redis_url, asked_by=name)


def test_secret_files_have_a_placeholder_and_stay_out_of_git() -> None:
    for name, secret in compose.stack()["secrets"].items():
        assert on_host(secret["file"]).is_file(), name
    ignored = (ROOT / "docker/secrets/.gitignore").read_text().split()
    assert "*" in ignored and "!not-set" in ignored


def files_named(node: Any) -> Iterator[str]:
    """The values of all keys that end in `_file`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if str(key).endswith("_file") else files_named(value)
    elif isinstance(node, list):
        for one in node:
            yield from files_named(one)


def test_alertmanager_reads_its_secrets_from_the_files_that_compose_mounts() -> None:
    given = services()["alertmanager"]["secrets"]
    read = set(files_named(yaml_of("alerts/alertmanager.yml")))
    assert read == {f"/run/secrets/{name}" for name in given}


# What points from one part to another


@every_service
def test_what_a_service_waits_for_exists_and_can_come_true(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        target = services()[other]
        healthy = how["condition"] == "service_healthy"
        assert not healthy or has_health_check(target), f"{name} waits for {other}'s health"
        ends = how["condition"] == "service_completed_successfully"
        assert ends == (target["restart"] == "no"), f"{name} waits for {other} in a wrong way"
        assert not set(target.get("profiles", ())) - set(services()[name].get("profiles", ()))


def test_waiting_goes_in_no_circle() -> None:
    left = {name: set(service.get("depends_on", {})) for name, service in services().items()}
    while ready := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in ready}
    assert not left


def test_what_uses_the_database_waits_for_the_migration() -> None:
    for name in ("worker", "beat", "exporter"):
        wanted = services()[name]["depends_on"]
        assert wanted["migrate"]["condition"] == "service_completed_successfully"
        assert wanted["redis"]["condition"] == wanted["postgres"]["condition"] == "service_healthy"


def test_what_watches_waits_for_nothing_that_it_watches() -> None:
    watching = {"prometheus", "alertmanager", "grafana"}
    for name in watching:
        assert set(services()[name].get("depends_on", {})) <= watching


@pytest.mark.parametrize("kind", ["volumes", "networks", "secrets"])
def test_all_that_is_declared_is_used_and_the_other_way_round(kind: str) -> None:
    used: set[str] = set()
    for service in services().values():
        if kind == "volumes":
            used |= {source for source, *_ in compose.mounts(service) if source[0] not in "./"}
        elif kind == "secrets":
            used |= set(service.get("secrets", ()))
        else:
            used |= set(service["networks"])
    assert used == set(compose.stack()[kind])


@every_service
def test_files_that_are_mounted_are_in_the_repository_and_read_only(name: str) -> None:
    for source, target, mode in compose.mounts(services()[name]):
        if source.startswith((".", "/")):
            assert on_host(source).exists(), f"{name} mounts {source}, which is not there"
            assert mode == "ro", f"{name} may write {target}"


def test_servers_cannot_be_reached_from_outside_nor_reach_it() -> None:
    assert compose.stack()["networks"]["back"]["internal"] is True
    for name in ("redis", "postgres", "migrate", "worker", "beat", "traffic"):
        assert services()[name]["networks"] == ["back"]
        assert "ports" not in services()[name]


def test_ports_are_published_on_loopback_and_each_once() -> None:
    published = []
    for name, service in services().items():
        for port in service.get("ports", ()):
            address, outside, inside = str(port).split(":")
            assert address == "127.0.0.1", f"{name} publishes {port}"
            assert int(inside) in compose.ports()[name], f"{name} does not listen on {inside}"
            assert "front" in service["networks"], f"{name} can't publish from an internal network"
            published.append(outside)
    assert len(published) == len(set(published)) == 4
