"""Case 9: work longer than its lease, whose heartbeat meets an error, or cannot run at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from idemwatch.idempotency.record import SECOND, State
from support.fleet import LEASE_SECONDS, Fleet
from support.proxy import TcpProxy

pytestmark = pytest.mark.worker

# The lease of the task is 4 s: the case's 10 s under the usual 30 s, shortened by the same factor,
# and long enough in all to need the heartbeat. The second one is longer than any lease.
WITHIN_THE_LEASE = (1300, 4)
LONGER_THAN_THE_LEASE = (8000, 1)


@pytest.mark.parametrize("authority", ["redis", "postgres"])
def test_a_heartbeat_that_meets_one_connection_error_keeps_its_lease(
    authority: str,
    new_fleet: Callable[..., Fleet],
    tcp_proxy: Callable[[str], TcpProxy],
    redis_url: str,
    database_url: str,
) -> None:
    proxy = tcp_proxy(redis_url if authority == "redis" else database_url)
    urls = {"redis_url": redis_url, "database_url": database_url}
    decides = "redis_url" if authority == "redis" else "database_url"
    fleet = new_fleet(authority, **{**urls, decides: proxy.url(urls[decides])})
    label = fleet.label()
    task_id = fleet.send("work", label, label)
    fleet.wait_for_event(label, "start")
    key = fleet.key("work", label, label)

    def due() -> int:
        found = fleet.store.find(key)
        assert found is not None and found.record.state is State.RUNNING
        return found.record.due_us

    for _ in range(2):
        past = due() + LEASE_SECONDS * SECOND
        proxy.reset()  # all connections at once, also the one that renews
        fleet.wait(partial(_is_past, due, past), "renewed past its end")
    fleet.open(label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == ["start", "end"]
    assert fleet.claims("work", "taken_over") == 0
    assert fleet.metric("idemwatch_lease_lost_total", "sheet.work") == 0


def _is_past(due: Callable[[], int], past: int) -> bool:
    return due() > past


def test_who_holds_the_gil_keeps_the_lease_unless_it_does_so_for_longer(
    new_fleet: Callable[..., Fleet],
) -> None:
    """The message comes again each two seconds, so there is always a rival."""
    fleet = new_fleet("redis", workers=2, app="support.cases_app")
    kept, lost = fleet.label(), fleet.label()
    short = fleet.send("grips", kept, *WITHIN_THE_LEASE)
    long = fleet.send("grips", lost, *LONGER_THAN_THE_LEASE)
    assert fleet.result(short) == kept
    assert fleet.events(kept) == ["start", "end"]
    assert fleet.result(long) == lost
    fleet.wait_for_event(lost, "end", times=2)
    stale = ("idemwatch_completions_total", "sheet.grips", "stale")
    fleet.wait(lambda: fleet.metric(*stale) == 1, "the late completion was refused")
    fleet.wait_for_idle()
    assert fleet.events(lost) == ["start", "start", "end", "end"]
    assert fleet.claims("grips", "taken_over") == 1
    assert fleet.metric("idemwatch_lease_lost_total", "sheet.grips") == 1
