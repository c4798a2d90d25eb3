"""Real beats on one database, with real workers: killed, frozen, or within a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from idemwatch.scheduler.config import timing_of
from idemwatch.scheduler.model import CatchUp, Overlap, Schedule
from idemwatch.scheduler.occurrences import Moments
from support.beat_chaos import BEATS, HARM, run_chaos
from support.beats import SCHEDULER, Beats, open_beats
from support.stores import wait_until

pytestmark = pytest.mark.worker
Start = Callable[..., Beats]


@pytest.fixture
def start(tmp_path: Path, redis_url: str, database_url: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(**options: Any) -> Beats:
            given = {"broker": redis_url, "database_url": database_url, **options}
            return stack.enter_context(open_beats(tmp_path, **given))

        yield begin


def each_second(**changed: Any) -> Schedule:
    given = {"task": "beats.work", "catch_up": CatchUp.ALL, "misfire_grace": timedelta(hours=1)}
    return Schedule(id="", name="s", timing=timing_of("every 1s"), **{**given, **changed})


def close_gate(beats: Beats) -> None:
    beats.execute("UPDATE gate SET opened = false")


def open_gate(beats: Beats) -> None:
    beats.execute("UPDATE gate SET opened = true")
    beats.execute("NOTIFY gate")


@pytest.mark.timeout(300)
def test_each_due_time_is_done_once_however_beats_are_killed_and_frozen(start: Start) -> None:
    outcome = run_chaos(start(beats=BEATS, harm=HARM), seconds=35, seed=20261125)
    assert outcome.passed, outcome
    assert outcome.kills and outcome.freezes


def test_what_a_frozen_beat_holds_is_freed_and_published_by_another(start: Start) -> None:
    beats = start(beats=1, harm=0.0)
    beats.conf["freeze_at"] = 3
    frozen = beats.start_beat()
    beats.beats[0].kill()
    beats.add(each_second())
    wait_until(frozen.frozen)
    (stuck,) = beats.execute("SELECT min(due_at) FROM schedule_firing WHERE outcome = 'pending'")
    beats.conf.pop("freeze_at")
    beats.start_beat()
    beats.wait("SELECT outcome = 'fired' FROM schedule_firing WHERE due_at = %s", stuck[0])
    assert frozen.frozen()
    frozen.thaw()
    frozen.wait_for_log("schedules go on")
    beats.execute("UPDATE schedule SET uptodate = clock_timestamp() + interval '1 second'")
    beats.wait_for_quiet()
    assert set(beats.ledger("done").values()) == {1}
    assert max(beats.ledger("delivered").values()) == 2


def test_a_run_that_goes_on_holds_up_the_next_ones(start: Start) -> None:
    beats = start()
    close_gate(beats)
    beats.add(each_second(task="beats.gated", overlap=Overlap.SKIP))
    beats.wait("SELECT count(*) >= 3 FROM schedule_firing WHERE outcome = 'skipped_overlap'")
    begun = len(beats.ledger("begun"))
    open_gate(beats)
    beats.wait_for_done(begun + 2)
    assert begun <= 2  # a message that has no worker yet holds nothing up


def test_one_waits_for_the_run_before_and_goes_as_soon_as_that_ends(start: Start) -> None:
    beats = start()
    close_gate(beats)
    beats.add(each_second(task="beats.gated", overlap=Overlap.QUEUE_ONE))
    beats.wait("SELECT count(*) >= 2 FROM schedule_firing WHERE outcome = 'skipped_overlap'")
    beats.execute("UPDATE schedule SET uptodate = clock_timestamp()")
    beats.wait("SELECT count(*) = 1 FROM schedule_firing WHERE outcome = 'pending'")
    begun = len(beats.ledger("begun"))
    open_gate(beats)
    beats.wait_for_done(begun + 1)
    beats.wait_for_quiet()
    newest = "SELECT outcome FROM schedule_firing ORDER BY due_at DESC LIMIT 1"
    assert beats.execute(newest) == [("fired",)]


def test_a_worker_may_carry_the_beat(start: Start) -> None:
    beats = start(beats=0, workers=0)
    beats.start_worker(args=("-B", "--scheduler", SCHEDULER))
    beats.add(each_second())
    beats.wait_for_done(2)


def test_a_beat_ends_in_order_when_told_to(start: Start) -> None:
    beats = start(workers=0)
    beats.wait("SELECT count(*) = 1 FROM schedule_beat")
    beats.beats[0].stop()
    assert beats.execute("SELECT count(*) FROM schedule_beat") == [(0,)]
    assert "Traceback" not in beats.beats[0].log


def test_a_retry_and_a_waiting_copy_are_of_the_same_firing_and_key(start: Start) -> None:
    beats = start()
    close_gate(beats)
    (gated,) = beats.add(single("beats.gated"))
    beats.wait("SELECT count(*) = 1 FROM ledger WHERE what = 'begun'")
    # A second copy meets the run, and waits as a message of its own until that has ended.
    message = '{"task":"beats.gated","args":[],"kwargs":{},"options":{},"also":{}}'
    beats.execute("UPDATE schedule_firing SET outcome = 'pending', message = %s", message)
    beats.wait("SELECT count(*) >= 3 FROM ledger WHERE what = 'delivered'")
    open_gate(beats)
    beats.wait_for_done(1)
    (again,) = beats.add(single("beats.again"))
    beats.wait_for_done(2)
    beats.wait_for_quiet()
    told = beats.execute("SELECT schedule, count(DISTINCT due_at), min(due_at) <> '', "
                         "count(DISTINCT task_id) FROM ledger GROUP BY 1 ORDER BY 1")  # fmt: skip
    assert told == [(gated, 1, True, 1), (again, 1, True, 1)]
    keys = beats.execute("SELECT DISTINCT what FROM ledger WHERE what LIKE 'key %'")
    kept = beats.execute("SELECT record_key FROM schedule_firing WHERE schedule_id = %s", again)
    assert keys == [(f"key {kept[0][0]}",)]
    records = "SELECT count(*) FROM idempotency_record WHERE state = 'done'"
    assert beats.execute(records) == [(2,)]


def single(task: str) -> Schedule:
    """One that runs once, now."""
    now = datetime.now(UTC)
    return Schedule(id="", name=task, task=task, timing=Moments((now,)), fromdate=now)
