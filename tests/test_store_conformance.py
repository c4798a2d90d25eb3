"""One suite over every store, so that none answers otherwise than the others: claims and leases.

Cases: a lost reply (2), stale owners (3), turned-away duplicates (4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from idemwatch.idempotency.errors import AuthorityMismatch
from idemwatch.idempotency.record import SECOND, Completion, Outcome, State
from idemwatch.idempotency.store import Held
from support.stores import (
    DEADLINE_SECONDS,
    ENDED_US,
    HOUR_US,
    KEY,
    LATE_STEPS,
    Subject,
    late_step,
    result,
    wait_until,
)

# -- claim -----------------------------------------------------------------------------------------


def test_first_claim_is_granted_and_recorded(subject: Subject) -> None:
    claim = subject.claim(
        fingerprint="f" * 32,
        task_id="id",
        attempt=2,
        endpoint="app.task",
        scope="user",
        user_id="7",
    )
    answer = subject.store.claim(claim)
    assert (answer.outcome, answer.granted) == (Outcome.GRANTED, True)
    record = subject.record()
    assert record.state is State.RUNNING
    assert (record.owner, record.fence) == (claim.owner, answer.fence)
    assert (record.fingerprint, record.task_id, record.attempt) == ("f" * 32, "id", 2)
    assert (record.endpoint, record.scope, record.user_id) == ("app.task", "user", "7")
    assert record.device_id is None and record.crashes == 0 and record.result is None
    assert record.due_us - record.created_us == claim.lease_us


@pytest.mark.parametrize("text", ["a b", "%41", "-", "--x", "é\n;,=|", "100%", "x" * 300])
def test_texts_of_strangers_are_kept_as_they_are(subject: Subject, text: str) -> None:
    subject.hold(task_id=text, endpoint=text, user_id=text, device_id=text)
    record = subject.record()
    assert [record.task_id, record.endpoint, record.user_id, record.device_id] == [text] * 4


def test_claiming_again_with_the_same_owner_grants_again(subject: Subject) -> None:
    claim = subject.claim(lease_us=60 * SECOND)
    first = subject.store.claim(claim)
    second = subject.store.claim(claim._replace(lease_us=HOUR_US))
    assert (second.outcome, second.fence) == (Outcome.GRANTED, first.fence)
    record = subject.record()
    assert (record.crashes, record.owner) == (0, claim.owner)
    assert record.due_us - record.created_us >= HOUR_US


def test_another_claim_is_told_how_long_the_lease_still_runs(subject: Subject) -> None:
    held = subject.hold(task_id="first")
    answer = subject.ask()
    assert (answer.outcome, answer.fence) == (Outcome.RUNNING, held.fence)
    assert 0 < answer.left_us <= held.claim.lease_us
    assert answer.record is not None and answer.record.task_id == "first"


def test_of_many_claims_at_once_one_is_granted(subject: Subject) -> None:
    start = threading.Barrier(6)

    def claim_at_once() -> Outcome:
        claim = subject.claim()
        start.wait(DEADLINE_SECONDS)
        return subject.store.claim(claim).outcome

    with ThreadPoolExecutor(6) as pool:
        outcomes = [future.result() for future in [pool.submit(claim_at_once) for _ in range(6)]]
    assert sorted(outcomes) == [Outcome.GRANTED, *[Outcome.RUNNING] * 5]


def test_of_many_claims_on_a_dead_holder_one_takes_over(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(subject.ask) for _ in range(6)]]
    outcomes = sorted(answer.outcome for answer in answers)
    assert outcomes == [*[Outcome.RUNNING] * 5, Outcome.TAKEN_OVER]
    assert subject.record().crashes == 1


def test_other_arguments_are_a_mismatch_and_change_nothing(subject: Subject) -> None:
    held = subject.hold(fingerprint="aaaa")
    before = subject.record()
    assert subject.ask(fingerprint="bbbb").outcome is Outcome.MISMATCH
    assert subject.record() == before
    subject.store.complete(held, result())
    before = subject.record()
    assert subject.ask(fingerprint="bbbb").outcome is Outcome.MISMATCH
    assert subject.ask(fingerprint="aaaa").outcome is Outcome.DUPLICATE
    assert subject.record() == before


def test_a_key_has_one_authority(subject: Subject) -> None:
    subject.hold()
    with pytest.raises(AuthorityMismatch, match="drain the queue"):
        subject.ask(authority="another")
    subject.finish("finished")
    with pytest.raises(AuthorityMismatch, match="finished"):
        subject.ask("finished", authority="another")
    subject.store.forget(KEY)
    assert subject.ask(authority="another").granted


# -- done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b'{"b":1,"a":2}', b"", b"null", b"\0\n iw1 \xff", None])
def test_duplicate_gets_the_very_bytes(subject: Subject, data: bytes | None) -> None:
    subject.store.complete(
        subject.hold(), result(data)._replace(content_type="" if data is None else "x/y")
    )
    answer = subject.ask()
    assert answer.outcome is Outcome.DUPLICATE and answer.record is not None
    assert answer.record.result == data
    assert answer.record.result_type == ("" if data is None else "x/y")


def test_a_large_result_is_kept(subject: Subject) -> None:
    data = b"x" * 10_000_000
    subject.store.complete(subject.hold(), result(data))
    answer = subject.ask()
    assert answer.record is not None and answer.record.result == data


def test_completing_again_after_a_lost_reply_is_stored(subject: Subject) -> None:
    held = subject.hold()
    assert subject.store.complete(held, result()) is Completion.STORED
    assert subject.store.complete(held, result()) is Completion.STORED
    assert subject.ask().outcome is Outcome.DUPLICATE


def test_an_expired_result_opens_the_key(subject: Subject) -> None:
    held = subject.hold()
    subject.store.complete(held, result(ttl_us=50_000))
    assert subject.ask().outcome is Outcome.DUPLICATE
    answers = [subject.ask()]
    wait_until(lambda: answers.append(subject.ask()) or answers[-1].granted)  # type: ignore[func-returns-value]
    assert answers[-1].outcome is Outcome.GRANTED
    assert answers[-1].fence > held.fence


def test_a_finished_record_is_not_parked_nor_released(subject: Subject) -> None:
    held = subject.finish()
    assert not subject.store.park(held, fingerprint="", open_after_us=0)
    assert not subject.store.release(held)
    assert not subject.store.abandon(KEY, held.claim.owner)
    assert not subject.store.renew([held])
    assert subject.ask().outcome is Outcome.DUPLICATE


# -- leases ----------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_is_taken_over(subject: Subject) -> None:
    dead = subject.hold(lease_us=ENDED_US)
    answer = subject.ask()
    assert answer.outcome is Outcome.TAKEN_OVER
    assert answer.fence > dead.fence
    record = subject.record()
    assert (record.crashes, record.created_us) == (1, dead.created_us)


def test_a_lease_that_ran_out_and_was_not_taken_may_be_renewed(subject: Subject) -> None:
    held = subject.hold(lease_us=ENDED_US)
    renewed = held._replace(claim=held.claim._replace(lease_us=HOUR_US))
    assert subject.store.renew([renewed]) == {held.claim.owner}
    assert subject.ask().outcome is Outcome.RUNNING


def test_a_lease_that_ran_out_and_was_not_taken_may_complete(subject: Subject) -> None:
    held = subject.hold(lease_us=ENDED_US)
    assert subject.store.complete(held, result()) is Completion.STORED


def test_one_batch_renews_those_that_are_held(subject: Subject) -> None:
    kept = [subject.hold(f"kept:{n}") for n in range(3)]
    taken, flushed = subject.hold("taken", lease_us=ENDED_US), subject.hold("flushed")
    subject.hold("taken")
    subject.lose("flushed")
    finished = subject.finish("finished")
    owners = subject.store.renew([*kept, taken, flushed, finished])
    assert owners == {held.claim.owner for held in kept}


@late_step
def test_stale_owner_cannot_touch_its_successor(
    subject: Subject, step: Callable[[Subject, Held], object]
) -> None:
    stale = subject.hold(lease_us=ENDED_US)
    successor = subject.hold()
    before = subject.record()
    assert not step(subject, stale)
    assert subject.record() == before
    subject.store.complete(successor, result(b"1"))
    finished = subject.record()
    assert not step(subject, stale)
    assert subject.record() == finished


@late_step
def test_right_owner_with_an_old_fence_is_stale(
    subject: Subject, step: Callable[[Subject, Held], object]
) -> None:
    held = subject.hold()
    if step is LATE_STEPS["abandon"]:  # names the owner alone, which is random per execution
        return
    before = subject.record()
    assert not step(subject, held._replace(fence=held.fence - 1))
    assert subject.record() == before


@late_step
def test_turned_away_duplicate_cannot_touch_the_holder(
    subject: Subject, step: Callable[[Subject, Held], object]
) -> None:
    subject.hold()
    before = subject.record()
    claim = subject.claim()
    answer = subject.store.claim(claim)
    assert answer.outcome is Outcome.RUNNING
    assert not step(subject, Held(claim=claim, fence=answer.fence, created_us=0))
    assert subject.record() == before
