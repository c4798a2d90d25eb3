"""The built wheel, in virtual environments that hold nothing else.

A subpackage or file that pyproject.toml forgets, an import at the top of a module that needs an
extra, an extra that lacks a distribution: none of them shows in an editable checkout.
`make check` runs this file, `make test` leaves it out.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.venv import ROOT, Venv, copy_source, python, shipped_folders

pytestmark = pytest.mark.timeout(600)

# A worker does without these: Alembic's own modules, the fixture that pytest loads, and what of the
# state exporter knows schedules.
NOT_FOR_WORKERS = (
    "idemwatch.idempotency.batches",
    "idemwatch.idempotency.migrate",  # and migrate_tasks_command
    "idemwatch.idempotency.migrations",
    "idemwatch.idempotency.pytest_plugin",
    "idemwatch.idempotency.task_call",
    "idemwatch.idempotency.task_migration",
    "idemwatch.idempotency.task_rewrite",
    "idemwatch.exporter.beat_collector",
    "idemwatch.exporter.catalogue",
    "idemwatch.exporter.exporter_command",
    "idemwatch.exporter.metrics_page",
    "idemwatch.exporter.schedule_collector",
    "idemwatch.exporter.state",
)

LIST_MODULES = """
import importlib, pkgutil
names = ["idemwatch.idempotency", "idemwatch.exporter"]
for name in list(names):
    package = importlib.import_module(name)
    names += [found.name for found in pkgutil.walk_packages(package.__path__, name + ".")]
print("\\n".join(names))
"""

SMOKE = """
from celery import Celery
from idemwatch.idempotency import IdempotentTask

app = Celery("smoke", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True
runs = []

@app.task(base=IdempotentTask)
def add(x, y):
    runs.append((x, y))
    return x + y

assert [add.delay(1, 2).get(), add.delay(x=1, y=2).get(), add.delay(2, 2).get()] == [3, 3, 4]
assert runs == [(1, 2), (2, 2)], runs
"""


def shipped_files() -> set[str]:
    """Names that the wheel must have: every file of the folders but documentation."""
    files = (path for folder in shipped_folders() for path in folder.rglob("*") if path.is_file())
    kept = (path for path in files if path.suffix != ".md" and "__pycache__" not in path.parts)
    return {f"idemwatch/{path.relative_to(ROOT).as_posix()}" for path in kept}


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    source = copy_source(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--outdir", str(out), str(source))
    return out


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Venv]:
    """Makes a virtual environment that holds the wheel with these extras, and no pip."""

    def make(extras: str) -> Venv:
        path = tmp_path_factory.mktemp(f"venv-{extras or 'base'}")
        return Venv.make(path, f"idemwatch[{extras}] @ {wheel.as_uri()}")

    return make


@pytest.fixture(scope="session")
def base(install: Callable[[str], Venv]) -> Venv:
    return install("")


def test_wheel_holds_every_file_of_the_folders_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == shipped_files()


def test_each_folder_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"idemwatch/{folder.name}/py.typed" for folder in shipped_folders()} <= names


def test_wheel_and_sdist_carry_the_licence(dist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())


def test_base_imports_all_that_a_worker_needs(base: Venv) -> None:
    modules = base.output("python", "-c", LIST_MODULES).split()
    wanted = [name for name in modules if not name.startswith(NOT_FOR_WORKERS)]
    base.output("python", "-c", "\n".join(f"import {name}" for name in wanted))


def test_base_needs_nothing_of_an_extra(base: Venv) -> None:
    extras = "yaml bcrypt numpy grafanalib alembic sqlalchemy libcst rich"
    look = "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))"
    assert base.output("python", "-c", look, *extras.split()).split() == []


def test_base_has_the_beat(base: Venv) -> None:
    base.output("python", "-c", "import idemwatch.scheduler.beat, idemwatch.scheduler.sync_store")


def test_base_runs_a_task_once_on_the_memory_store(base: Venv) -> None:
    base.output("python", "-c", SMOKE, IDEMWATCH_STORE="memory")


def test_base_has_the_command_alone_and_in_celery(base: Venv) -> None:
    assert "Usage: idemwatch" in base.output("idemwatch", "--help")
    assert "0.1.0" in base.output("idemwatch", "--version")
    assert "db" in base.output("celery", "idemwatch", "--help")


@pytest.mark.parametrize("command", ["current", "history", "upgrade", "sql"])
def test_base_says_which_extra_migrations_need(base: Venv, command: str) -> None:
    url = "postgresql://127.0.0.1:1/none"
    refused = base.run("idemwatch", "db", command, IDEMWATCH_DATABASE_URL=url)
    assert refused.returncode != 0
    assert "idemwatch[server]" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "command", ["exporter", "boards build boards", "rules build rules", "migrate-tasks"]
)
def test_base_says_which_extra_a_monitoring_host_needs(base: Venv, command: str) -> None:
    refused = base.run("idemwatch", *command.split())
    assert (refused.returncode, refused.stdout) == (1, "")
    assert 'pip install "idemwatch[server]"' in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("options", [("--source", "fleet.csv"), ()], ids=str)
def test_base_says_which_extra_the_check_of_schedules_needs(
    base: Venv, options: tuple[str, ...]
) -> None:
    (base.path / "fleet.csv").write_text("name,schedule\nnightly,0 0 * * *\n")
    refused = base.run("idemwatch", "validate-schedules", *options)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert 'pip install "idemwatch[schedules]"' in refused.stderr
    assert base.run("idemwatch", "validate-schedules", "--help").returncode == 0


def test_schedules_can_be_checked_with_their_schema(install: Callable[[str], Venv]) -> None:
    venv = install("schedules")
    (venv.path / "fleet.csv").write_text("name,schedule\nnightly,0 0 * * *\n")
    told = json.loads(
        venv.output("idemwatch", "validate-schedules", "--source", "fleet.csv", "--format", "json")
    )
    look = "from idemwatch.scheduler.json_report import schema; print(schema()['$id'])"
    assert told["schema"] == venv.output("python", "-c", look).strip()


def test_a_monitoring_host_builds_what_is_committed(install: Callable[[str], Venv]) -> None:
    venv = install("server")
    venv.output("idemwatch", "rules", "build", "rules")
    venv.output("idemwatch", "boards", "build", "boards")
    assert texts(venv.path / "rules") == texts(ROOT / "alerts" / "rules")
    assert texts(venv.path / "boards") == texts(ROOT / "dashboards" / "json")


def texts(folder: Path) -> dict[str, str]:
    """Each file of a folder."""
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("extra", "promised"),
    [
        ("web", "yaml bcrypt"),
        (
            "schedules",
            "numpy idemwatch.scheduler.coordinator idemwatch.scheduler.lint "
            "idemwatch.scheduler.validation_run idemwatch.scheduler.schedule_commands "
            "idemwatch.scheduler.gauges idemwatch.scheduler.uniqueness_store "
            "idemwatch.alerts.thresholds",
        ),
        (
            "server",
            "yaml bcrypt numpy grafanalib.core alembic sqlalchemy libcst rich.table "
            "idemwatch.idempotency.migrate idemwatch.exporter.exporter_command",
        ),
    ],
)
def test_extra_brings_what_it_promises(
    install: Callable[[str], Venv], extra: str, promised: str
) -> None:
    venv = install(extra)
    venv.output("python", "-c", "\n".join(f"import {name}" for name in promised.split()))


def test_metadata_names_python_licence_and_command(base: Venv) -> None:
    told = base.output(
        "python",
        "-c",
        "from importlib.metadata import metadata, entry_points\n"
        "about = metadata('idemwatch')\n"
        "print(about['Requires-Python'], about['License-Expression'])\n"
        "print(entry_points(group='celery.commands')['idemwatch'].value)",
    )
    assert told.split() == [">=3.11", "Apache-2.0", "idemwatch.exporter.cli:cli"]
