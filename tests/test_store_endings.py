"""The same suite over every store: how a claim ends, and what is left of it (cases 3, 10)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from idemwatch.idempotency.record import SECOND, Claim, Completion, Outcome, State, Wait
from idemwatch.idempotency.store import Held
from support.stores import (
    DEADLINE_SECONDS,
    ENDED_US,
    HOUR_US,
    KEY,
    Subject,
    late_step,
    result,
)

# -- crashes ---------------------------------------------------------------------------------------


def test_a_key_whose_holders_die_is_poisoned_until_it_is_forgotten(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    for _ in range(3):
        assert subject.ask(lease_us=ENDED_US).outcome is Outcome.TAKEN_OVER
    assert [subject.ask().outcome for _ in range(2)] == [Outcome.POISONED] * 2
    assert list(subject.store.poisoned()) == [KEY]
    assert subject.record().state is State.POISONED
    forgotten = subject.store.forget(KEY)
    assert forgotten is not None and forgotten.state is State.POISONED
    assert list(subject.store.poisoned()) == []
    assert subject.ask().granted


def test_a_retry_sets_crashes_to_zero(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US, task_id="id")
    held = subject.hold(task_id="id")
    assert subject.record().crashes == 1
    subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.record().crashes == 0


def test_a_release_sets_crashes_to_zero(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    assert subject.store.release(subject.hold())
    subject.hold()
    assert subject.record().crashes == 0


def test_a_poisoned_record_stays_when_its_last_holder_gives_up(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    last = subject.hold(lease_us=ENDED_US)
    assert subject.ask(max_crashes=1).outcome is Outcome.POISONED
    assert not subject.store.release(last)
    assert not subject.store.abandon(KEY, last.claim.owner)
    assert not subject.store.park(last, fingerprint="", open_after_us=0)
    assert subject.ask().outcome is Outcome.POISONED


def test_a_poisoned_record_gives_way_to_the_result_of_its_last_holder(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    last = subject.hold(lease_us=ENDED_US)
    assert subject.ask(max_crashes=1).outcome is Outcome.POISONED
    assert subject.store.complete(last, result(b"1")) is Completion.STORED
    assert subject.ask().outcome is Outcome.DUPLICATE
    assert list(subject.store.poisoned()) == []


# -- retries ---------------------------------------------------------------------------------------


def test_a_parked_key_is_open_to_its_own_next_attempt_alone(subject: Subject) -> None:
    held = subject.hold(task_id="id", attempt=1, fingerprint="ffff")
    assert subject.store.park(held, fingerprint="ffff", open_after_us=HOUR_US)
    record = subject.record()
    assert (record.state, record.attempt, record.task_id) == (State.WAITING, 2, "id")
    for task_id, attempt in (("other", 2), ("other", 9), ("id", 1)):
        answer = subject.ask(task_id=task_id, attempt=attempt, fingerprint="ffff")
        assert answer.outcome is Outcome.RUNNING and 0 < answer.left_us <= HOUR_US
    answer = subject.ask(task_id="id", attempt=2, fingerprint="ffff")
    assert answer.outcome is Outcome.GRANTED and answer.fence > held.fence


def test_a_parked_key_is_open_to_a_later_attempt_too(subject: Subject) -> None:
    held = subject.hold(task_id="id")
    subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.ask(task_id="id", attempt=3).outcome is Outcome.GRANTED


def test_a_revoked_retry_holds_its_key_no_longer_than_until(subject: Subject) -> None:
    held = subject.hold(task_id="id")
    subject.store.park(held, fingerprint="", open_after_us=0)
    answer = subject.ask(task_id="other")
    assert answer.outcome is Outcome.GRANTED
    assert subject.record().crashes == 0


def test_a_retry_with_other_arguments_is_expected_with_those(subject: Subject) -> None:
    held = subject.hold(task_id="id", fingerprint="aaaa")
    subject.store.park(held, fingerprint="bbbb", open_after_us=HOUR_US)
    assert subject.ask(task_id="id", attempt=1, fingerprint="aaaa").outcome is Outcome.MISMATCH
    assert subject.ask(task_id="id", attempt=1, fingerprint="bbbb").granted


def test_parking_again_after_a_lost_reply_is_accepted(subject: Subject) -> None:
    held = subject.hold(task_id="id")
    assert subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.record().attempt == 1


def test_a_retry_that_could_not_be_published_gives_its_key_back(subject: Subject) -> None:
    held = subject.hold(task_id="id")
    subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.store.release(held)
    assert subject.ask(task_id="other").granted


# -- copies that wait ------------------------------------------------------------------------------


def test_at_most_one_copy_of_an_id_waits(subject: Subject) -> None:
    subject.hold(task_id="holder")

    def ask(task_id: str, token: str, presented: str = "") -> int | None:
        wait = Wait(token=token, presented=presented, max_delay_us=5 * SECOND)
        return subject.ask(task_id=task_id, wait=wait).delay_us

    assert ask("id", "t1") == 5 * SECOND
    assert ask("id", "t2") is None
    assert ask("holder", "t3") == 5 * SECOND
    assert ask("id", "t4", presented="stranger") is None
    assert ask("id", "t5", presented="t1") == 5 * SECOND
    assert ask("id", "t6", presented="t1") is None
    assert set(subject.record().waiters) == {"id", "holder"}


def test_a_copy_waits_no_longer_than_the_lease(subject: Subject) -> None:
    subject.hold(lease_us=2 * SECOND)
    answer = subject.ask(task_id="id", wait=Wait(token="t"))
    assert answer.delay_us is not None and 0 < answer.delay_us <= 2 * SECOND


def test_waiting_copies_outlive_a_renewal_and_end_with_the_result(subject: Subject) -> None:
    held = subject.hold()
    subject.ask(task_id="id", wait=Wait(token="t"))
    assert subject.store.renew([held])
    assert subject.ask(task_id="id", wait=Wait(token="u")).delay_us is None
    assert subject.store.complete(held, result()) is Completion.STORED
    assert subject.record().waiters == {}


# -- release, forget, vanish -----------------------------------------------------------------------


def test_release_gives_the_key_back_also_twice(subject: Subject) -> None:
    held = subject.hold()
    assert subject.store.release(held)
    assert subject.store.find(KEY) is None
    assert subject.store.release(held)
    assert subject.ask().fence > held.fence


def test_abandon_releases_a_claim_whose_reply_never_came(subject: Subject) -> None:
    claim = subject.claim()
    subject.store.claim(claim)
    assert subject.store.abandon(KEY, claim.owner)
    assert subject.store.abandon(KEY, claim.owner)
    assert subject.ask().outcome is Outcome.GRANTED


def test_an_owner_that_finds_no_record_writes_its_result_again(subject: Subject) -> None:
    held = subject.hold(task_id="id", endpoint="app.task")
    subject.lose(KEY)
    assert subject.store.complete(held, result()) is Completion.STORED
    answer = subject.ask()
    assert answer.outcome is Outcome.DUPLICATE and answer.record is not None
    assert (answer.record.fence, answer.record.task_id) == (held.fence, "id")
    assert (answer.record.endpoint, answer.record.created_us) == ("app.task", held.created_us)


def test_an_owner_that_finds_no_record_parks_it_again(subject: Subject) -> None:
    held = subject.hold(task_id="id")
    subject.lose(KEY)
    assert subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    assert subject.ask(task_id="other").outcome is Outcome.RUNNING
    assert subject.ask(task_id="id", attempt=1).granted


def test_a_vanished_record_is_not_renewed_and_its_release_is_no_loss(subject: Subject) -> None:
    held = subject.hold()
    subject.lose(KEY)
    assert subject.store.renew([held]) == set()
    assert subject.store.release(held)


def test_a_vanished_record_that_another_claimed_stays_the_others(subject: Subject) -> None:
    held = subject.hold()
    subject.lose(KEY)
    successor = subject.hold()
    assert successor.fence > held.fence
    assert subject.store.complete(held, result()) is Completion.STALE
    assert subject.record().owner == successor.claim.owner


@late_step
def test_a_late_writer_cannot_bring_a_forgotten_record_back(
    subject: Subject, step: Callable[[Subject, Held], object]
) -> None:
    held = subject.hold()
    forgotten = subject.store.forget(KEY)
    assert forgotten is not None and forgotten.owner == held.claim.owner
    assert not step(subject, held)
    assert subject.record().state is State.FORGOTTEN
    assert subject.ask().outcome is Outcome.GRANTED


def test_a_late_completion_is_told_that_its_key_was_forgotten(subject: Subject) -> None:
    held = subject.hold()
    subject.store.forget(KEY)
    assert subject.store.complete(held, result()) is Completion.FORGOTTEN


def test_forget_opens_a_finished_key(subject: Subject) -> None:
    held = subject.finish()
    forgotten = subject.store.forget(KEY)
    assert forgotten is not None and forgotten.state is State.DONE
    answer = subject.ask()
    assert answer.outcome is Outcome.GRANTED and answer.fence > held.fence


def test_forgetting_what_is_not_there_says_so(subject: Subject) -> None:
    assert subject.store.forget(KEY) is None
    subject.hold()
    assert subject.store.forget(KEY) is not None
    assert subject.store.forget(KEY) is None


# -- results without a claim -----------------------------------------------------------------------


def without_claim(claim: Claim) -> Held:
    return Held(claim=claim, fence=0, created_us=0)


def test_a_result_is_stored_without_a_claim_where_nothing_is(subject: Subject) -> None:
    before = subject.hold("clock")
    assert subject.store.put_done(without_claim(subject.claim()), result(b"1"))
    after = subject.hold("clock2")
    answer = subject.ask()
    assert answer.outcome is Outcome.DUPLICATE
    assert answer.record is not None and answer.record.result == b"1"
    assert before.fence <= answer.record.fence <= after.fence
    assert before.created_us <= answer.record.created_us <= after.created_us


@pytest.mark.parametrize("state", ["running", "waiting", "done", "poisoned"])
def test_a_result_without_a_claim_is_never_put_over_a_record(subject: Subject, state: str) -> None:
    if state == "poisoned":
        subject.poison()
    else:
        held = subject.hold(task_id="id")
        if state == "waiting":
            subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
        elif state == "done":
            subject.store.complete(held, result(b"first"))
    before = subject.record()
    assert before.state == state
    assert not subject.store.put_done(without_claim(subject.claim()), result(b"second"))
    assert subject.record() == before


def test_a_result_without_a_claim_takes_the_place_of_a_forgotten_one(subject: Subject) -> None:
    held = subject.hold()
    subject.store.forget(KEY)
    assert subject.store.put_done(without_claim(subject.claim()), result(b"1"))
    assert subject.record().fence > held.fence


# -- waiting for a release -------------------------------------------------------------------------


def test_a_waiter_is_woken_by_the_release_of_a_lock(subject: Subject) -> None:
    held = subject.hold(endpoint="lock")
    waiting = threading.Event()

    def wait() -> float:
        waiting.set()
        began = time.monotonic()
        subject.store.wait_released(KEY, DEADLINE_SECONDS)
        return time.monotonic() - began

    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(wait)
        assert waiting.wait(DEADLINE_SECONDS)
        assert subject.store.release(held)
        assert waited.result(DEADLINE_SECONDS) < DEADLINE_SECONDS / 2


def test_a_waiter_gives_up_after_its_time(subject: Subject) -> None:
    subject.hold(endpoint="lock")
    began = time.monotonic()
    subject.store.wait_released(KEY, 0.05)
    assert 0.04 < time.monotonic() - began < DEADLINE_SECONDS / 2


def test_a_store_that_answers_is_pinged(subject: Subject) -> None:
    subject.store.ping()
    assert subject.store.find(KEY) is None
