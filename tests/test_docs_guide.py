"""docs/guide.md, followed from top to bottom; what it quotes stands in the source."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from idemwatch.demo.processes import free_port
from support.pages import page
from support.reader import Reader, blocks, commands
from support.venv import ROOT, Venv

PAGE = page("docs/guide.md").text
QUOTED = re.compile(r"# (\w+/\w+\.py)\n")
USED = """
import effects
effects.app.conf.update(task_always_eager=True, task_eager_propagates=True)
for _ in range(2):
    assert effects.close_all.delay([1, 2], "2026-03-01").get() == [1, 2]
    assert effects.charge(7) == "paid, reference charge:7"
assert effects.restock("bolts") < effects.restock("bolts")
import policies
assert policies.rebuild.delay("a").get() == "index of a rebuilt"
assert policies.publish.delay("a", 1).get() == "a shows version 1"
assert policies.publish.delay("a", 2).get() == "a shows version 2"
"""


def written() -> list[str]:
    """The blocks that the reader writes into files."""
    return [block for block in blocks(PAGE, "python") if not QUOTED.match(block)]


def quoted() -> list[tuple[str, str]]:
    """The blocks that stand in a file of ours, as the page shows them: the file and the lines."""
    found = [(QUOTED.match(block), block) for block in blocks(PAGE, "python")]
    return [(named[1], block[named.end() :]) for named, block in found if named]


def test_what_it_quotes_stands_in_the_source() -> None:
    assert len(quoted()) >= 3
    for file, lines in quoted():
        assert lines in (ROOT / file).read_text("utf-8"), f"{file} has no such lines:\n{lines}"


@pytest.fixture
def reader(tmp_path: Path, redis_url: str, empty_database_url: str) -> Iterator[Reader]:
    addresses = {
        "redis://localhost:6379/0": redis_url,
        "redis://localhost:6379/1": redis_url,
        "redis://localhost:6379/2": redis_url,
        "postgresql://localhost/jobs": empty_database_url,
        "127.0.0.1:9912": f"127.0.0.1:{free_port()}",
    }
    reader = Reader(tmp_path, Venv(Path(sys.prefix)), addresses)
    for block in written():
        reader.save(block)
    yield reader
    reader.stop()


def shown(command: str) -> list[str]:
    """The lines that the page shows of what a command prints."""
    told = PAGE.partition(f"\n    $ {command}\n")[2].partition("\n\n")[0]
    assert told, f"the page shows nothing of {command}"
    return [line.strip() for line in told.splitlines()]


def test_the_analysis_that_it_shows_is_that_of_the_command(reader: Reader) -> None:
    command = "idemwatch migrate-tasks plain.py --analyze"
    printed = [line.strip() for line in reader.run(f"{command} || test $? = 1").splitlines()]
    assert set(shown(command)) <= set(printed)


@pytest.mark.worker
@pytest.mark.timeout(300)
def test_the_guide_runs_from_top_to_bottom(reader: Reader, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE closing (ticket_id int, day date)")
    reader.follow(commands(PAGE))
    reader.run(f"python -c '{USED}'")
    with psycopg.connect(empty_database_url) as connection:
        rows = connection.execute("SELECT ticket_id FROM closing ORDER BY 1").fetchall()
    assert rows == [(1,), (2,)]
    found = reader.run("celery -A desk idemwatch doctor --format json || test $? -le 1")
    assert json.loads(found)
    assert all(process.poll() is None for process in reader.running), reader.output()
    assert set(reader.stop()) == {0}, reader.output()
