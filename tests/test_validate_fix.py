"""`validate-schedules` on the table: what `--fix` changes, shows and undoes, and survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import Result
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler import validation_run
from idemwatch.scheduler.changes import Change
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.remedy import remedies
from idemwatch.scheduler.schedule_store import ScheduleStore
from support import commands
from support.proxy import TcpProxy
from support.venv import clean_environ

NOW = datetime(2026, 11, 24, tzinfo=UTC)
AT = ("--at", "2026-11-24T00:00")


def one(name: str, expression: str, **more: Any) -> Schedule:
    return schedule_of({"identifier": name, "cron_expression": expression, "task": name, **more})


CROWDED = [one(f"job {number}", "0 0 * * *") for number in range(12)]


@dataclass
class Desk:
    """An operator's desk: the table, and the command on it."""

    url: str

    def insert(self, schedules: Sequence[Schedule]) -> None:
        link = PostgresLink(self.url)
        try:
            assert all(ScheduleStore(link).insert(schedules))
        finally:
            link.close()

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        """All that a change could touch."""
        return self.sql("SELECT * FROM schedule ORDER BY id") + self.sql(
            "SELECT * FROM schedule_change ORDER BY change_id, schedule_id"
        )

    def two_of_one(self) -> None:
        """Two that mean the same, as somebody made them by hand, past the unique index."""
        self.insert([one("first", "0 5 * * *", task="t"), one("second", "0 6 * * *", task="t")])
        self.sql("UPDATE schedule SET cron_expression = '0 5 * * *' WHERE identifier = 'second'")

    def run(self, *options: str, url: str = "") -> Result:
        done = commands.invoke(
            "validate-schedules", "--database-url", url or self.url, *AT, *options
        )
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
        return done


@pytest.fixture
def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for variable in [name for name in os.environ if name.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(variable)
    return Desk(database_url)


def test_table_is_the_default_where_a_database_is_named(desk: Desk) -> None:
    desk.insert(CROWDED[:3])
    done = desk.run("--format", "json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["source"], told["summary"]["active"]) == (0, "table", 3)
    assert [one for one in told["not_asked"] if "database" in one] == []


def test_duplicates_of_the_last_hour_are_errors(desk: Desk) -> None:
    desk.sql(
        "INSERT INTO endpoint_bucket (endpoint, scope, hour, checks, hits) VALUES "
        "('auto_close_jobs', 'global', date_trunc('hour', clock_timestamp(), 'UTC'), 20, 15)"
    )
    for options in ((), ("--check-idempotency",)):
        done = desk.run(*options)
        assert done.exit_code == 2 and "auto_close_jobs: 15 duplicates in last hour" in done.stdout
    assert desk.run("--check-hotspots").exit_code == 0


def test_fix_moves_out_of_hotspots_and_can_be_undone(desk: Desk) -> None:
    desk.insert(CROWDED)
    before = desk.sql("SELECT id, cron_expression, status FROM schedule ORDER BY id")
    assert desk.run().exit_code == 1
    done = desk.run("--fix", "--verbose")
    assert done.exit_code == 0, done.stdout
    assert "move  job " in done.stdout and "Made as change 1;" in done.stdout
    assert done.stdout.index("move  job ") < done.stdout.index("SCHEDULE HEALTH CHECK REPORT")
    assert "No schedule hotspots found" in done.stdout
    (by,) = {row[0] for row in desk.sql("SELECT changed_by FROM schedule_change")}
    assert by.endswith("validate-schedules --fix")
    assert commands.invoke("schedules", "revert", "--yes", "1",
                           "--database-url", desk.url).exit_code == 0  # fmt: skip
    assert desk.sql("SELECT id, cron_expression, status FROM schedule ORDER BY id") == before


def test_fix_cancels_all_but_the_oldest_of_duplicates(desk: Desk) -> None:
    desk.two_of_one()
    found = desk.run()
    assert found.exit_code == 2 and "second (2): means the same as first (1)" in found.stdout
    assert desk.run("--fix").exit_code == 0
    assert desk.sql("SELECT identifier, status FROM schedule ORDER BY id") == [
        ("first", "PENDING"), ("second", "CANCELLED"),
    ]  # fmt: skip


def test_fix_makes_all_its_changes_in_one_transaction(desk: Desk) -> None:
    desk.insert(CROWDED)
    desk.two_of_one()
    done = desk.run("--fix", "--format", "json")
    told = json.loads(done.stdout)
    assert told["change_id"] == 1 and told["result"] == "passed"
    assert {one["reason"] for one in told["changes"]} == {"move", "duplicate"}
    written = desk.sql("SELECT xmin::text, change_id FROM schedule_change")
    (transaction,) = set(written)
    assert len(written) == len(told["changes"]) and transaction[1] == 1
    (changed,) = desk.sql(
        "SELECT DISTINCT s.xmin::text, change_id FROM schedule AS s "
        "JOIN schedule_change ON schedule_id = id"
    )
    assert changed == transaction


def test_fixing_again_changes_nothing(desk: Desk) -> None:
    desk.insert(CROWDED)
    assert desk.run("--fix").exit_code == 0
    before = desk.rows()
    done = desk.run("--fix")
    assert done.exit_code == 0 and "Nothing to fix." in done.stdout
    assert desk.rows() == before


def test_what_no_plan_can_mend_keeps_its_exit_code(desk: Desk) -> None:
    desk.insert([one(f"pinned {number}", "0 0 * * *", movable=False) for number in range(12)])
    before = desk.rows()
    assert desk.run("--fix").exit_code == 1
    assert desk.rows() == before


@pytest.mark.parametrize("options", [("--fix", "--dry-run"), ("--dry-run",), ()], ids=str)
def test_without_fix_nothing_is_written(desk: Desk, options: tuple[str, ...]) -> None:
    desk.insert(CROWDED)
    desk.two_of_one()
    before = desk.rows()
    done = desk.run(*options)
    assert done.exit_code == 2 and desk.rows() == before
    assert ("duplicate  second: PENDING -> CANCELLED" in done.stdout) == bool(options)
    assert "Made as change" not in done.stdout


def test_of_many_changes_some_are_shown(desk: Desk) -> None:
    desk.insert([one(f"job {number}", "0 0 * * *") for number in range(60)])
    done = desk.run("--dry-run", "--capacity", "20")
    assert "more (--verbose shows all)" in done.stdout and done.stdout.count("  move  ") == 20
    shown = desk.run("--dry-run", "--capacity", "20", "--verbose").stdout
    assert "--verbose shows all" not in shown and shown.count("  move  ") > 20


def test_moves_that_would_make_two_schedules_one_are_left_out(desk: Desk) -> None:
    same = [one(f"at {minute}", f"{minute} 0 * * *", task="t") for minute in range(10)]
    desk.insert([*CROWDED, *same])
    assert desk.run("--fix", "--capacity", "16").exit_code in (0, 1)
    (row,) = desk.sql("SELECT count(*), count(DISTINCT schedule_hash) FROM schedule")
    assert row[0] == row[1] == 22


# -- what it survives ------------------------------------------------------------------------------

Interference = Callable[[Callable[[Sequence[Change]], object]], None]


@pytest.fixture
def before_writing(monkeypatch: pytest.MonkeyPatch) -> Interference:
    """Let something happen after the plan was made and before it is written."""

    def interfere(happens: Callable[[Sequence[Change]], object]) -> None:
        def planned(*given: Any, **more: Any) -> list[Change]:
            found = remedies(*given, **more)
            happens(found)
            return found

        monkeypatch.setattr(validation_run, "remedies", planned)

    return interfere


def test_a_database_that_goes_away_before_the_write_is_3_and_nothing_is_written(
    desk: Desk, tcp_proxy: Callable[[str], TcpProxy], before_writing: Interference
) -> None:
    desk.insert(CROWDED)
    before, proxy = desk.rows(), tcp_proxy(desk.url)
    before_writing(lambda _: proxy.refuse())
    done = desk.run("--fix", url=proxy.url(desk.url))
    assert done.exit_code == 3 and "postgres" in done.stderr
    assert desk.rows() == before and "Made as change" not in done.stdout


def test_a_database_that_goes_away_amid_the_write_is_3_and_nothing_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.insert(CROWDED)
    desk.sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$; "
        "CREATE TRIGGER die BEFORE INSERT ON schedule_change FOR EACH ROW EXECUTE FUNCTION die()"
    )
    before = desk.rows()
    done = desk.run("--fix")
    assert done.exit_code == 3 and "Made as change" not in done.stdout
    assert desk.rows() == before


def test_a_schedule_that_was_changed_meanwhile_is_3_and_nothing_is_written(
    desk: Desk, before_writing: Interference
) -> None:
    desk.insert(CROWDED)

    def another(found: Sequence[Change]) -> None:
        desk.sql(
            f"UPDATE schedule SET cron_expression = '7 7 * * *' WHERE id = {found[-1].before.id}"
        )

    before_writing(another)
    done = desk.run("--fix")
    assert done.exit_code == 3 and "changed since it was read" in done.stderr
    assert desk.sql("SELECT change_id FROM schedule_change") == []
    assert len(desk.sql("SELECT id FROM schedule WHERE cron_expression = '0 0 * * *'")) == 11


def test_a_database_that_is_not_migrated_is_3(empty_database_url: str) -> None:
    done = commands.run("validate-schedules", "--database-url", empty_database_url)
    assert done.returncode == 3 and "idemwatch db upgrade" in done.stderr


def test_an_interruption_is_130(desk: Desk, tcp_proxy: Callable[[str], TcpProxy]) -> None:
    proxy = tcp_proxy(desk.url)
    proxy.hold_requests()
    command = [commands.PROGRAM, "validate-schedules", "--database-url", proxy.url(desk.url)]
    process = subprocess.Popen(
        command, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert proxy.caught.wait(commands.DEADLINE_SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=commands.DEADLINE_SECONDS)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
