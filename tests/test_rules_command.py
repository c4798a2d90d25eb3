"""`idemwatch rules build`: two files, whole or not at all; an error names what is wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from support.alerting import ALERTS, run
from support.commands import invoke, output
from support.commands import run as run_command

FILES = ["alerts.yml", "recording.yml"]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_writes_what_is_committed(tmp_path: Path) -> None:
    told = output("rules", "build", str(tmp_path / "made" / "here"))
    for name in FILES:
        path = tmp_path / "made" / "here" / name
        assert path.read_text() == (ALERTS / "rules" / name).read_text()
        assert f"wrote {path}" in told
    assert _files(tmp_path / "made" / "here") == FILES


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text("old")
    (tmp_path / "other.yml").write_text("not ours")
    assert invoke("rules", "build", str(tmp_path)).exit_code == 0
    assert (tmp_path / "alerts.yml").read_text() != "old"
    assert (tmp_path / "other.yml").read_text() == "not ours"


def test_all_can_be_chosen(tmp_path: Path) -> None:
    options = {
        "--threshold": "hit_rate=0.125",
        "--job": "exporters",
        "--worker-job": "celery/workers",
        "--runbook-url": "https://wiki.example.com/runbooks/",
        "--dashboard-url": "https://grafana.example.com/sub",
    }
    given = [word for pair in options.items() for word in pair]
    done = invoke("rules", "build", str(tmp_path), *given, "--threshold", "health=55.5")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "alerts.yml").read_text() + (tmp_path / "recording.yml").read_text()
    assert "> 0.125" in text
    assert "12.5% is the limit" in text
    assert "< 55.5" in text
    assert set(re.findall(r'job="([^"]+)"', text)) == {"exporters", "celery/workers"}
    assert "runbook_url: https://wiki.example.com/runbooks/StoreDown.md" in text
    assert "dashboard_url: https://grafana.example.com/sub/d/idemwatch-pipeline" in text
    run("promtool", "check", "rules", *(tmp_path / name for name in FILES))


def test_a_time_scale_divides_and_says_so(tmp_path: Path) -> None:
    assert invoke("rules", "build", str(tmp_path), "--time-scale", "60").exit_code == 0
    text = (tmp_path / "alerts.yml").read_text()
    assert "# Every window is divided by 60" in text
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    assert (rules[0]["for"], rules[0]["keep_firing_for"]) == ("5s", "10s")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--threshold", "hit_rate=2"], "hit_rate: 2.0 is not from 0.0001 to 0.9999"),
        (["--threshold", "hit_rate=nan"], "hit_rate: nan"),
        (["--threshold", "hitrate=0.1"], "'hitrate=0.1' is not NAME=NUMBER"),
        (["--threshold", "health"], "'health' is not NAME=NUMBER"),
        (["--time-scale", "0"], "time scale: 0 is not from 1 to 75"),
        (["--time-scale", "-60"], "time scale: -60 is not from 1 to 75"),
        (["--time-scale", "1e9"], "time scale: 1e+09 is not from 1 to 75"),
        (["--time-scale", "nan"], "time scale: nan is not from 1 to 75"),
        (["--time-scale", "fast"], "'fast' is not a valid float"),
        (["--job", ""], "'' is no job name"),
        (["--job", 'a"} or vector(1) #'], "is no job name"),
        (["--worker-job", "a b"], "'a b' is no job name"),
        (["--job", "x", "--worker-job", "x"], "--job and --worker-job are both 'x'"),
        (["--dashboard-url", "grafana:3000"], "'grafana:3000' is no address like https://"),
        (["--dashboard-url", "https://"], "is no address like https://"),
        (["--dashboard-url", "https://[::1"], "is no address like https://"),
        (["--dashboard-url", "https://h:99999"], "is no address like https://"),
        (["--dashboard-url", "https://h/?a=b"], "is no address like https://"),
        (["--runbook-url", "ftp://h/x"], "'ftp://h/x' is no address like https://"),
        (["--runbook-url", "https://h/{{ x }}"], "is no address like https://"),
        ([], None),
    ],
    ids=str,
)
def test_wrong_usage_is_named_and_writes_nothing(
    tmp_path: Path, arguments: list[str], names: str | None
) -> None:
    folder = tmp_path / "rules"
    done = invoke("rules", "build", *([str(folder)] if names else []), *arguments)
    assert done.exit_code == 2
    assert (names or "Missing argument 'DIR'") in done.output
    assert not folder.exists()


def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    url = "https://admin:hunter2@grafana.example.com"
    done = invoke("rules", "build", str(tmp_path), "--dashboard-url", url)
    assert done.exit_code == 2
    assert "a password in the address would be in every alert" in done.output
    assert "hunter2" not in done.output
    assert _files(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    assert invoke("rules", "build", str(path)).exit_code == 2
    assert path.read_text() == "kept"


@pytest.mark.parametrize("place", ["/proc/idemwatch", "/dev/null/rules"])
def test_a_folder_that_cannot_be_written_is_one_line_that_names_it(place: str) -> None:
    done = run_command("rules", "build", place)
    assert done.returncode == 1
    assert re.fullmatch(rf"Error: '{place}' cannot be written: .+\n", done.stderr)


def test_when_one_file_cannot_be_written_the_other_stays(tmp_path: Path) -> None:
    (tmp_path / "recording.yml").write_text("old")
    (tmp_path / "alerts.yml").mkdir()
    done = invoke("rules", "build", str(tmp_path))
    assert done.exit_code == 1
    assert f"'{tmp_path}' cannot be written" in done.output
    assert (tmp_path / "recording.yml").read_text() == "old"
    assert _files(tmp_path) == FILES


def test_without_pyyaml_it_says_which_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    done = invoke("rules", "build", str(tmp_path))
    assert done.exit_code == 1
    assert 'rules needs yaml: pip install "idemwatch[server]"' in done.output
    assert _files(tmp_path) == []


def test_help_tells_how_the_files_are_loaded() -> None:
    told = output("rules", "build", "--help")
    assert "rule_files:" in told
    assert "promtool check rules" in told
    assert "idemwatch rules build /etc/prometheus" in told
