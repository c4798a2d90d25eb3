"""Entries of beat_schedule in the table of a beat: renamed, swapped, disabled, spoilt."""

from __future__ import annotations

from typing import Any

from celery import Celery
from idemwatch.scheduler.sync_store import entries_of, sync
from support.desk import Desk


def table(desk: Desk) -> dict[str, tuple[str, str]]:
    rows = desk.rows("SELECT identifier, cron_expression, status FROM schedule ORDER BY id")
    return {name: (text, status) for name, text, status in rows}


def start(desk: Desk, **entries: Any) -> None:
    """A beat starts whose app has these entries: seconds, or whole ones."""
    app = Celery("synced", broker=desk.broker, set_as_current=False)
    app.conf.result_expires = None
    app.conf.beat_schedule = {
        name: one if isinstance(one, dict) else {"task": "t", "schedule": float(one)}
        for name, one in entries.items()
    }
    sync(desk.store._link, entries_of(app))
    app.close()


def test_an_entry_with_a_new_name_goes_on(desk: Desk) -> None:
    start(desk, old=60)
    start(desk, new=60)
    assert table(desk) == {"old": ("every 60s", "CANCELLED"), "new": ("every 60s", "PENDING")}


def test_an_entry_may_take_the_times_that_another_leaves(desk: Desk) -> None:
    start(desk, a=60, b=70, c=80)
    start(desk, a=70, b=80, c=60)
    told = {name: text for name, (text, _) in table(desk).items()}
    assert told == {"a": "every 70s", "b": "every 80s", "c": "every 60s"}
    assert {status for _, status in table(desk).values()} == {"PENDING"}


def test_an_entry_that_comes_to_mean_what_another_schedule_does_fires_no_more(desk: Desk) -> None:
    desk.add("every 70s", task="t")
    start(desk, a=60)
    start(desk, a=70)
    assert table(desk)["a"] == ("every 70s", "CANCELLED")
    desk.rows("UPDATE schedule SET status = 'CANCELLED' WHERE identifier = 'nevery 70s'")
    start(desk, a=70)
    assert table(desk)["a"] == ("every 70s", "PENDING")


def test_an_entry_that_is_not_enabled_fires_when_it_is_enabled_again(desk: Desk) -> None:
    for enabled, status in ((True, "PENDING"), (False, "CANCELLED"), (True, "PENDING")):
        start(desk, a={"task": "t", "schedule": 60.0, "enabled": enabled})
        assert table(desk)["a"][1] == status


def test_an_entry_with_a_character_that_no_table_keeps_stops_no_other(desk: Desk) -> None:
    start(desk, **{"bad\0": 60, "good": 70})
    assert list(table(desk)) == ["good"]
