"""docs/operations.md: its figures are measured, its commands are right."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from benchmarks.sizes import postgres_bytes, redis_bytes
from idemwatch.idempotency import IdempotencyService, Settings
from idemwatch.idempotency.engine import new_owner
from idemwatch.idempotency.errors import SchemaMismatch
from idemwatch.idempotency.postgres_link import POOL_SIZE, PostgresLink
from idemwatch.idempotency.record import Claim, Wait
from idemwatch.idempotency.redis_link import RedisLink
from support.alerting import ALERTS, Alertmanager, run, running_alertmanager
from support.desk import Desk
from support.fleet import Fleet
from support.pages import page, tables
from support.reader import Reader, blocks, commands
from support.table import Table
from support.venv import Venv

PAGE = page("docs/operations.md").text
RECORDS = 4000
NEAR = 0.2
"""A figure of the page may be off by so much: page fills and allocators differ a little."""


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first heading this is."""
    (found,) = [rows for header, *rows in tables(PAGE) if header[0] == first]
    return found


# -- sizing ----------------------------------------------------------------------------------------


def test_a_record_takes_what_the_page_says(database_url: str, redis_url: str) -> None:
    measured = (*postgres_bytes(database_url, RECORDS), redis_bytes(redis_url, RECORDS))
    told = [int(row[1]) for row in table("for each record")]
    assert len(told) == len(measured)
    for said, found in zip(told, measured, strict=True):
        assert abs(found - said) < NEAR * said, (told, measured)


class Trips:
    """How often each server is asked, counted where the drivers wait for an answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.postgres = self.redis = 0
        waited, called = psycopg.Connection.wait, RedisLink._call

        def wait(connection: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
            # Those that set an attribute of the connection send nothing.
            self.postgres += not generator.__qualname__.startswith("BaseConnection._set_")
            return waited(connection, generator, *args, **kwargs)

        def call(link: RedisLink, command: tuple[Any, ...]) -> Any:
            self.redis += 1
            return called(link, command)

        monkeypatch.setattr(psycopg.Connection, "wait", wait)
        monkeypatch.setattr(RedisLink, "_call", call)

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """What a piece of work costs."""
        self.postgres = self.redis = 0
        work()
        return self.postgres, self.redis


def asked(service: IdempotencyService, key: str) -> None:
    """A message that would wait for the holder of a key."""
    authority = service.settings.authority
    task_id = new_owner()
    service.store.claim(Claim(key, new_owner(), authority, task_id=task_id, wait=Wait(task_id)))


def once(service: IdempotencyService, key: str) -> None:
    with service.once(key) as work:
        work.result = 1


def transact(service: IdempotencyService, key: str) -> None:
    with service.transaction(key) as tx:
        tx.result = 1


def test_an_execution_asks_the_servers_as_often_as_the_page_says(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips, found = Trips(monkeypatch), []
    for authority in ("postgres", "redis"):
        settings = Settings(redis_url=redis_url, database_url=database_url, authority=authority)
        service = IdempotencyService(settings)
        service.engine.statistics = None  # which have a thread of their own
        for key in ("first", "second"):  # connections are made and scripts are known after these
            once(service, f"{authority} {key}")
            asked(service, f"{authority} running")
            asked(service, f"{authority} running")
        work = ((once, "new"), (once, "new"), (asked, "running"))
        found += [trips.of(partial(do, service, f"{authority} {key}")) for do, key in work]
        if authority == "postgres":
            transact(service, "warm")
            last = [trips.of(partial(transact, service, "new")) for _ in range(2)]
        service.engine.close()
    told = [(int(re.findall(r"\d+", row[1])[0]), int(row[2])) for row in table("round trips")]
    assert [*found, *last] == told


@pytest.mark.worker
def test_a_process_keeps_few_connections(new_fleet: Callable[..., Fleet], redis_url: str) -> None:
    fleet = new_fleet("postgres", redis_url=redis_url)
    labels = [fleet.label() for _ in range(20)]
    for task_id in [fleet.send("work", label) for label in labels]:
        fleet.result(task_id)
    fleet.wait_for_idle()
    (name,) = set(re.findall(r"application_name = '(\w+)'", PAGE))
    with psycopg.connect(fleet.conf["idempotency_database_url"]) as connection:
        row = connection.execute(
            "SELECT count(*), count(DISTINCT pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            [name],
        ).fetchone()
    assert row is not None
    children = len(fleet.worker.children())
    assert children == 2
    assert children <= row[0] <= 3 * children
    assert POOL_SIZE == 8


def test_its_commands_run(tmp_path: Path, empty_database_url: str, redis_url: str) -> None:
    readme = page("README.md").text
    addresses = {
        "redis://localhost:6379/0": redis_url,
        "redis://localhost:6379/2": redis_url,
        "postgresql://localhost/jobs": empty_database_url,
    }
    reader = Reader(tmp_path, Venv(Path(sys.prefix)), addresses)
    reader.save(blocks(readme, "python")[0])
    lines = [line for line in commands(PAGE) if not line.startswith("amtool ")]
    assert len(lines) >= 4
    for line in lines:
        reader.run(f"export IDEMWATCH_DATABASE_URL='{empty_database_url}'; {line}")


# -- upgrade and restore ---------------------------------------------------------------------------


def test_a_process_at_work_goes_on_after_a_migration_and_a_new_one_waits(
    database_url: str,
) -> None:
    at_work, new = PostgresLink(database_url), PostgresLink(database_url)
    ask = lambda connection: connection.execute("SELECT 1").fetchone()  # noqa: E731
    assert at_work.run(ask) == (1,)
    Table(database_url).execute("UPDATE idemwatch_alembic_version SET version_num = '9999'")
    at_work.drop()  # its connections break, as they do now and then
    assert at_work.run(ask) == (1,)
    with pytest.raises(SchemaMismatch, match="newer"):
        new.run(ask)
    at_work.close()
    new.close()


def test_after_a_restore_beats_plan_from_now_on(desk: Desk) -> None:
    (plan_anew,) = [block for block in blocks(PAGE, "sql") if "next_due_at" in block]
    one = desk.add("0 * * * *")
    desk.tick()
    desk.due(one, timedelta(days=1))
    desk.rows(plan_anew)
    desk.tick()
    assert "late" not in desk.outcomes(one) and "missed" not in desk.outcomes(one)
    assert desk.one("SELECT next_due_at > now() FROM schedule")


# -- alerts ----------------------------------------------------------------------------------------


def test_it_lists_the_alerts_that_page_and_no_others() -> None:
    groups = yaml.safe_load((ALERTS / "rules" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    paging = {rule["alert"] for rule in rules if rule["labels"]["severity"] == "critical"}
    assert {name for row in table("alert") for name in row[0].split(", ")} == paging


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with running_alertmanager(config, tmp_path) as server:
        yield server


def test_amtool_takes_each_silence_and_alerts_are_silent(alertmanager: Alertmanager) -> None:
    lines = [line for line in commands(PAGE) if line.startswith("amtool ")]
    assert len(lines) >= 4
    for line in lines:
        program, *arguments = shlex.split(line.replace("http://localhost:9093", alertmanager.url))
        run(program, *arguments)
    silences = alertmanager._call("/api/v2/silences")
    assert len(silences) == len(lines) - 1
    groups = yaml.safe_load((ALERTS / "rules" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    for silence in silences:
        for matcher in silence["matchers"]:
            named = matcher["value"].split("|") if matcher["isRegex"] else [matcher["value"]]
            assert matcher["name"] == "alertname"
            assert all(any(re.fullmatch(one, alert) for alert in alerts) for one in named)
