"""The commands of services, and the committed configuration as the demo loads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from idemwatch.alerts.names import STATE_JOB, WORKER_JOB
from idemwatch.demo import services, time_lapse
from idemwatch.idempotency.errors import ConfigurationError

ADDRESSES = {STATE_JOB: "127.0.0.1:1"}


def prometheus_config(rules: list[Path]) -> dict[str, Any]:
    return time_lapse.prometheus(
        time_lapse.committed("prometheus.yml"),
        rules=rules,
        targets=ADDRESSES,
        discovery_url="http://127.0.0.1:1/sd",
        alertmanager="127.0.0.1:2",
    )


def alertmanager_config() -> dict[str, Any]:
    committed = time_lapse.committed("alertmanager.yml")
    return time_lapse.alertmanager(committed, webhook_url="http://127.0.0.1:3")


def check(folder: Path, config: dict[str, Any], *command: str) -> None:
    """The program's own opinion of a configuration."""
    written = folder / "config.yml"
    written.write_text(yaml.safe_dump(config))
    done = subprocess.run([*command, str(written)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*services.SERVICES, *services.TOOLS])
def test_every_command_is_a_program_that_is_here(name: str) -> None:
    placeholders: Any = type("Any", (dict,), {"__missing__": lambda _, key: key})()
    words = [w.format_map(placeholders) for w in {**services.SERVICES, **services.TOOLS}[name]]
    assert services.program_of(words[0]).is_file()


def test_programs_of_this_environment_come_before_those_of_the_path() -> None:
    assert services.program_of("python") == Path(sys.executable)
    assert services.program_of("celery").parent == Path(sys.executable).parent


def test_a_command_needs_all_that_its_words_name() -> None:
    assert "127.0.0.1:1" in services.command("exporter", exporter="127.0.0.1:1", refresh_seconds=1)
    with pytest.raises(KeyError):
        services.command("exporter", exporter="127.0.0.1:1")


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert services.missing_packages() == [], "install prometheus and prometheus-alertmanager"
    monkeypatch.setenv("PATH", "/nowhere")
    assert services.missing_packages() == ["prometheus", "prometheus-alertmanager"]
    with pytest.raises(ConfigurationError, match=r"apt-get install .* prometheus-alertmanager"):
        services.program_of("alertmanager")


def test_prometheus_differs_from_what_is_committed_in_addresses_and_times_only(
    tmp_path: Path,
) -> None:
    committed, ours = time_lapse.committed("prometheus.yml"), prometheus_config([])
    assert committed.keys() <= ours.keys()
    assert ours["global"]["external_labels"] == committed["global"]["external_labels"]
    jobs = {job["job_name"]: job for job in ours["scrape_configs"]}
    assert list(jobs) == [job["job_name"] for job in committed["scrape_configs"]]
    assert jobs[STATE_JOB]["static_configs"] == [{"targets": ["127.0.0.1:1"]}]
    (found,) = jobs[WORKER_JOB]["http_sd_configs"]
    assert found["url"] == "http://127.0.0.1:1/sd"
    assert {job["scrape_interval"] for job in jobs.values()} == {"1s"}
    check(tmp_path, ours, "promtool", "check", "config")


def test_a_job_whose_address_is_not_known_is_not_passed_over() -> None:
    job = {"job_name": "another", "static_configs": [{"targets": ["there:1"]}]}
    given = {**time_lapse.committed("prometheus.yml"), "scrape_configs": [job]}
    with pytest.raises(KeyError, match="another"):
        time_lapse.prometheus(given, rules=[], targets=ADDRESSES, discovery_url="", alertmanager="")


def test_alertmanager_keeps_its_routes_and_inhibitions_and_loses_its_secrets(
    tmp_path: Path,
) -> None:
    committed, ours = time_lapse.committed("alertmanager.yml"), alertmanager_config()
    assert ours["inhibit_rules"] == committed["inhibit_rules"]
    assert ours["time_intervals"] == committed["time_intervals"]
    assert without_times(ours["route"]) == without_times(committed["route"])
    assert "/run/secrets" not in yaml.safe_dump(ours)
    urls = {hook["url"] for one in ours["receivers"] for hook in one["webhook_configs"]}
    assert urls == {f"http://127.0.0.1:3/{one['name']}" for one in committed["receivers"]}
    check(tmp_path, ours, "amtool", "check-config")


def without_times(route: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in route.items() if name not in time_lapse.ROUTE_TIMES}
    return {**kept, "routes": [without_times(one) for one in route.get("routes", [])]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("5m", "5s"), ("4h", "4m"), ("1h30m", "1m30s"), ("30s", "1s"), ("0s", "1s"), ("1d", "24m")],
)
def test_times_are_divided_and_not_under_a_second(given: str, wanted: str) -> None:
    assert time_lapse.faster(given) == wanted


@pytest.mark.parametrize("given", ["", "5", "m", "5 m", "5x"])
def test_what_is_no_duration_is_named(given: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        time_lapse.faster(given)
