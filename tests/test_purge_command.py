"""`idemwatch purge` as operators run it, and the beat's task that does the same."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from idemwatch.idempotency import purge_task
from idemwatch.idempotency.engine import close_engines
from idemwatch.idempotency.errors import ConfigurationError
from support import commands
from support.stores import wait_until
from support.table import Table
from support.venv import clean_environ
from support.worker import Worker

PURGING_APP = """
from celery import Celery
app = Celery("purging")
app.conf.include = ["idemwatch.idempotency.purge_task"]
app.conf.beat_schedule = {"purge": {"task": "idemwatch.purge", "schedule": 1}}
"""


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


def test_the_command_deletes_and_says_how_many(table: Table) -> None:
    table.add(25)
    table.add(2, expires="1 hour")
    command = ("purge", "--batch", "10", "--database-url", table.url)
    dry = commands.run(*command, "--dry-run")
    assert (dry.returncode, dry.stdout, dry.stderr) == (
        0,
        "25 expired records would be deleted\n",
        "",
    )
    assert table.left() == 27
    done = commands.run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "25 expired records deleted\n", "")
    assert table.left() == 2
    assert commands.output(*command) == "0 expired records deleted\n"


@pytest.mark.parametrize(
    "wrong", [("--batch", "0"), ("--batch", "100001"), ("--max-seconds", "0"), ("more",)]
)
def test_wrong_usage_is_refused_before_anything_is_deleted(
    table: Table, wrong: tuple[str, ...]
) -> None:
    table.add(1)
    assert commands.run("purge", *wrong, "--database-url", table.url).returncode == 2
    assert table.left() == 1


def test_the_command_stops_at_its_time(table: Table) -> None:
    table.add(10, "first", expires="-2 hours")
    table.add(10, "second")
    command = ("purge", "--batch", "10", "--max-seconds", "0.1", "--database-url", table.url)
    with table.held("first") as holder, commands.Running(*command) as running:
        wait_until(lambda: table.waiting() == 1)
        over = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > over)
        holder.rollback()
        assert running.end() == (0, "10 expired records deleted\n", "")
    assert [table.left("first"), table.left("second")] == [0, 10]


def test_ctrl_c_keeps_the_batches_that_are_done_and_undoes_the_one_that_is_not(
    table: Table,
) -> None:
    table.add(10, "first", expires="-2 hours")
    table.add(10, "second")
    command = ("purge", "--batch", "10", "--database-url", table.url)
    with table.held("second"), commands.Running(*command) as running:
        wait_until(lambda: table.waiting() == 1)
        running.process.send_signal(signal.SIGINT)
        code, out, err = running.end()
    assert code == 130
    assert "interrupted" in err and "Traceback" not in err and out == ""
    assert [table.left("first"), table.left("second")] == [0, 10]
    assert [table.counted("first"), table.counted("second")] == [0, 10]
    assert commands.output(*command) == "10 expired records deleted\n"


def test_at_a_terminal_a_bar_shows_how_far_it_is(table: Table) -> None:
    table.add(30)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [commands.PROGRAM, "purge", "--batch", "10", "--database-url", table.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=clean_environ(TERM="xterm"),
        text=True,
        timeout=commands.DEADLINE_SECONDS,
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "30 expired records deleted\n")
    assert "purge  [---" in shown and re.search(r"purge  \[#+\] +100%", shown)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


# -- the task of the beat --------------------------------------------------------------------------


@pytest.fixture
def purging(table: Table) -> Iterator[Celery]:
    """An app with the beat's task, as the one in use."""
    app = Celery("purging", set_as_current=False)
    app.conf.include = [purge_task.__name__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(purge_task, "current_app", app)
        yield app
    close_engines()


def test_the_task_purges_the_database_of_its_app(table: Table, purging: Celery) -> None:
    table.add(5)
    table.add(2, expires="1 hour")
    purging.conf.idempotency_database_url = table.url
    purging.loader.import_default_modules()
    task = purging.tasks["idemwatch.purge"]
    assert task.apply(throw=True).result == 5
    assert task.apply(throw=True).result == 0
    assert table.left() == 2


def test_the_task_needs_a_database(purging: Celery) -> None:
    with pytest.raises(ConfigurationError, match="idempotency_database_url"):
        purging.tasks["idemwatch.purge"].apply(throw=True)


@pytest.mark.worker
def test_the_beat_entry_of_the_documentation_purges(
    table: Table, redis_url: str, new_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    table.add(5)
    (tmp_path / "purging.py").write_text(PURGING_APP)
    worker = new_worker(
        "purging",
        broker=redis_url,
        backend=redis_url,
        folder=tmp_path,
        env={"IDEMWATCH_DATABASE_URL": table.url},
        args=("-B",),
    )
    worker.wait_for(lambda: table.left() == 0, "the beat had purged")
    assert table.counted() == 0
