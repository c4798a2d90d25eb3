"""The door to all sources: which reader a name leads to, and what cannot be read."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler import sources
from idemwatch.scheduler.errors import InvalidSchedule
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.sources import FILES, LARGEST_BYTES, SERVERS, read_source

CSV = "name,schedule\na,0 5 * * *\n"
USER = "0 5 * * * x\n"
SYSTEM = "0 5 * * * root x\n"
MANIFEST = 'kind: CronJob\nmetadata: {name: a}\nspec: {schedule: "0 5 * * *"}\n'
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def into(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return into


def read(given: str | Path | None, app: Any | None = None, **settings: Any) -> Inventory:
    name = None if given is None else str(given)
    return read_source(name, app=app, settings=Settings(**settings))


def refusal(given: str | Path | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(given)
    assert caught.value.name == "--source"
    return caught.value.problem


def ids(inventory: Inventory) -> list[str]:
    assert not inventory.problems
    return [one.id for one in inventory.schedules]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.csv", CSV, "a"),
        ("A.CSV", CSV, "a"),
        ("a.yaml", MANIFEST, "a"),
        ("a.yml", MANIFEST, "a"),
        ("ana", USER, "ana:1"),
        ("jobs.cron", USER, "jobs.cron:1"),
        ("cron.d/backup", SYSTEM, "backup:1"),
        ("etc/crontab", SYSTEM, "crontab:1"),
        ("cron.d/a.csv", CSV, "a"),
    ],
)
def test_a_file_is_what_its_name_and_place_say(
    write: Write, name: str, text: str, found: str
) -> None:
    path = write(name, text)
    inventory = read(path)
    assert ids(inventory) == [found] and inventory.source == str(path)
    if name in ("cron.d/backup", "etc/crontab"):
        assert inventory.schedules[0].task == "x"


@pytest.mark.parametrize(
    ("kind", "text"),
    [("csv", CSV), ("crontab", USER), ("system-crontab", SYSTEM), ("k8s", MANIFEST)],
)
def test_a_prefix_says_what_a_file_or_standard_input_is(
    write: Write, monkeypatch: pytest.MonkeyPatch, kind: str, text: str
) -> None:
    inventory = read(f"{kind}:{write('crontab.yaml', text)}")
    assert len(ids(inventory)) == 1
    stdin(monkeypatch, text.encode())
    found = read(f"{kind}:-")
    assert len(ids(found)) == 1 and found.source == "-"


def test_a_name_with_a_colon_is_a_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write("nightly:2.csv", CSV).parent)
    assert ids(read("nightly:2.csv")) == ["a"]


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_is_known_by_its_name_even_beside_a_file_of_it(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(name, USER).parent)
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        sources, "_reader", lambda where: lambda *given: asked.append((where, *given))
    )
    app = object()
    read_source(name, app=app, settings=Settings())
    assert asked == [(SERVERS[name], app, Settings())]
    monkeypatch.undo()
    assert ids(read(write(name, USER))) == [f"{name}:1"]


def test_without_a_name_it_is_the_table_then_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def reader(where: tuple[str, str]) -> Callable[..., None]:
        return lambda *given: asked.append((*where, *given)[:2])

    monkeypatch.setattr(sources, "_reader", reader)
    read(None, app=object(), database_url="postgresql://db/x")
    read(None, app=object())
    assert asked == [SERVERS["table"], SERVERS["beat"]]
    assert "name a file" in refusal(None)


@pytest.mark.parametrize("where", sorted({*FILES.values()}))
def test_each_reader_of_a_file_is_there(where: tuple[str, str]) -> None:
    assert callable(sources._reader(where))


# -- folders ---------------------------------------------------------------------------------------


def test_a_folder_is_its_tables_and_manifests_each_by_its_place(write: Write) -> None:
    first = write("jobs/a.csv", CSV)
    second = write("jobs/deep/b.yml", MANIFEST)
    for name, text in ((".hidden/c.csv", CSV), ("README", "0 5 * * *"), ("notes.txt", USER),
                       ("values.yaml", "replicas: 1\n"), ("broken.yaml", "a: [\n")):  # fmt: skip
        write(f"jobs/{name}", text)
    inventory = read(first.parent)
    assert ids(inventory) == [f"{first}:a", f"{second}:a"]
    assert [one.place and one.place.source for one in inventory.schedules] == [
        str(first),
        str(second),
    ]
    assert inventory.source == str(first.parent)


def test_a_folder_of_cron_has_names_without_a_dot(write: Write) -> None:
    for name in ("cron.d/backup", "cron.d/x.rpmsave", "cron.d/old~", "cron.d/#edit#"):
        write(name, SYSTEM)
    folder = write("cron.d/.placeholder", "").parent
    assert ids(read(folder)) == [f"{folder}/backup:backup:1"]
    write("spool/ana", USER)
    spool = write("spool/ben", USER).parent
    assert ids(read(f"crontab:{spool}")) == [f"{spool}/ana:ana:1", f"{spool}/ben:ben:1"]
    assert "no file of schedules" in refusal(spool)


def test_a_prefix_picks_its_kind_of_a_folder(write: Write) -> None:
    write("jobs/a.csv", CSV)
    folder = write("jobs/b.yaml", MANIFEST).parent
    assert ids(read(f"csv:{folder}")) == [f"{folder}/a.csv:a"]
    assert ids(read(f"k8s:{folder}")) == [f"{folder}/b.yaml:a"]


def test_a_file_of_a_folder_that_cannot_be_read_is_a_problem_and_the_rest_goes_on(
    write: Write,
) -> None:
    good = write("jobs/good.csv", CSV)
    write("jobs/other.csv", "colour\nred\n")
    write("jobs/latin.csv", CSV.encode() + b"caf\xe9,0 5 * * *\n")
    write("jobs/broken.yaml", "kind: CronJob\na: [\n")
    inventory = read(good.parent)
    assert [one.id for one in inventory.schedules] == [f"{good}:a"]
    places = {Path(one.place.source).name: one.place.line for one in inventory.problems}
    assert places == {"broken.yaml": 2, "latin.csv": 3, "other.csv": 1}


def test_a_folder_without_schedules_is_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no file of schedules in" in refusal(tmp_path / "empty")
    assert "no file of schedules in" in refusal(write("charts/values.yaml", "a: 1\n").parent)


# -- what cannot be read ---------------------------------------------------------------------------


def test_no_such_file_is_answered_with_what_there_is() -> None:
    for given in ("nowhere.csv", "tabel", "csv:nowhere", "x\0y"):
        told = refusal(given)
        assert "no file" in told and "redbeat" in told and "system-crontab:FILE" in told


@pytest.mark.parametrize("given", ["csv:", "k8s:", "crontab:", "system-crontab:"])
def test_a_prefix_alone_is_refused(given: str) -> None:
    assert refusal(given) == f"name a file: {given}FILE"


def test_a_name_that_the_system_refuses_is_refused() -> None:
    assert "cannot read 'xxx" in refusal("x" * 5_000) and len(refusal("x" * 5_000)) < 400


def test_standard_input_needs_a_kind() -> None:
    assert refusal("-") == "say what - is: csv:-, crontab:-, system-crontab:-, k8s:-"


def test_what_is_no_utf_8_is_told_with_its_line(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"0 5 * * * x\n\n# caf\xe9\n"
    path = write("ana", data)
    assert refusal(path) == f"{path}:3: it is no UTF-8 text"
    stdin(monkeypatch, data)
    assert refusal("crontab:-") == "-:3: it is no UTF-8 text"


def test_what_is_too_large_is_refused_unread(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("ana", "")
    os.truncate(path, LARGEST_BYTES + 1)
    assert refusal(path) == f"{path}: it is over {LARGEST_BYTES} bytes"
    assert re.search(r"it is over \d+ bytes", refusal("crontab:/dev/zero"))
    stdin(monkeypatch, b"#" * (LARGEST_BYTES + 1))
    assert refusal("crontab:-") == f"-: it is over {LARGEST_BYTES} bytes"


def test_a_file_that_may_not_be_opened_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*given: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    path = write("ana", USER)
    monkeypatch.setattr(Path, "open", forbidden)
    assert refusal(path) == f"{path}: it cannot be read: Permission denied"


def test_a_file_that_is_no_table_of_schedules_is_refused(write: Write) -> None:
    with pytest.raises(InvalidSchedule, match="it lacks 'name'"):
        read(write("a.csv", "colour\nred\n"))
