"""Case 21: workers whose clock is an hour off, jumps, or changes to winter time during a task."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from idemwatch.idempotency.record import SECOND, State
from support.faketime import WrongClock
from support.fleet import LEASE_SECONDS, Fleet

pytestmark = pytest.mark.worker

HOUR = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
END_OF_SUMMER_TIME = datetime(2026, 10, 25, 2, 0, tzinfo=BERLIN, fold=1)
"""The clocks have just gone back from three to two."""


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    clock = WrongClock(tmp_path / "clock")
    clock.set(0)
    return clock


def start(fleet: Fleet, clock: WrongClock, offset: float, **env: str) -> None:
    """One more worker, with that clock."""
    clock.set(offset)
    right, fleet.env = fleet.env, {**fleet.env, **clock.env, **env}
    fleet.start()
    fleet.env = right


def shown(fleet: Fleet) -> float:
    """The time of the last line that the worker started last has logged."""
    stamp = re.findall(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", fleet.worker.log, re.MULTILINE)[-1]
    return datetime.fromisoformat(stamp).timestamp()


def due_in(fleet: Fleet, label: str) -> float:
    """The seconds that a lease or a result of `work` has left, by the store's clock."""
    found = fleet.store.find(fleet.key("work", label, label))
    assert found is not None
    return (found.record.due_us - found.now_us) / SECOND


def wait_for_renewals(fleet: Fleet, label: str, seconds: float) -> None:
    """Wait, and look that the lease is always as long as it should be."""
    until = time.monotonic() + seconds

    def look() -> bool:
        assert 0 < due_in(fleet, label) <= LEASE_SECONDS
        return time.monotonic() > until

    fleet.wait(look, f"{label} was renewed for {seconds} s")


def open_all(fleet: Fleet, sent: Sequence[tuple[str, str]]) -> None:
    """Let the work end: each was done once, and its result stays for a day."""
    for label, _ in sent:
        fleet.open(label)
    assert [fleet.result(task_id) for _, task_id in sent] == [label for label, _ in sent]
    fleet.wait_for_idle()
    for label, _ in sent:
        assert fleet.events(label) == ["start", "end"]
        assert 24 * HOUR - 120 < due_in(fleet, label) <= 24 * HOUR
    assert fleet.claims("work", "taken_over") == 0
    assert fleet.metric("idemwatch_lease_lost_total", "sheet.work") == 0


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["an hour ahead", "an hour behind"])
def test_a_worker_whose_clock_is_an_hour_off_does_nothing_twice(
    offset: float, new_fleet: Callable[..., Fleet], clock: WrongClock
) -> None:
    """For it, all messages of the other are overdue, so it gets each of them again and again."""
    fleet = new_fleet("postgres")
    start(fleet, clock, offset)
    sent = [(label, fleet.send("work", label, label)) for label in (fleet.label(), fleet.label())]
    for label, _ in sent:
        fleet.wait_for_event(label, "start")
        wait_for_renewals(fleet, label, LEASE_SECONDS)
    open_all(fleet, sent)
    assert shown(fleet) == pytest.approx(time.time() + offset, abs=60)


def test_a_clock_that_jumps_while_a_task_runs_moves_no_lease(
    new_fleet: Callable[..., Fleet], clock: WrongClock
) -> None:
    fleet = new_fleet("redis", workers=0)
    start(fleet, clock, 0)
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    for offset in (HOUR, -HOUR, 0):
        clock.set(offset)
        wait_for_renewals(fleet, label, LEASE_SECONDS)
        assert shown(fleet) == pytest.approx(time.time() + offset, abs=60)
    open_all(fleet, [(label, task_id)])


def test_the_end_of_summer_time_during_a_task_changes_nothing(
    new_fleet: Callable[..., Fleet], clock: WrongClock
) -> None:
    """Its lease is renewed, a copy of it waits, and a retry waits from before to after."""
    fleet = new_fleet("postgres", workers=0)
    start(fleet, clock, 0, TZ="Europe/Berlin")
    clock.set(END_OF_SUMMER_TIME.timestamp() - time.time() - 2)
    label, retried = fleet.label(), fleet.label()
    sent = [(label, fleet.send("work", label, label)) for _ in range(2)]
    retry = fleet.send("retrying", retried, 2, 3)
    fleet.wait_for_event(label, "start")
    fleet.wait_for_event(retried, "attempt 0")
    assert fleet.state("retrying", retried, 2, 3) is State.WAITING
    wait_for_renewals(fleet, label, 2 * LEASE_SECONDS)
    assert fleet.result(retry) == 1
    assert fleet.events(retried) == ["attempt 0", "attempt 1"]
    assert fleet.logged("[2026-10-25 02:59:5") and fleet.logged("[2026-10-25 02:00:0")
    open_all(fleet, sent)
