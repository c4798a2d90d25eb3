"""What an app says of scheduled tasks, and the query for duplicates of the last hour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from celery import Celery
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.idempotency.statistics_store import duplicates_last_hour
from idemwatch.scheduler.cron import parse_cron
from idemwatch.scheduler.idempotency_checks import CallFact
from idemwatch.scheduler.inventory import Inventory
from idemwatch.scheduler.model import Schedule
from idemwatch.scheduler.task_checks import call_facts

DAY = timedelta(days=1)


def nothing() -> None: ...


def of_day(day: str = "") -> None: ...


@pytest.fixture
def app() -> Celery:
    made = Celery("checked", broker="memory://", set_as_current=False)

    def task(name: str, run: Callable[..., None], **options: Any) -> None:
        made.task(name=name, base=IdempotentTask, shared=False, **options)(run)

    made.task(name="plain", shared=False)(nothing)
    task("default", of_day, idempotency_ttl=2 * DAY)
    task("picked", of_day, idempotency_key_args=("day",))
    task("function", of_day, idempotency_key=lambda _, day="": f"k{day}")
    task("broken", nothing, idempotency_key=lambda _: 1 // 0)
    task("off", nothing, idempotency_enabled=False)
    task("own", nothing, idempotency_scope="task")
    task("of user", nothing, idempotency_scope="user")
    return made


def facts(app: Celery, task: str, source: str = "table", **changed: Any) -> CallFact:
    one = Schedule(id="1", task=task, timing=parse_cron("0 0 * * *"), **changed)
    return call_facts(app, Inventory(source, (one,)))["1"]


def test_unknown_and_plain_tasks_are_told_apart(app: Celery) -> None:
    assert not facts(app, "nowhere").registered
    assert facts(app, "plain") == CallFact(registered=True, idempotent=False)
    assert not facts(app, "off").idempotent


def test_the_default_key_tells_firings_apart(app: Celery) -> None:
    found = facts(app, "default", args='["2026-01-01"]')
    assert found == CallFact(idempotent=True, one_key=False, ttl=2 * DAY)


@pytest.mark.parametrize("source", ["redbeat", "django"])
def test_a_beat_that_sends_no_due_time_makes_one_key_of_all_firings(
    app: Celery, source: str
) -> None:
    assert facts(app, "default", source).one_key
    assert not facts(app, "own", source).one_key, "each message has a task id of its own"


def test_picked_arguments_and_functions_make_one_key(app: Celery) -> None:
    picked, function = facts(app, "picked"), facts(app, "function")
    assert picked.one_key and not picked.doubt
    assert function.one_key and function.doubt.endswith("it may look at the clock")


def test_another_beat_than_ours_sends_no_due_time(app: Celery) -> None:
    told = facts(app, "default", "beat")
    assert told.one_key and told.doubt.startswith("unless beat runs with -S idemwatch.")
    assert facts(app, "picked", "beat").doubt == "", "no beat could help"
    assert not facts(app, "own", "beat").one_key
    app.conf.beat_scheduler = "idemwatch.scheduler.beat:Scheduler"
    assert not facts(app, "default", "beat").one_key


def test_scope_task_needs_no_firing(app: Celery) -> None:
    assert not facts(app, "own").one_key


@pytest.mark.parametrize(
    ("task", "changed", "error"),
    [
        ("broken", {}, "ZeroDivisionError"),
        ("default", {"args": "[1, 2, 3]"}, "TypeError"),
        ("default", {"kwargs": '{"night": 1}'}, "TypeError"),
        ("of user", {}, "MissingScopeId"),
    ],
)
def test_a_key_that_fails_is_told_with_its_error(
    app: Celery, task: str, changed: dict[str, Any], error: str
) -> None:
    assert facts(app, task, **changed).error.startswith(f"{error}: ")


def test_headers_of_the_schedule_count(app: Celery) -> None:
    options = '{"headers":{"idempotency_user_id":"7"}}'
    assert facts(app, "of user", options=options).error == ""


def test_an_app_that_cannot_import_its_tasks_is_refused(app: Celery) -> None:
    app.conf.imports = ("no.such.module",)
    with pytest.raises(ConfigurationError, match="cannot be imported: ModuleNotFoundError"):
        facts(app, "plain")


# -- duplicates of the last hour -------------------------------------------------------------------


@contextmanager
def linked(url: str) -> Iterator[PostgresLink]:
    link = PostgresLink(url)
    try:
        yield link
    finally:
        link.close()


def add_bucket(url: str, task: str, scope: str, hours_ago: int, hits: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO endpoint_bucket (endpoint, scope, hour, checks, hits) VALUES (%s, %s, "
            "date_trunc('hour', clock_timestamp(), 'UTC') - %s * interval '1 hour', %s, %s)",
            (task, scope, hours_ago, hits, hits),
        )


def test_duplicates_are_summed_over_scopes_and_older_hours_left_out(database_url: str) -> None:
    for scope, hours_ago, hits in (("global", 0, 9), ("user", 0, 3), ("global", 2, 500)):
        add_bucket(database_url, "app.task", scope, hours_ago, hits)
    add_bucket(database_url, "quiet", "global", 0, 0)
    with linked(database_url) as link:
        assert duplicates_last_hour(link) == {"app.task": 12}


def test_of_the_hour_before_the_part_counts_that_the_last_hour_covers(database_url: str) -> None:
    add_bucket(database_url, "app.task", "global", 1, 3600)
    with linked(database_url) as link, psycopg.connect(database_url) as connection:
        asked = "SELECT 3600 - extract(epoch FROM now() - date_trunc('hour', now(), 'UTC'))"
        row = connection.execute(asked).fetchone()
        assert row is not None
        assert abs(duplicates_last_hour(link).get("app.task", 0) - float(row[0])) < 60
