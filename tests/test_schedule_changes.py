"""`idemwatch schedules apply | revert | import`: what is written, and what never is."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import psycopg
import pytest
from celery import Celery
from celery.schedules import crontab
from click.testing import CliRunner, Result
from idemwatch.exporter.cli import cli
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.identity import schedule_hash
from idemwatch.scheduler.importing import import_of
from idemwatch.scheduler.inventory import inventory_of
from idemwatch.scheduler.occurrences import Moments
from idemwatch.scheduler.schedule_store import ScheduleStore
from support import commands
from support.inventories import INVENTORIES, at_midnight, csv_file, mixed
from support.stores import wait_until
from support.table import Table
from support.venv import clean_environ

NOW = "2026-11-24T00:00"
ROWS = """
SELECT to_jsonb(s) - 'updated_at' - 'next_due_at' FROM schedule AS s ORDER BY id
"""


class Desk:
    """An operator before one database, whose table is looked at behind the command's back."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.url, self.folder, self.table = database_url, folder, Table(database_url)

    def run(self, command: str, *arguments: str, stdin: str | None = None) -> Result:
        """`idemwatch schedules COMMAND`; it must not fail by a traceback."""
        options = ("--database-url", self.url)
        done = commands.invoke("schedules", command, *arguments, *options, stdin=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def bring(self, rows: list[str]) -> str:
        """Import these rows; the last line that is told."""
        done = self.run("import", "--source", csv_file(self.folder, rows), "--yes")
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout.splitlines()[-1]

    def apply(self, *arguments: str, stdin: str | None = None) -> Result:
        return self.run("apply", "--source", "table", "--at", NOW, *arguments, stdin=stdin)

    def applied(self) -> str:
        """Apply the plan; the id of the change."""
        done = self.apply("--yes")
        assert (done.exit_code, done.stderr) == (0, "")
        found = re.search(r"^to undo it: idemwatch schedules revert (\d+)$", done.stdout, re.M)
        assert found
        return found[1]

    def rows(self) -> list[dict[str, Any]]:
        """The table as it is, without its versions."""
        return [row[0] for row in self.table.execute(ROWS)]

    def expressions(self) -> list[str]:
        return [row["cron_expression"] for row in self.rows()]

    def changes(self) -> int:
        return int(
            self.table.execute("SELECT count(DISTINCT change_id) FROM schedule_change")[0][0]
        )


@pytest.fixture
def desk(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    return Desk(database_url, tmp_path)


# -- import ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.stem)
def test_an_inventory_is_brought_in_once(desk: Desk, inventory: Path) -> None:
    options = ("--source", str(inventory), "--yes")
    dry = desk.run("import", *options, "--dry-run")
    assert desk.rows() == []
    first = desk.run("import", *options)
    counts = re.fullmatch(r"(\d+) new, (\d+) already there, (\d+) refused\n", first.stdout)
    assert counts
    new, twice, refused = map(int, counts.groups())
    assert dry.stdout == f"{new} would be new, {twice} already there, {refused} refused\n"
    assert new + twice + refused == len(inventory.read_text().splitlines()) - 1
    assert len(first.stderr.splitlines()) == refused and first.exit_code == bool(refused)
    before = desk.rows()
    assert len(before) == new > 0
    second = desk.run("import", *options)
    assert second.stdout == f"0 new, {new + twice} already there, {refused} refused\n"
    assert desk.rows() == before and second.stderr == first.stderr


def test_what_was_brought_in_is_what_the_source_has(desk: Desk) -> None:
    rows = ["weekly,30 4 * * 1,sidekiq,America/New_York,Reports,5400", *at_midnight(1)]
    assert desk.bring(rows) == "2 new, 0 already there, 0 refused"
    first, _ = desk.rows()
    kept = {name: first[name] for name in ("identifier", "task", "dialect", "timezone", "status")}
    assert kept == {
        "identifier": "weekly", "task": "Reports", "dialect": "sidekiq",
        "timezone": "America/New_York", "status": "PENDING",
    }  # fmt: skip
    listed = desk.run("list", "--at", NOW, "--format", "json").stdout
    assert listed.count('"place": "table"') == 2 and '"duration_seconds": 5400.0' in listed


def test_import_asks_first(desk: Desk) -> None:
    source = csv_file(desk.folder, at_midnight(3))
    refused = desk.run("import", "--source", source, stdin="n\n")
    assert refused.exit_code == 1 and "Add 3 schedules of" in refused.stdout
    assert desk.rows() == []
    assert desk.run("import", "--source", source, stdin="y\n").exit_code == 0
    assert len(desk.rows()) == 3
    asked_nothing = desk.run("import", "--source", source, stdin="")
    assert asked_nothing.stdout == "0 new, 3 already there, 0 refused\n"


def test_a_schedule_that_was_moved_since_is_known_by_what_it_was(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    desk.applied()
    moved = desk.rows()
    assert desk.bring(at_midnight(24)) == "0 new, 24 already there, 0 refused"
    assert desk.rows() == moved


def test_what_no_row_can_hold_is_refused_with_its_reason_and_the_rest_goes_on(desk: Desk) -> None:
    path = desk.folder / "odd.csv"
    path.write_text(
        "name,schedule,fromdate,uptodate\n"
        "backwards,0 3 * * *,2026-05-02,2026-05-01\n"
        "bad,61 * * * *,,\n"
        "nul\0,0 5 * * *,,\n"
        "good,0 4 * * *,2026-05-01,2026-05-02\n"
    )
    done = desk.run("import", "--source", str(path), "--yes")
    assert (done.exit_code, done.stdout) == (1, "1 new, 0 already there, 3 refused\n")
    assert f"{path}:3: bad: '61 * * * *': minute:" in done.stderr
    assert f"{path}:2: backwards: '0 3 * * *': uptodate:" in done.stderr
    assert "no table keeps" in done.stderr and "\0" not in done.stderr
    assert [row["identifier"] for row in desk.rows()] == ["good"]


def test_a_schedule_that_no_expression_tells_is_refused() -> None:
    days = tuple(datetime(2026, 5, day, 4, tzinfo=UTC) for day in (1, 2))
    sun = schedule_of({"id": "sun", "cron_expression": "@daily"})
    one = replace(sun, timing=Moments(days, "dawn"))
    found = import_of(inventory_of("beat", [one]), [])
    assert found.new == () and "no table keeps it" in str(found.refused[0])


def test_ten_thousand_are_brought_in_and_found_again(desk: Desk) -> None:
    rows = mixed(10_000)
    assert desk.bring(rows) == "10,000 new, 0 already there, 0 refused"
    assert desk.bring(rows) == "0 new, 10,000 already there, 0 refused"
    assert len(desk.rows()) == 10_000


def test_a_long_import_shows_how_far_it_is_at_a_terminal_only(desk: Desk) -> None:
    source = csv_file(desk.folder, mixed(2_000))
    options = ["schedules", "import", "--source", source, "--yes", "--database-url", desk.url]
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [commands.PROGRAM, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=theirs, env=clean_environ(TERM="xterm"), text=True,
        timeout=commands.DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "2,000 new, 0 already there, 0 refused\n")
    assert re.search(r"import  \[#+\] +100%", shown)
    assert commands.run(*options).stderr == ""


def test_an_import_that_is_interrupted_keeps_whole_batches_and_is_finished_by_another(
    desk: Desk,
) -> None:
    source = csv_file(desk.folder, mixed(600))
    options = ("schedules", "import", "--source", source, "--yes", "--database-url", desk.url)
    with (
        psycopg.connect(desk.url) as other,
        commands.Running(*options) as running,
    ):
        other.execute("LOCK TABLE schedule IN SHARE MODE")
        wait_until(lambda: desk.table.waiting() == 1)
        running.process.send_signal(signal.SIGINT)
        code, out, err = running.end()
        other.rollback()
    assert (code, out) == (130, "") and "interrupted" in err and "Traceback" not in err
    assert desk.rows() == []
    assert desk.bring(mixed(600)) == "600 new, 0 already there, 0 refused"


def test_the_app_s_beat_schedule_is_the_default_source(desk: Desk) -> None:
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {"tidy": {"task": "proj.tidy", "schedule": crontab("5", "3")}}
    app.conf.idempotency_database_url = desk.url
    done = CliRunner().invoke(
        cli, ["schedules", "import", "--yes"], obj=SimpleNamespace(app=app), prog_name="idemwatch"
    )
    assert (done.exit_code, done.stdout) == (0, "1 new, 0 already there, 0 refused\n"), done
    assert [row["task"] for row in desk.rows()] == ["proj.tidy"]


# -- apply -----------------------------------------------------------------------------------------


def test_apply_shows_asks_and_writes_the_plan(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    before = desk.rows()
    refused = desk.apply(stdin="n\n")
    assert refused.exit_code == 1 and "Move 15 schedules? [y/N]" in refused.stdout
    assert desk.rows() == before and desk.changes() == 0
    done = desk.apply(stdin="y\n")
    assert done.exit_code == 0 and "15 moves of the strategy balanced" in done.stdout
    assert re.search(r"^change 1: 15 schedules moved$", done.stdout, re.M)
    moved = [row for row in desk.rows() if row["cron_expression"] != "0 0 * * *"]
    assert len(moved) == 15 and {row["unmoved_expression"] for row in moved} == {"0 0 * * *"}
    load = desk.run("load", "--at", NOW, "--format", "json").stdout
    assert '"hotspots": 0' in load


@pytest.mark.parametrize("strategy", ["balanced", "spread", "consolidate"])
def test_a_plan_that_is_applied_twice_changes_nothing_more(desk: Desk, strategy: str) -> None:
    desk.bring(at_midnight(40))
    desk.apply("--yes", "--strategy", strategy)
    moved, changes = desk.rows(), desk.changes()
    assert changes == 1
    again = desk.apply("--strategy", strategy)
    assert again.exit_code == 0 and "nothing to move" in again.stdout
    assert (desk.rows(), desk.changes()) == (moved, changes)


def test_the_views_write_nothing(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    before = desk.rows()
    for command in (("list",), ("load",), ("recommend", "report", "60"), ("optimize",)):
        assert desk.run(*command).exit_code == 0
    assert desk.rows() == before and desk.changes() == 0


def test_another_source_is_not_changed_but_told_how(desk: Desk) -> None:
    source = csv_file(desk.folder, at_midnight(24))
    text = Path(source).read_text()
    done = desk.run("apply", "--yes", "--source", source, "--at", NOW)
    assert done.exit_code == 1 and "only the table can be changed" in done.stderr
    by_hand = done.stdout.partition("changes to make by hand:\n")[2].splitlines()
    assert len(by_hand) == 15
    assert all(re.match(r".*fleet\.csv:\d+: job \d+: 0 0 \* \* \* -> ", line) for line in by_hand)
    assert desk.rows() == [] and Path(source).read_text() == text


def test_a_plan_for_what_was_changed_meanwhile_is_refused_as_a_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.bring(at_midnight(24))

    def meanwhile(*_: Any, **__: Any) -> bool:
        desk.table.execute("UPDATE schedule SET status = 'PAUSED'")
        return True

    monkeypatch.setattr(click, "confirm", meanwhile)
    done = desk.apply()
    assert done.exit_code == 1 and "changed since it was read" in done.stderr
    assert set(desk.expressions()) == {"0 0 * * *"} and desk.changes() == 0


def test_a_row_that_cannot_be_read_is_told_and_the_rest_is_moved(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    desk.table.execute("UPDATE schedule SET cron_expression = '61 * * * *' WHERE id = 1")
    done = desk.apply("--yes")
    assert done.exit_code == 1 and "1 (job 0)" in done.stderr
    assert "schedules moved" in done.stdout and desk.changes() == 1


def test_ctrl_c_at_the_question_ends_with_130_and_writes_nothing(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    before = desk.rows()
    options = ["schedules", "apply", "--at", NOW, "--database-url", desk.url]
    with subprocess.Popen(
        [commands.PROGRAM, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=clean_environ(PYTHONUNBUFFERED="1"),
    ) as asking:  # fmt: skip
        assert asking.stdout
        shown = b""
        while not shown.endswith(b"[y/N]: "):
            data = os.read(asking.stdout.fileno(), 65_536)
            assert data, shown
            shown += data
        asking.send_signal(signal.SIGINT)
        _, told = asking.communicate(timeout=commands.DEADLINE_SECONDS)
    assert (asking.returncode, told.split()) == (130, [b"interrupted"])
    assert desk.rows() == before and desk.changes() == 0


# -- revert ----------------------------------------------------------------------------------------


def test_revert_gives_the_table_back_as_it_was(desk: Desk) -> None:
    desk.bring([*at_midnight(24), *mixed(200)])
    before = desk.rows()
    change = desk.applied()
    moved = desk.rows()
    assert moved != before
    refused = desk.run("revert", change, stdin="n\n")
    assert refused.exit_code == 1 and desk.rows() == moved
    assert re.search(r"^change 1, made 20\d\d-.* by ", refused.stdout)
    done = desk.run("revert", change, stdin="y\n")
    assert done.exit_code == 0 and "to undo it: idemwatch schedules revert 2" in done.stdout
    assert desk.rows() == before
    assert desk.run("revert", "2", "--yes").exit_code == 0
    assert desk.rows() == moved


def test_revert_shows_what_it_will_put_back(desk: Desk) -> None:
    desk.bring(at_midnight(60))
    change = desk.applied()
    short = desk.run("revert", change, stdin="n\n").stdout
    assert re.search(r"^job \d+: .* -> 0 0 \* \* \*$", short, re.M)
    assert "... and 31 more (--all shows all)" in short
    assert desk.run("revert", change, "--all", stdin="n\n").stdout.count("-> 0 0 * * *") == 51


def test_an_unknown_change_and_one_that_was_reverted_are_refused(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    unknown = desk.run("revert", "99", "--yes")
    assert unknown.exit_code == 1 and "change 99: there is none of this id" in unknown.stderr
    change = desk.applied()
    assert desk.run("revert", change, "--yes").exit_code == 0
    before = desk.rows()
    again = desk.run("revert", change, "--yes")
    assert again.exit_code == 1 and "it was reverted already, by change 2" in again.stderr
    assert desk.rows() == before and desk.changes() == 2


def test_revert_is_refused_when_a_row_was_changed_since(desk: Desk) -> None:
    desk.bring(at_midnight(24))
    change = desk.applied()
    desk.table.execute(
        "UPDATE schedule SET cron_expression = '1 2 3 4 *', schedule_hash = 'other' WHERE id = ("
        "SELECT max(schedule_id) FROM schedule_change)"
    )
    before = desk.rows()
    done = desk.run("revert", change, "--yes")
    assert done.exit_code == 1 and "changed since it was read" in done.stderr
    assert desk.rows() == before and desk.changes() == 1


def test_a_database_that_is_away_or_not_migrated_is_one_line(empty_database_url: str) -> None:
    for url in (empty_database_url, "postgresql://127.0.0.1:1/none"):
        for command in (("revert", "1"), ("apply",), ("list",)):
            done = commands.invoke("schedules", *command, "--database-url", url)
            assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
            assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_hashes_of_the_table_are_those_that_an_import_compares(desk: Desk) -> None:
    desk.bring(mixed(50))
    link = PostgresLink(desk.url)
    try:
        read = ScheduleStore(link).schedules().schedules
    finally:
        link.close()
    assert [schedule_hash(one) for one in read] == [row["schedule_hash"] for row in desk.rows()]
