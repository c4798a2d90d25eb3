"""The demo's schedules: a small fleet of sites, as a facility management has them.

By a capacity of 40 runs it is healthy but for one half hour, 02:00, which everybody likes, and for
which moves are recommended. `crowd` adds three more crowded half hours, with which the health falls
under 70.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from idemwatch.idempotency.postgres_link import PostgresLink
from idemwatch.scheduler.config import schedule_of
from idemwatch.scheduler.schedule_store import ScheduleStore

from .app import METER, NOTIFY

OFTEN: Final = 10_000
"""Numbers of schedules are far from those of traffic, whose lanes begin at a million."""
NIGHTLY: Final = 34
"""With what runs all the time more than the capacity: so there is a critical recommendation."""
CROWD: Final = 22
"""Schedules that start together: over 70% of the capacity with those that run all the time."""
CROWDED_HOURS: Final = (6, 12, 18)

Config = dict[str, Any]


def fleet() -> list[Config]:
    """All of them."""
    return [*_often(), *_nightly(), *_elsewhen(), *_idle()]


def crowd() -> list[Config]:
    """Those that somebody adds without a look at the load."""
    return [
        _notice(f"round-{hour:02}00-site-{site:02}", f"0 {hour} * * *", OFTEN * hour + site)
        for hour in CROWDED_HOURS
        for site in range(1, CROWD + 1)
    ]


def insert(database_url: str, configs: Sequence[Config]) -> int:
    """Put schedules into the table; how many are new."""
    link = PostgresLink(database_url)
    try:
        return sum(ScheduleStore(link).insert([schedule_of(one) for one in configs]))
    finally:
        link.close()


def _often() -> Iterator[Config]:
    """So that something fires while one looks: eight runs a minute."""
    yield _reading("read-meter-hall", "every 15s", "meter-hall")
    yield _reading("read-meter-roof", "every 30s", "meter-roof")
    yield {**_notice("escalation-sweep", "* * * * *", 1), "overlap": "skip"}
    yield {**_notice("heartbeat-notice", "* * * * *", 2), "catch_up": "none"}


def _nightly() -> Iterator[Config]:
    """Everybody's favourite time."""
    for site in range(1, NIGHTLY + 1):
        name = f"asset-report-site-{site:02}"
        yield {**_notice(name, "0 2 * * *", 100 + site), "asset_id": f"site-{site:02}"}


def _elsewhen() -> Iterator[Config]:
    yield _notice("auto-close-jobs", "15 1 * * *", 201)
    yield _notice("ppm-jobs-berlin", "30 5 * * 1-5", 202, timezone="Europe/Berlin")
    yield _notice("ppm-jobs-new-york", "30 5 * * 1-5", 203, timezone="America/New_York")
    yield _notice("weekly-digest", "0 7 * * 1", 204, window_minutes=120)
    yield _notice("monthly-invoices", "45 3 1 * *", 205, movable=False)
    yield _notice("ticket-reminders", "20 8-18 * * 1-5", 206)
    yield _notice("lift-inspections", "40 9 * * 2,4", 207)
    yield _notice("energy-summary", "50 23 * * *", 208)


def _idle() -> Iterator[Config]:
    yield _notice("summer-watering", "0 5 * 6-8 *", 301, status="PAUSED")
    yield _notice("old-asset-export", "10 4 * * *", 302, status="CANCELLED")


def _notice(name: str, cron: str, number: int, **changed: Any) -> Config:
    return {
        "id": name,
        "task": NOTIFY,
        "cron_expression": cron,
        "kwargs": {"user_id": number % 7, "number": number},
        "duration_estimate_seconds": 30,
        **changed,
    }


def _reading(name: str, every: str, device: str) -> Config:
    return {
        "id": name,
        "task": METER,
        "cron_expression": every,
        "kwargs": {"device_id": device, "number": 0},
        "duration_estimate_seconds": 1,
        "misfire_grace_seconds": 10,
        "movable": False,
    }
