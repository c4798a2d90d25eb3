"""How long a run takes, and how many there is room for: measured, else told, else assumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from idemwatch.alerts.thresholds import CAPACITY
from idemwatch.idempotency.settings import Settings
from idemwatch.scheduler.capacity import Capacity, capacity_of, concurrency
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.sources import read_source
from support.table import Table
from support.venv import clean_environ

ADD_SCHEDULE = """
INSERT INTO schedule (identifier, task, cron_expression, duration_estimate_seconds, schedule_hash)
VALUES (%s, %s, %s, %s, %s) RETURNING id
"""
ADD_RECORD = """
INSERT INTO idempotency_record (key, endpoint, scope, request_hash, authority, state, owner,
    task_id, attempt, fence, lease_until, created_at, completed_at, expires_at)
VALUES (%s, %s, 'global', '', 'postgres', %s, '', '', 0, 1, now(), now(), now() + %s, now())
"""
ADD_FIRING = """
INSERT INTO schedule_firing (schedule_id, due_at, outcome, record_key, publish_until)
VALUES (%s, now() - %s * interval '1 day' - %s * interval '1 minute', 'fired', %s, now())
"""


class Desk:
    """A table of schedules, and records of runs of theirs."""

    def __init__(self, url: str) -> None:
        self.url, self.table, self.keys = url, Table(url), 0

    def schedule(self, name: str, task: str, estimate: float | None = None) -> int:
        given = (name, task, "0 0 * * *", estimate, name)
        return int(self.table.execute(ADD_SCHEDULE, given)[0][0])

    def run(self, task: str, seconds: Sequence[float], **more: Any) -> list[str]:
        """Finished runs of a task; their keys without the namespace."""
        namespace, state = more.get("namespace", "idemwatch"), more.get("state", "done")
        made = []
        for one in seconds:
            self.keys += 1
            made.append(f"k{self.keys}")
            given = (f"{namespace}:{made[-1]}", task, state, timedelta(seconds=one))
            self.table.execute(ADD_RECORD, given)
        return made

    def fire(self, schedule: int, keys: Sequence[str], days_ago: int = 1) -> None:
        for number, key in enumerate(keys):
            self.table.execute(ADD_FIRING, (schedule, days_ago, number, key))

    def durations(self, namespace: str = "idemwatch") -> dict[str, float]:
        settings = Settings(database_url=self.url, namespace=namespace)
        found = read_source("table", app=None, settings=settings).schedules
        return {one.name: one.duration.total_seconds() for one in found}


@pytest.fixture
def desk(database_url: str) -> Desk:
    return Desk(database_url)


# -- durations -------------------------------------------------------------------------------------


def test_own_firings_come_before_the_task_the_task_before_the_estimate_and_that_before_60_s(
    desk: Desk,
) -> None:
    measured = desk.schedule("measured", "busy", 7)
    desk.schedule("sibling", "busy", 7)
    desk.schedule("estimated", "new", 7)
    desk.schedule("unknown", "new")
    desk.fire(measured, desk.run("busy", [40.0] * 20))
    desk.run("busy", [200.0] * 60)
    assert desk.durations() == {"measured": 40, "sibling": 200, "estimated": 7, "unknown": 60}


def test_it_is_the_95th_percentile_and_not_the_longest(desk: Desk) -> None:
    desk.fire(desk.schedule("own", "a"), desk.run("a", range(1, 102)))
    desk.run("b", range(1, 102))
    desk.schedule("of its task", "b")
    assert desk.durations() == {"own": 96, "of its task": 96}


def test_runs_that_did_not_end_well_and_firings_of_over_a_week_ago_tell_nothing(desk: Desk) -> None:
    one = desk.schedule("one", "a", 7)
    desk.fire(one, desk.run("elsewhere", [500.0]), days_ago=8)
    desk.run("a", [300.0], state="running")
    desk.run("a", [300.0], state="poisoned")
    assert desk.durations() == {"one": 7}


def test_what_waited_for_its_retries_ran_no_longer(desk: Desk) -> None:
    desk.fire(desk.schedule("own", "a"), desk.run("a", [3000.0]))
    desk.table.execute(
        "UPDATE idempotency_record SET attempt = 5,"
        " fence = 1e6 * extract(epoch FROM completed_at - interval '30 seconds')"
    )
    desk.schedule("of its task", "a")
    assert desk.durations() == {"own": 30, "of its task": 30}


def test_only_runs_of_its_own_namespace_count(desk: Desk) -> None:
    desk.schedule("one", "a", 7)
    desk.run("a", [300.0], namespace="my-app")
    assert desk.durations("my_app") == {"one": 7}, "an underscore stands for itself"
    assert desk.durations("my-app") == {"one": 300}


def test_of_an_apps_own_schedules_the_tasks_tell_as_far_as_the_database_is_there(
    desk: Desk, tmp_path: Path
) -> None:
    desk.run("busy", [300.0])
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\n"
        "app = Celery('proj', broker='memory://')\n"
        "app.conf.beat_schedule = {name: {'task': name, 'schedule': 60} for name in "
        "('busy', 'new')}\n"
    )

    def told(database_url: str) -> tuple[dict[str, float], str]:
        command = "-A proj idemwatch schedules list --source beat --format json --database-url"
        done = subprocess.run(
            [sys.executable, "-m", "celery", *command.split(), database_url],
            cwd=tmp_path, env=clean_environ(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = {one["task"]: one["duration_seconds"] for one in json.loads(done.stdout)}
        return found, done.stderr

    assert told(desk.url) == ({"busy": 300, "new": 60}, "")
    found, complaint = told("postgresql://127.0.0.1:1/none")
    assert found == {"busy": 60, "new": 60}
    assert complaint.startswith("durations are estimates: postgres is unavailable")


def test_a_run_of_no_time_at_all_is_measured_too(desk: Desk) -> None:
    desk.schedule("one", "a", 7)
    desk.run("a", [0.0])
    assert desk.durations() == {"one": 0.001}


def test_without_anything_a_run_takes_60_s() -> None:
    assert schedule_of({"cron_expression": "0 0 * * *"}).duration == timedelta(seconds=60)


# -- capacity --------------------------------------------------------------------------------------


class Workers:
    """An app, as far as it is asked for its workers."""

    def __init__(self, stats: dict[str, Any] | None, *, broker: bool = True) -> None:
        self.control, self._stats, self._broker = self, stats, broker

    def connection_for_write(self) -> Workers:
        return self

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ensure_connection(self, **_: object) -> None:
        if not self._broker:
            raise ConnectionRefusedError

    def inspect(self, **_: object) -> Workers:
        return self

    def stats(self) -> dict[str, Any] | None:
        return self._stats


TWO = {
    "a@host": {"pool": {"max-concurrency": 8}},
    "b@host": {"pool": {"max-concurrency": 4}},
    "solo@host": {"pool": None},
}
SET, UNSET = Settings(schedule_capacity=30), Settings()


@pytest.mark.parametrize(
    ("given", "app", "settings", "found"),
    [
        (5.0, Workers(TWO), SET, (5.0, "option")),
        (None, Workers(TWO), SET, (12, "workers")),
        (None, Workers(None), SET, (30, "setting")),
        (None, Workers({}), UNSET, (14, "default")),
        (None, Workers(TWO, broker=False), SET, (30, "setting")),
        (None, None, UNSET, (14, "default")),
    ],
)
def test_what_was_said_comes_before_the_workers_those_before_the_setting_and_that_before_14(
    given: float | None, app: Any, settings: Settings, found: tuple[float, str]
) -> None:
    assert capacity_of(given, app, settings) == Capacity(*found)


def test_what_is_assumed_is_14_with_which_12_tasks_are_85_percent() -> None:
    assert CAPACITY == 14 and int(12 / CAPACITY * 100) == 85


def test_pools_that_tell_no_size_count_nothing() -> None:
    assert concurrency(TWO) == 12 and concurrency({"x": {}}) == 0
