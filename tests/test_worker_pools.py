"""Every pool of Celery: the work is done once, in whatever kind of process or thread."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import psycopg
import pytest
from idemwatch.idempotency.record import SECOND, Record, State
from support.fleet import LEASE_SECONDS, Fleet
from support.worker import FAST_REDELIVERY

pytestmark = pytest.mark.worker

NewFleet = Callable[..., Fleet]
POOLS: dict[str, dict[str, Any]] = {
    "prefork": {"pool": "prefork", "concurrency": 2},
    # At 4, an end that Celery overlooks (it looks again in 5 s) does not stop the others.
    "recycled": {"pool": "prefork", "concurrency": 4, "args": ("--max-tasks-per-child=1",)},
    "threads": {"pool": "threads", "concurrency": 4},
    # As many as do_many sends: with its hands full, a worker without an event loop sleeps for 2 s.
    "gevent": {"pool": "gevent", "concurrency": 12},
    "solo": {"pool": "solo", "concurrency": 1},
}
# Nothing comes twice but what a test sends twice, so that all can be counted.
CALM = {"visibility_timeout": 3600}
# Without an event loop (gevent), kombu delivers again only after a poll (of 2 s) that read nothing.
AGAIN = {**FAST_REDELIVERY, "polling_interval": 3}
both = pytest.mark.parametrize("authority", ["redis", "postgres"])


def open_with(
    new_fleet: NewFleet, authority: str, pool: str, broker: dict[str, Any], **conf: Any
) -> Fleet:
    fleet = new_fleet(authority, workers=0, broker_transport_options=broker, **conf)
    fleet.start(**POOLS[pool])
    return fleet


def granted_and_hits(fleet: Fleet) -> tuple[float, float]:
    """Claims that were granted, and those that met a holder, running or done."""
    hits = fleet.claims("work", "duplicate") + fleet.claims("work", "running")
    return fleet.claims("work", "granted"), hits


def do_many(fleet: Fleet, pieces: int = 4) -> None:
    """Two messages for each piece of work, and a copy of the first: it is done once."""
    labels = [fleet.label() for _ in range(pieces)]
    granted, hits = granted_and_hits(fleet)
    sent = [(label, fleet.send("work", label)) for label in labels * 2]
    for label, task_id in sent[:pieces]:
        fleet.send("work", label, task_id=task_id)
    assert [fleet.result(task_id) for _, task_id in sent] == [label for label, _ in sent]
    fleet.wait_for_idle()
    assert [fleet.events(label) for label in labels] == [["start", "end"]] * pieces
    assert granted_and_hits(fleet) == (granted + pieces, hits + 2 * pieces)


def hold(fleet: Fleet, labels: list[str]) -> list[str]:
    """One task for each label, all at once, for longer than their leases."""
    ids = [fleet.send("work", label, label) for label in labels]
    for label in labels:
        fleet.wait_for_event(label, "start")
    first = [record(fleet, label) for label in labels]

    def renewed() -> bool:
        now = [record(fleet, label) for label in labels]
        assert [(one.owner, one.fence) for one in now] == [(one.owner, one.fence) for one in first]
        assert {one.state for one in now} == {State.RUNNING}
        lease_us = LEASE_SECONDS * SECOND
        return all(b.due_us > a.due_us + lease_us for a, b in zip(first, now, strict=True))

    fleet.wait(renewed, "each lease was renewed after its first end")
    return ids


def record(fleet: Fleet, label: str) -> Record:
    found = fleet.store.find(fleet.key("work", label, label))
    assert found is not None
    return found.record


def assert_no_lease_was_lost(fleet: Fleet) -> None:
    assert fleet.claims("work", "taken_over") == 0
    assert fleet.metric("idemwatch_lease_lost_total", "sheet.work") == 0


def resize(fleet: Fleet, how: str, by: int) -> None:
    """Grow or shrink the pool, and wait until it has."""
    wanted = len(fleet.worker.children()) + (by if how == "grow" else -by)
    ask = getattr(fleet.publisher.control, f"pool_{how}")
    (answer,) = ask(by, reply=True, timeout=30, limit=1)
    assert answer == {fleet.worker.nodename: {"ok": f"pool will {how}"}}
    fleet.wait(lambda: len(fleet.worker.children()) == wanted, f"{wanted} children")


def hits_in_database(fleet: Fleet) -> int:
    with psycopg.connect(fleet.conf["idempotency_database_url"]) as connection:
        row = connection.execute("SELECT sum(hit_count) FROM idempotency_record").fetchone()
    return int(row[0] or 0) if row else 0


@both
@pytest.mark.parametrize("pool", POOLS)
def test_equal_messages_are_done_once_and_all_are_counted(
    authority: str, pool: str, new_fleet: NewFleet
) -> None:
    fleet = open_with(new_fleet, authority, pool, CALM)
    do_many(fleet)
    label = fleet.label()
    fleet.send("retrying", label, 3, 0)
    fleet.wait_for_event(label, "attempt 2")
    fleet.wait_for_idle()
    assert fleet.events(label) == ["attempt 0", "attempt 1", "attempt 2"]
    assert fleet.state("retrying", label, 3, 0) is State.DONE
    if authority == "postgres":  # a child that ends writes its hits down before
        fleet.wait(lambda: hits_in_database(fleet) == 8, "all hits were written")
    assert_no_lease_was_lost(fleet)
    assert fleet.complaints() == []


@pytest.mark.parametrize(
    ("pool", "authority"),
    [
        ("recycled", "postgres"),
        ("solo", "redis"),
        # A heartbeat beside other users of the same connections: the driver matters.
        *product(("threads", "gevent"), ("redis", "postgres")),
    ],
)
def test_a_task_longer_than_its_lease_keeps_it_and_its_message_is_turned_away(
    pool: str, authority: str, new_fleet: NewFleet
) -> None:
    fleet = open_with(new_fleet, authority, pool, AGAIN)
    if pool == "solo":  # it reads no message while it works
        fleet.start(**POOLS[pool])
    label, other = fleet.label(), fleet.label()
    (task_id,) = hold(fleet, [label])
    assert fleet.result(fleet.send("work", other)) == other  # the others go on beside it
    fleet.wait(lambda: fleet.logged(f"sheet.work[{task_id}] ignored") >= 1, "it came again")
    fleet.open(label)
    assert fleet.result(task_id) == label
    fleet.wait_for_idle()
    assert fleet.events(label) == fleet.events(other) == ["start", "end"]
    assert fleet.claims("work", "granted") == 2
    assert fleet.claims("work", "running") >= 1
    assert_no_lease_was_lost(fleet)
    assert fleet.complaints() == []


def test_a_pool_that_grows_and_shrinks(new_fleet: NewFleet) -> None:
    fleet = open_with(new_fleet, "postgres", "prefork", CALM)
    do_many(fleet)
    labels = [fleet.label() for _ in range(4)]
    resize(fleet, "grow", 2)
    *ids, last = hold(fleet, labels)
    for label in labels[:-1]:
        fleet.open(label)
    assert [fleet.result(task_id) for task_id in ids] == labels[:-1]
    fleet.wait(lambda: not any(map(fleet.messages, ids)), "three children have nothing to do")

    resize(fleet, "shrink", 3)
    assert record(fleet, labels[-1]).state is State.RUNNING
    fleet.open(labels[-1])
    assert fleet.result(last) == labels[-1]
    assert [fleet.events(label) for label in labels] == [["start", "end"]] * 4
    # What the children counted that are gone is not lost, nor by those that take their places.
    do_many(fleet)
    resize(fleet, "grow", 2)
    do_many(fleet)
    assert granted_and_hits(fleet) == (16, 24)
    assert_no_lease_was_lost(fleet)
    assert fleet.complaints() == []


@both
def test_children_of_a_process_that_has_worked_itself(authority: str, new_fleet: NewFleet) -> None:
    fleet = open_with(new_fleet, authority, "recycled", CALM, first_use="before")

    def turned_away(task_id: str) -> int:
        return fleet.logged(f"sheet.work[{task_id}] ignored")

    assert fleet.events("before") == ["start", "end"]
    assert granted_and_hits(fleet) == (1, 0)
    assert fleet.result(fleet.send("work", "before")) == "before"
    assert fleet.events("before") == ["start", "end"]
    do_many(fleet)
    # Their leases are renewed, though the heartbeat of their parent is not in them.
    labels = [fleet.label() for _ in range(3)]
    rivals = [fleet.send("work", labels[0], labels[0])]
    rivals += (ids := hold(fleet, labels))[:1]
    # One of the two waits, in other children: however often it asks, it is one hit.
    fleet.wait(lambda: sum(map(turned_away, rivals)) >= 2, "it asked twice")
    for label in labels:
        fleet.open(label)
    assert [fleet.result(task_id) for task_id in [*ids, rivals[0]]] == [*labels, labels[0]]
    fleet.wait_for_idle()
    # The children that ended took nothing of the parent's with them: it can still work.
    for _ in range(2):
        again = {"arguments": {"label": "after"}, "reply": True, "timeout": 30, "limit": 1}
        assert fleet.publisher.control.broadcast("use_again", **again) == [
            {fleet.worker.nodename: "after"}
        ]
    assert fleet.events("after") == ["start", "end"]
    assert granted_and_hits(fleet) == (1 + 4 + 3 + 1, 1 + 8 + 1 + 1)
    assert_no_lease_was_lost(fleet)
    assert fleet.complaints() == []
