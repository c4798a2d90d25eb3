"""What the doctor makes of facts: tasks, times, clocks, servers, versions. No server is needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from idemwatch.exporter.doctor_clock import Look, clock_finding, skew
from idemwatch.exporter.doctor_findings import Finding, Level, exit_code, listed, span
from idemwatch.exporter.doctor_postgres import (
    LIVE_SECONDS,
    beat_findings,
    late_finding,
    poisoned_finding,
    role_findings,
    schema_finding,
)
from idemwatch.exporter.doctor_postgres_store import MOST_LATE, Role, Runs
from idemwatch.exporter.doctor_redis import server_findings
from idemwatch.exporter.doctor_redis_store import Server
from idemwatch.exporter.doctor_run import Check, run
from idemwatch.exporter.doctor_task_facts import AppFacts, TaskFacts, retry_delays
from idemwatch.exporter.doctor_tasks import task_findings, visibility_findings
from idemwatch.exporter.doctor_versions import (
    extras_finding,
    package_finding,
    postgres_finding,
    redis_finding,
    version_of,
)
from idemwatch.exporter.doctor_view import lines, summary
from idemwatch.exporter.doctor_workers import heartbeat_findings
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.scheduler.gauges import LIVE
from idemwatch.scheduler.terminal import Screen
from support.venv import clean_environ

HOUR = 3600.0
SOUND = TaskFacts(
    name="a.sound", idempotent=True, acks_late=True, reject_on_worker_lost=True, ttl=24 * HOUR,
    lease=30.0, time_limit=600.0,
)  # fmt: skip
APP = AppFacts(tasks=(SOUND,), transport="redis", visibility=HOUR, prefetch=1)
ROLE = Role(
    name="w", superuser=False, powerful=False, standby=False, read_only=False, migrated=True,
    missing={}, owned=[],
)  # fmt: skip
REDIS = Server(version="7.2.4", role="master", policy="noeviction", append_only=True)


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [one.level for one in findings if one.level is not Level.OK]


def of(task: TaskFacts, app: AppFacts = APP) -> list[Finding]:
    return [one for one in task_findings(replace(app, tasks=(task,))) if one.level is not Level.OK]


# -- tasks -----------------------------------------------------------------------------------------


def test_a_sound_app_has_nothing_to_change() -> None:
    found = list(task_findings(APP))
    assert [one.level for one in found] == [Level.OK] and "a.sound" in found[0].found
    assert levels(visibility_findings(APP, {})) == []


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({"acks_late": False}, Level.WARNING, "acks_late is off"),
        ({"reject_on_worker_lost": False}, Level.WARNING, "reject_on_worker_lost is off"),
        ({"acks_on_failure": False}, Level.INFO, "task_acks_on_failure_or_timeout is off"),
        ({"ignore_result": True}, Level.INFO, "ignore_result with on_duplicate='replay'"),
        ({"ttl": HOUR - 1}, Level.WARNING, "shorter than the broker's visibility timeout"),
        ({"retry_span": 25 * HOUR}, Level.WARNING, "shorter than all retries take"),
        ({"lease": 601.0}, Level.WARNING, "the lease is longer than the hard time limit"),
        ({"max_hold": 599.0}, Level.WARNING, "idempotency_max_hold is shorter"),
        ({"longest_delay": HOUR + 1}, Level.WARNING, "a retry waits longer"),
        ({"enabled": False}, Level.WARNING, "idempotency_enabled is off"),
        ({"problem": "idempotency_ttl: wrong"}, Level.ERROR, "a.sound: idempotency_ttl: wrong"),
        ({"idempotent": False}, Level.INFO, "1 of 1 tasks are not idempotent: a.sound"),
    ],
)
def test_each_faulty_option_is_one_finding_that_names_the_task(
    changed: dict[str, Any], level: Level, said: str
) -> None:
    (found,) = of(replace(SOUND, **changed))
    assert found.level is level and said in found.found and "a.sound" in found.found
    assert found.change


@pytest.mark.parametrize(
    "changed",
    [{"ttl": HOUR}, {"lease": 600.0}, {"max_hold": 600.0}, {"longest_delay": HOUR},
     {"retry_span": 24 * HOUR}, {"ignore_result": True, "on_duplicate": "skip"}],
)  # fmt: skip
def test_what_is_just_within_is_no_finding(changed: dict[str, Any]) -> None:
    assert of(replace(SOUND, **changed)) == []


def test_one_fault_of_many_tasks_is_told_once() -> None:
    many = tuple(replace(SOUND, name=f"t{n}", acks_late=False) for n in range(9))
    (found,) = (one for one in task_findings(replace(APP, tasks=many)) if "acks_late" in one.found)
    assert found.found.startswith("t0, t1, t2, t3, t4 and 4 more: ")


def test_an_app_without_tasks_or_with_eager_ones_is_told() -> None:
    assert levels(task_findings(replace(APP, tasks=()))) == [Level.WARNING]
    assert "task_always_eager" in of(SOUND, replace(APP, always_eager=True))[0].found


def test_a_run_longer_than_the_visibility_timeout_is_worse_for_a_plain_task() -> None:
    long = replace(SOUND, time_limit=2 * HOUR)
    plain = replace(long, name="a.plain", idempotent=False)
    early = replace(plain, name="a.early", acks_late=False)
    found = list(visibility_findings(replace(APP, tasks=(long, plain, early)), {}))
    assert [one.level for one in found] == [Level.ERROR, Level.WARNING]
    assert "a.plain may take 2 h" in found[0].found and "done twice" in found[0].found
    assert "'visibility_timeout': 14400" in found[0].change
    assert "a.early" not in "".join(one.found for one in found)


def test_without_a_limit_the_runs_that_are_known_tell() -> None:
    app = replace(APP, tasks=(replace(SOUND, time_limit=None),))
    assert levels(visibility_findings(app, {})) == [Level.INFO]
    assert levels(visibility_findings(app, {"a.sound": Runs(5, 10.0, 60.0)})) == []
    (found,) = visibility_findings(app, {"a.sound": Runs(5, 10.0, HOUR + 60)})
    assert found.level is Level.WARNING and "a.sound may take 61 min" in found.found


def test_prefetch_is_told_where_messages_wait_too_long_behind_others() -> None:
    runs = {"a.sound": Runs(5, 500.0, 550.0)}
    assert levels(visibility_findings(replace(APP, prefetch=4), runs)) == []
    (found, _) = visibility_findings(replace(APP, prefetch=8), runs)
    assert "worker_prefetch_multiplier is 8" in found.found
    assert levels(visibility_findings(APP, {"a.sound": Runs(5, 500.0, 600.0)})) == []


def test_a_broker_without_a_visibility_timeout_outlives_no_message() -> None:
    app = replace(APP, transport="amqp", visibility=None, tasks=(replace(SOUND, ttl=60.0),))
    assert levels([*task_findings(app), *visibility_findings(app, {})]) == []


def test_the_delays_of_retries_are_those_that_celery_makes() -> None:
    task = SimpleNamespace(
        autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=60, max_retries=5,
        default_retry_delay=180,
    )  # fmt: skip
    assert retry_delays(task) == (60.0, 10 + 20 + 40 + 60 + 60)
    task.retry_backoff = False
    assert retry_delays(task) == (180.0, 900.0)
    task.retry_kwargs = {"max_retries": 2}
    assert retry_delays(task) == (180.0, 360.0)
    task.retry_kwargs = {"max_retries": None}
    assert retry_delays(task) == (180.0, 0.0)
    task.autoretry_for = ()
    assert retry_delays(task) == (0.0, 0.0)


# -- clocks ----------------------------------------------------------------------------------------


def test_the_round_trip_explains_no_skew() -> None:
    quick, slow = Look(100.0, 105.05, 100.1), Look(100.0, 104.0, 103.0)
    found = skew([slow, quick])
    assert found.seconds == pytest.approx(5.0) and found.doubt == pytest.approx(0.05)
    assert clock_finding("x", skew([Look(100.0, 104.0, 104.0)])).level is Level.OK


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(0.9, Level.OK), (-1.1, Level.WARNING), (9.0, Level.WARNING), (-11.0, Level.ERROR)],
)
def test_a_clock_is_told_by_how_far_it_is_off(ahead: float, level: Level) -> None:
    found = clock_finding("x", skew([Look(100.0, 100.0 + ahead, 100.0)]))
    assert found.level is level
    assert ("ahead of" if ahead > 0 else "behind") in found.found


def test_each_worker_whose_clock_is_off_is_named() -> None:
    good, bad = Look(100.0, 100.0, 100.1), Look(100.0, 40.0, 100.1)
    found = list(heartbeat_findings({"a@x": [good], "b@y": [bad], "c@z": [good, bad]}))
    assert [one.level for one in found] == [Level.OK, Level.ERROR]
    assert "a@x, c@z" in found[0].found and "b@y" in found[1].found
    assert levels(heartbeat_findings({})) == [Level.WARNING]


# -- servers ---------------------------------------------------------------------------------------


def test_a_least_role_is_enough_and_more_is_told() -> None:
    assert levels(role_findings(ROLE)) == []
    assert levels(role_findings(replace(ROLE, superuser=True))) == [Level.WARNING]
    assert levels(role_findings(replace(ROLE, powerful=True))) == [Level.WARNING]
    assert levels(role_findings(replace(ROLE, owned=["idempotency_record"]))) == [Level.INFO]
    assert levels(role_findings(replace(ROLE, standby=True))) == [Level.ERROR]
    assert levels(role_findings(replace(ROLE, read_only=True))) == [Level.ERROR]
    assert levels(role_findings(replace(ROLE, migrated=False, missing={"a": ["SELECT"]}))) == []


def test_what_a_role_lacks_is_told_by_what_breaks() -> None:
    lacks = replace(ROLE, missing={"idempotency_record": ["DELETE"]})
    (found,) = role_findings(lacks)
    assert found.level is Level.ERROR and "lacks DELETE on idempotency_record" in found.found
    assert found.change.startswith("GRANT DELETE ON idempotency_record TO w")
    assert levels(role_findings(replace(ROLE, missing={"endpoint_stats": ["INSERT"]}))) == [
        Level.WARNING
    ]
    assert levels(role_findings(replace(ROLE, missing={"schedule": ["UPDATE"]}))) == [Level.INFO]


def test_records_beats_and_schema_are_told() -> None:
    assert poisoned_finding("Redis", 0).level is late_finding(9).level is Level.OK
    assert "1 poisoned key in Redis" in poisoned_finding("Redis", 1).found
    assert late_finding(MOST_LATE).level is Level.WARNING
    assert levels(beat_findings(0, 0, 0)) == []
    assert levels(beat_findings(3, 0, 0)) == [Level.ERROR]
    assert levels(beat_findings(3, 1, 2)) == [Level.WARNING]
    found = schema_finding("the database is not migrated (…): run `idemwatch db upgrade`")
    assert (found.level, found.change) == (Level.ERROR, "run `idemwatch db upgrade`")


@pytest.mark.parametrize(
    ("changed", "decides", "cache"),
    [
        ({}, [], []),
        ({"policy": "allkeys-lru"}, [Level.ERROR], []),
        ({"policy": "allkeys-lru", "max_bytes": 0}, [Level.WARNING], []),
        ({"policy": ""}, [Level.INFO], [Level.INFO]),
        ({"append_only": False, "snapshots": True}, [Level.WARNING], []),
        ({"append_only": False, "snapshots": False}, [Level.WARNING], []),
        ({"append_only": None}, [Level.INFO], []),
        ({"role": "slave"}, [Level.ERROR], [Level.ERROR]),
        ({"cluster": True}, [Level.ERROR], [Level.ERROR]),
        ({"version": "6.0.20"}, [Level.ERROR], [Level.ERROR]),
        ({"version": ""}, [Level.INFO], [Level.INFO]),
    ],
)
def test_a_redis_is_judged_by_whether_it_decides(
    changed: dict[str, Any], decides: list[Level], cache: list[Level]
) -> None:
    server = replace(REDIS, **changed)
    assert levels(server_findings(server, decides=True)) == decides
    assert levels(server_findings(server, decides=False)) == cache


def test_a_beat_is_live_as_long_as_the_metrics_say() -> None:
    assert LIVE.total_seconds() == LIVE_SECONDS


def test_it_runs_on_a_workers_host_without_any_extra() -> None:
    lacking = "numpy", "yaml", "bcrypt", "alembic", "sqlalchemy", "grafanalib", "libcst", "rich"
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking}))\n"
        "from idemwatch.exporter.cli import main; main()"
    )
    done = [_run(program, *words) for words in (["doctor"], ["keys", "why", "--help"])]
    assert [one.returncode for one in done] == [2, 0], done
    assert "extras: web lacks yaml, bcrypt; schedules lacks numpy; server lacks" in done[0].stdout


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words], env=clean_environ(), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_versions_are_compared_as_numbers() -> None:
    assert version_of("5.10.0rc1") == (5, 10, 0) and version_of("none") == ()
    assert package_finding("celery", "5.5.9").level is Level.ERROR
    assert package_finding("celery", "5.6.0").level is Level.OK
    assert package_finding("celery", "5.8.0").level is Level.WARNING
    assert package_finding("psycopg", "").level is Level.ERROR
    assert redis_finding("6.2.0").level is Level.OK
    assert redis_finding("6.10.1").level is Level.OK
    assert postgres_finding(140012).level is Level.ERROR
    assert postgres_finding(150000).level is Level.OK
    lacking = extras_finding({"web": (), "server": ("rich",)})
    assert lacking.level is Level.INFO and 'pip install "idemwatch[server]"' in lacking.change


# -- the whole -------------------------------------------------------------------------------------


def check(name: str, *found: Finding, raises: Exception | None = None, **given: Any) -> Check:
    def look() -> Iterable[Finding]:
        if raises is not None:
            raise raises
        return found

    return Check(name, look, **given)


def test_a_check_that_fails_costs_only_itself_and_its_text_is_kept_back() -> None:
    fine = Finding("a", Level.OK, "fine")
    found = run([check("a", fine), check("b", raises=LookupError("s3cret")), check("c", fine)], 5)
    assert [one.level for one in found] == [Level.OK, Level.ERROR, Level.OK]
    assert "LookupError" in found[1].found and "s3cret" not in found[1].found


def test_a_store_that_is_away_is_one_error_and_the_rest_is_unchecked() -> None:
    away = StoreUnavailable("postgres", "refused")
    found = run([check("a", raises=away, primary=True), check("b", raises=away)], 5)
    assert [one.level for one in found] == [Level.ERROR, Level.UNCHECKED]
    assert found[1].found == "not checked: postgres is unavailable"  # the reason is told once
    other = StoreUnavailable("postgres", "a table is missing")
    found = run([check("a", raises=away, primary=True), check("b", raises=other)], 5)
    assert "a table is missing" in found[1].found
    wrong = run([check("a", raises=ConfigurationError("x", "is wrong"))], 5)
    assert (wrong[0].level, wrong[0].found) == (Level.ERROR, "x: is wrong")


def test_a_check_that_hangs_is_an_error_when_the_deadline_has_passed() -> None:
    goes_on = threading.Event()
    hanging = Check("hangs", lambda: [Finding("x", Level.OK, str(goes_on.wait(30)))])
    try:
        found = run([hanging, check("b", Finding("b", Level.OK, "fine"))], 0.2)
    finally:
        goes_on.set()
    assert [one.level for one in found] == [Level.ERROR, Level.OK]
    assert found[0].found == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("levels_found", "code"),
    [
        ([Level.OK, Level.INFO], 0),
        ([Level.OK, Level.WARNING], 1),
        ([Level.UNCHECKED], 1),
        ([Level.WARNING, Level.ERROR], 2),
        ([], 0),
    ],
)
def test_the_worst_finding_is_the_exit_code(levels_found: list[Level], code: int) -> None:
    assert exit_code(Finding("c", level, "") for level in levels_found) == code


def test_a_summary_counts_the_worst_first_and_colours_are_for_terminals() -> None:
    found = [Finding("c", level, "x\x1b[2J", "y") for level in Level]
    text = "\n".join(lines(found, 1.25, Screen()))
    assert text.endswith("1 error, 1 warning, 1 unchecked, 1 info, 1 ok in 1.2 s")
    assert "\x1b" not in text
    assert "\x1b[31m" in summary(found, 1, Screen(colour=True))


def test_names_and_durations_are_short() -> None:
    assert listed(["a"]) == "a" and listed([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    assert [span(s) for s in (0.004, 1.5, 90, 5400, 9000)] == [
        "4 ms", "1.5 s", "90 s", "90 min", "2.5 h",
    ]  # fmt: skip
