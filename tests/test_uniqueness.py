"""One schedule for one meaning, one at a time on an asset: who is in the way, and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.errors import InvalidSchedule, ScheduleConflict
from idemwatch.scheduler.identity import schedule_hash
from idemwatch.scheduler.schedule_store import ScheduleStore
from idemwatch.scheduler.uniqueness_store import ScheduleUniquenessService
from psycopg.rows import dict_row


@pytest.fixture
def service(link: PostgresLink) -> ScheduleUniquenessService:
    return ScheduleUniquenessService(link)


def config(expression: str = "0 0 * * *", **changed: Any) -> dict[str, Any]:
    return {"cron_expression": expression, "identifier": "ppm", "task": "create_ppm_job", **changed}


def on_pump(expression: str, **changed: Any) -> dict[str, Any]:
    return config(expression, asset_id="pump", client_id="acme", **changed)


def conflict(service: ScheduleUniquenessService, *given: Any, **options: Any) -> ScheduleConflict:
    with pytest.raises(ScheduleConflict) as caught:
        service.ensure_unique_schedule(*given, **options)
    return caught.value


def outcome(database_url: str, given: dict[str, Any]) -> str:
    """What a process of its own is told."""
    link = PostgresLink(database_url)
    try:
        ScheduleUniquenessService(link).ensure_unique_schedule(given)
        return "added"
    except ScheduleConflict as error:
        return error.why
    finally:
        link.close()


# -- what is one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (config("@daily"), config("00 00 * * *")),
        (config("0 0 * * *"), config("0 0 1-31 * *")),
        (config("0 0 * * 0"), config("0 0 * * 7")),
        (config("0 0 * * sun"), config("@weekly")),
        (config("0 0 * * *"), config("0 0 0 * * ?", dialect="quartz")),
        (config("every 60s"), config("every 60.0")),
        (config(kwargs={"a": 1, "b": 2}), config(kwargs='{"b": 2, "a": 1}')),
        (config(identifier="x"), config(identifier="y")),
        (config(duration_estimate_seconds=5), config(priority=3)),
    ],
)
def test_two_ways_to_say_one_thing_have_one_hash(one: Any, other: Any) -> None:
    assert schedule_hash(schedule_of(one)) == schedule_hash(schedule_of(other))


@pytest.mark.parametrize(
    "other",
    [
        config("1 0 * * *"),
        config("0 0 1 * 1"),
        config(timezone="Europe/Paris"),
        config(task="other"),
        config(args=[1]),
        config(kwargs={"a": 1}),
        config(asset_id="pump"),
        config(client_id="acme"),
        config("every 86400s"),
    ],
)
def test_what_differs_in_meaning_differs_in_its_hash(other: Any) -> None:
    assert schedule_hash(schedule_of(config())) != schedule_hash(schedule_of(other))


# -- duplicates ------------------------------------------------------------------------------------


def test_the_first_is_added_and_the_second_is_told_who_is_in_the_way(
    service: ScheduleUniquenessService, link: PostgresLink
) -> None:
    added = service.ensure_unique_schedule(config())
    found = conflict(service, config("@daily", identifier="again"), allow_overlap=True)
    assert (found.why, found.other_id, found.other) == ("duplicate", added.id, "ppm")
    assert str(found).startswith(f"again: duplicate of schedule {added.id} (ppm): ")
    assert len(ScheduleStore(link).schedules().schedules) == 1


def test_fifty_at_once_leave_one_row_and_each_other_is_told(database_url: str) -> None:
    same = [config(identifier=f"n{number}") for number in range(50)]
    with ThreadPoolExecutor(10) as pool:
        told = sorted(pool.map(lambda given: outcome(database_url, given), same))
    assert told == ["added"] + ["duplicate"] * 49


def test_one_whose_time_is_over_makes_room(service: ScheduleUniquenessService) -> None:
    yesterday = config(fromdate="2020-01-01", uptodate="2020-01-02")
    first = service.ensure_unique_schedule(yesterday)
    again = service.ensure_unique_schedule(config())
    assert first.id != again.id


def test_a_wrong_one_is_refused_by_name_before_anything_is_asked(
    service: ScheduleUniquenessService,
) -> None:
    for wrong, part in (
        (config("61 * * * *"), "minute"),
        (config(""), "cron_expression"),
        (config(timezone="Mars/Base"), "timezone"),
        (config(nonsense=1), "nonsense"),
    ):
        with pytest.raises(InvalidSchedule) as caught:
            service.ensure_unique_schedule(wrong)
        assert caught.value.part == part


# -- overlaps --------------------------------------------------------------------------------------


def test_two_on_one_asset_at_one_time_are_told_when(service: ScheduleUniquenessService) -> None:
    first = service.ensure_unique_schedule(on_pump("0 6 * * *", duration_estimate_seconds=3600))
    found = conflict(service, on_pump("30 6 1 * *", task="inspect"))
    assert (found.why, found.other_id) == ("overlap", first.id)
    assert "asset pump" in found.detail and "-01 06:30 UTC" in found.detail


def test_an_overlap_may_be_allowed(service: ScheduleUniquenessService) -> None:
    service.ensure_unique_schedule(on_pump("0 6 * * *"))
    service.ensure_unique_schedule(on_pump("0 6 * * *", task="inspect"), allow_overlap=True)


@pytest.mark.parametrize(
    "beside",
    [
        on_pump("1 6 * * *", task="inspect"),
        on_pump("0 6 * * *", task="inspect") | {"client_id": "other"},
        on_pump("0 6 * * *", task="inspect") | {"asset_id": "fan"},
        config("0 6 * * *", task="inspect"),
        on_pump("0 6 * * *", task="inspect", fromdate="2020-01-01", uptodate="2020-02-01"),
    ],
)
def test_what_does_not_meet_is_added(
    service: ScheduleUniquenessService, beside: dict[str, Any]
) -> None:
    service.ensure_unique_schedule(on_pump("0 6 * * *"))
    service.ensure_unique_schedule(beside)


def test_a_refused_overlap_leaves_no_row(
    service: ScheduleUniquenessService, link: PostgresLink
) -> None:
    service.ensure_unique_schedule(on_pump("0 6 * * *"))
    conflict(service, on_pump("0 6 * * 1", task="inspect"))
    assert len(ScheduleStore(link).schedules().schedules) == 1


def test_of_two_at_once_that_would_overlap_one_is_added(database_url: str) -> None:
    pumps = [on_pump("0 6 * * *", task=f"task{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        told = sorted(pool.map(lambda given: outcome(database_url, given), pumps))
    assert told == ["added"] + ["overlap"] * 7


# -- in the caller's transaction -------------------------------------------------------------------


def test_in_the_callers_transaction_the_callers_commit_decides(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        service = ScheduleUniquenessService(connection=connection)
        service.ensure_unique_schedule(config())
        conflict(service, config())
        connection.execute("SELECT 1")  # the refusal left the transaction as it was
        connection.rollback()
        service.ensure_unique_schedule(config())
        connection.commit()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM schedule").fetchone() == (1,)


def test_a_link_or_a_connection_is_needed() -> None:
    with pytest.raises(ValueError, match="one of them only"):
        ScheduleUniquenessService()


def test_under_a_strict_default_isolation_two_that_would_overlap_are_one(database_url: str) -> None:
    name = database_url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(database_url, autocommit=True) as connection:
        level = "SET default_transaction_isolation = 'repeatable read'"
        connection.execute(f"ALTER DATABASE {name} {level}".encode())
    pumps = [on_pump("0 6 * * *", task=f"task{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        told = sorted(pool.map(lambda given: outcome(database_url, given), pumps))
    assert told == ["added"] + ["overlap"] * 7


def test_a_transaction_that_cannot_see_what_others_add_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        service = ScheduleUniquenessService(connection=connection)
        with pytest.raises(ValueError, match="READ COMMITTED"):
            service.ensure_unique_schedule(config())


def test_the_rows_of_the_callers_connection_may_be_dicts(database_url: str) -> None:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        service = ScheduleUniquenessService(connection=connection)
        added = service.ensure_unique_schedule(on_pump("0 6 * * *"))
        assert conflict(service, on_pump("0 6 * * *", task="inspect")).other_id == added.id
