"""on_running="keep_last" as decisions: a random course of messages, and each store beside it.

Whatever dies between any two lines: the newest message runs to its end, a message is superseded
only after a newer one came, none is lost, and none begins after one that came later.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.idempotency.errors import AuthorityMismatch, StoreUnavailable
from idemwatch.idempotency.keep_last_store import KeepLastStore
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import (
    MAX_WAITERS,
    SECOND,
    Answer,
    Claim,
    Completion,
    Outcome,
    State,
    Wait,
)
from idemwatch.idempotency.store import Held, Result
from idemwatch.idempotency.wire import decode, encode, pack_waiters, unpack_waiters
from support.stores import ENDED_US, HOUR_US, KEY, Subject, result

NOW = 1_700_000_000 * SECOND
LEASE = 30 * SECOND


@dataclass
class Delivery:
    """A message in the broker, or with a worker that has not acknowledged it."""

    task_id: str
    header: str = ""
    attempt: int = 0
    redelivered: bool = False


@dataclass
class Course:
    """Messages, workers that die, and what came of each message."""

    choose: Any
    now: int = NOW
    deliveries: list[Delivery] = field(default_factory=list)
    running: dict[str, tuple[Delivery, Held]] = field(default_factory=dict)
    met: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    superseded: set[str] = field(default_factory=set)
    owners: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.memory = MemoryStore(clock=self.clock)
        self.store = KeepLastStore(self.memory)

    def clock(self) -> int:
        self.now += 1
        return self.now

    def publish(self) -> None:
        self.deliveries.append(Delivery(f"m{len(self.met) + len(self.deliveries)}-{self.now}"))

    def deliver(self, delivery: Delivery, *, dies: bool) -> None:
        """A worker takes a message. `dies`: before it has acknowledged it."""
        if delivery.task_id not in self.met:
            self.met.append(delivery.task_id)
        answer = self.ask(delivery)
        if answer.granted:
            self.begin(delivery, answer)
            return
        if answer.superseded:
            assert self.met[-1] != delivery.task_id, "the newest was superseded"
            self.superseded.add(delivery.task_id)
        elif answer.delay_us is not None and not (dies and self.choose(st.booleans())):
            known = answer.record.waiters if answer.record else {}
            copy = Delivery(delivery.task_id, known[delivery.task_id].token, delivery.attempt)
            self.deliveries.append(copy)
        if dies:
            delivery.redelivered = True
        else:
            self.deliveries.remove(delivery)

    def ask(self, delivery: Delivery) -> Answer:
        token = f"t{hash((delivery.task_id, delivery.header)) % 10**9}"
        self.claim = Claim(
            key=KEY,
            owner=f"o{next(self.owners)}",
            authority="postgres",
            fingerprint=delivery.task_id,
            task_id=delivery.task_id,
            attempt=delivery.attempt,
            lease_us=LEASE,
            max_crashes=1000,
            wait=Wait(token, delivery.header, redelivered=delivery.redelivered),
        )
        return self.store.claim(self.claim)

    def begin(self, delivery: Delivery, answer: Answer) -> None:
        assert not self.running, "granted beside a live holder"
        if delivery.task_id not in self.begun:
            later = self.met[self.met.index(delivery.task_id) + 1 :]
            assert not {*later} & {*self.begun}, "began after one that came later"
            self.begun.append(delivery.task_id)
        held = Held(claim=self.claim, fence=answer.fence, created_us=answer.fence)
        self.running[delivery.task_id] = delivery, held

    def end(self, how: str) -> None:
        task_id, (delivery, held) = self.running.popitem()
        if how == "die":
            self.now += LEASE + 1
            delivery.redelivered = True
            return
        if how == "retry":
            assert self.store.park(held, fingerprint=task_id, open_after_us=900 * SECOND)
            self.deliveries.append(Delivery(task_id, delivery.header, delivery.attempt + 1))
        elif how == "fail":
            assert self.store.release(held)
        else:
            done = self.store.complete(held, Result(HOUR_US, b"1", "application/json"))
            assert done is Completion.STORED
        if how != "retry":
            self.ended.add(task_id)
        self.deliveries.remove(delivery)

    def drain(self) -> None:
        for _ in range(10_000):
            if self.running:
                self.end("complete")
            elif not self.deliveries:
                return
            else:
                self.now += 11 * SECOND
                self.deliver(self.deliveries[0], dies=False)
                self.deliveries.append(self.deliveries.pop(0)) if self.deliveries else None
        raise AssertionError("messages without end")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_newest_runs_and_nothing_is_lost(data: st.DataObject) -> None:
    course = Course(data.draw)
    for _ in range(data.draw(st.integers(2, 40))):
        step = data.draw(st.sampled_from(["publish", "deliver", "deliver", "deliver", "end"]))
        if step == "publish":
            course.publish()
        elif step == "end" and course.running:
            course.end(data.draw(st.sampled_from(["complete", "complete", "fail", "retry", "die"])))
        else:
            busy = [delivery for delivery, _ in course.running.values()]
            free = [one for one in course.deliveries if one not in busy]
            if free:
                course.now += data.draw(st.sampled_from([0, 1, 11])) * SECOND
                renew(course)
                course.deliver(data.draw(st.sampled_from(free)), dies=data.draw(st.booleans()))
    course.drain()
    assert {*course.met} == course.ended | course.superseded, "lost"
    assert not course.met or course.met[-1] in course.ended, "the newest did not run to its end"


def renew(course: Course) -> None:
    """The heartbeat of who runs."""
    held = [held for _, held in course.running.values()]
    assert len(course.store.renew(held)) == len(held)


def test_a_storm_leaves_the_newest_and_the_record_stays_small() -> None:
    course = Course(lambda _: False)
    for _ in range(5 * MAX_WAITERS):
        course.publish()
        course.deliver(course.deliveries[-1], dies=False)
        found = course.store.find(KEY)
        assert found is not None and len(found.record.waiters) <= MAX_WAITERS
    course.end("complete")
    course.drain()
    assert course.begun == [course.met[0], course.met[-1]]
    assert len(course.superseded) == len(course.met) - 2


# -- each store ------------------------------------------------------------------------------------


@dataclass
class Row:
    """The messages of one key over a store that keeps the last."""

    subject: Subject
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = KeepLastStore(self.subject.store)

    def ask(self, task_id: str, **changed: Any) -> Answer:
        """A message of this id is delivered, as it waits if it does."""
        header = self.tokens.get(task_id, "")
        wait = Wait(f"t{task_id}{len(header)}", header, max_delay_us=1)
        given = {"task_id": task_id, "fingerprint": f"f-{task_id}", "wait": wait, **changed}
        self.claim = self.subject.claim(**given)
        answer = self.store.claim(self.claim)
        if answer.delay_us is not None and answer.record is not None:
            self.tokens[task_id] = answer.record.waiters[task_id].token
        return answer

    def hold(self, task_id: str, **changed: Any) -> Held:
        answer = self.ask(task_id, **changed)
        assert answer.granted, answer
        return Held(claim=self.claim, fence=answer.fence, created_us=answer.fence)


@pytest.fixture
def row(subject: Subject) -> Row:
    return Row(subject)


def test_the_newest_that_waits_succeeds_with_arguments_of_its_own(row: Row) -> None:
    first = row.hold("a")
    assert row.ask("b").delay_us is not None
    assert row.ask("c").delay_us is not None
    assert row.ask("b").superseded and not row.ask("c").superseded
    assert row.store.complete(first, result(b"1")) is Completion.STORED
    assert row.ask("b").superseded
    second = row.hold("c")
    assert second.fence > first.fence
    assert (row.subject.record().task_id, row.subject.record().fingerprint) == ("c", "f-c")


def test_finished_work_turns_its_own_message_away_and_no_later_one(row: Row) -> None:
    held = row.hold("a")
    row.store.complete(held, result(b"1"))
    again = row.ask("a")
    assert again.outcome is Outcome.DUPLICATE and again.record is not None
    assert again.record.result == b"1"
    row.store.complete(row.hold("b"), result(b"2"))
    late = row.ask("a")
    assert late.superseded, "it must not run after a newer one"
    assert late.outcome is Outcome.DUPLICATE, "and has told its result, which must stay"
    assert row.ask("b").outcome is Outcome.DUPLICATE


def test_the_holders_own_message_is_never_superseded(row: Row) -> None:
    row.hold("a")
    row.ask("b")
    again = row.ask("a")
    assert again.delay_us is not None and not again.superseded
    assert not row.ask("b").superseded, "nor is it newer than the one that waits"


def test_who_waits_is_known_after_a_failure_and_through_retries(row: Row) -> None:
    first = row.hold("a")
    row.ask("b")
    row.ask("c")
    assert row.store.park(first, fingerprint="f-a", open_after_us=HOUR_US)
    assert row.ask("b").superseded and row.ask("c").delay_us is not None
    second = row.hold("a", attempt=1)
    assert row.store.release(second)
    assert row.subject.record().state is State.WAITING
    assert row.ask("b").superseded
    row.hold("c")


def test_a_failure_that_nobody_waits_for_leaves_no_record(row: Row) -> None:
    assert row.store.release(row.hold("a"))
    assert row.store.find(KEY) is None


def test_a_dead_holder_is_succeeded_by_the_newest(row: Row) -> None:
    row.hold("a", lease_us=SECOND)
    row.ask("b")
    answer = row.ask("c", lease_us=ENDED_US)
    while not answer.granted:
        answer = row.ask("c", lease_us=ENDED_US)
    assert answer.outcome is Outcome.TAKEN_OVER and row.subject.record().crashes == 1
    assert row.ask("a").superseded and row.ask("b").superseded
    assert row.ask("c", max_crashes=1).outcome is Outcome.POISONED
    assert row.ask("d").outcome is Outcome.POISONED


def test_a_copy_keeps_its_place_without_the_record(row: Row) -> None:
    row.hold("a")
    row.ask("b")
    row.ask("c")
    row.subject.lose(KEY)
    row.hold("x")
    assert row.ask("c").delay_us is not None
    assert row.ask("b").superseded


def test_a_lost_claim_is_given_back_with_what_is_known(row: Row) -> None:
    row.store.complete(row.hold("a"), result(b"1"))
    held = row.hold("b")
    row.ask("c")
    assert not row.store.abandon(KEY, "another")
    assert row.store.abandon(KEY, held.claim.owner)
    assert row.ask("a").superseded
    row.hold("c")


def test_steps_of_a_stale_holder_are_refused(row: Row) -> None:
    stale = row.hold("a", lease_us=ENDED_US)
    row.hold("b")
    before = row.subject.record()
    assert row.store.complete(stale, result(b"1")) is Completion.STALE
    assert not row.store.park(stale, fingerprint="", open_after_us=HOUR_US)
    assert not row.store.release(stale)
    assert not row.store.renew([stale])
    assert row.subject.record() == before


def test_steps_may_be_sent_again(row: Row) -> None:
    held = row.hold("a")
    assert row.store.claim(held.claim).fence == held.fence
    for _ in range(2):
        assert row.store.complete(held, result(b"1")) is Completion.STORED
    assert not row.store.release(held)
    row.subject.lose(KEY)
    assert row.store.complete(held, result(b"1")) is Completion.STORED
    assert row.store.forget(KEY) is not None
    assert row.store.complete(held, result(b"1")) is Completion.FORGOTTEN
    row.hold("b")


def test_a_key_has_one_authority(row: Row) -> None:
    row.hold("a")
    with pytest.raises(AuthorityMismatch):
        row.ask("b", authority="another")


def test_a_plain_task_reads_what_keep_last_wrote(row: Row) -> None:
    """As a worker of an older version, or one whose option was taken away."""
    held = row.hold("a")
    row.ask("b")
    plain = row.subject.ask(task_id="p", fingerprint="f-a", wait=Wait("plain"))
    assert plain.outcome is Outcome.RUNNING and plain.delay_us is not None
    assert row.ask("c").delay_us is not None
    record = row.subject.record()
    assert decode(encode(record), "redis", KEY) == record
    assert unpack_waiters(pack_waiters(record.waiters)) == record.waiters
    assert row.subject.store.complete(held, result(b"1")) is Completion.STORED
    assert row.subject.ask(task_id="p", fingerprint="f-a").outcome is Outcome.DUPLICATE
    row.hold("c")


# -- a note whose reply was lost -------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["keep_last", "wait"])
def test_a_note_of_our_own_whose_reply_was_lost_does_not_drop_us(
    subject: Subject, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject.hold(task_id="a", fingerprint="f")
    swap, lost = subject.store._swap, [True]

    def swap_unheard(*args: Any) -> bool:
        return swap(*args) and not (lost and lost.pop())

    monkeypatch.setattr(subject.store, "_swap", swap_unheard)
    store = KeepLastStore(subject.store) if kept else subject.store
    answer = store.claim(subject.claim(task_id="b", fingerprint="f", wait=Wait("t")))
    assert answer.delay_us is not None, "it would be acknowledged, and no copy sent"


def test_a_record_that_never_stands_still_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()
    store = KeepLastStore(memory)
    claim = Claim(key=KEY, owner="o", authority="postgres", task_id="a")
    held = Held(claim=claim, fence=store.claim(claim).fence, created_us=0)
    monkeypatch.setattr(memory, "_swap", lambda *_: False)
    with pytest.raises(StoreUnavailable, match="changed 20 times"):
        store.claim(claim._replace(owner="o2", task_id="b", wait=Wait("t")))
    with pytest.raises(StoreUnavailable, match="changed 20 times"):
        store.complete(held, result(b"1"))
