"""One suite over every store, so that none answers otherwise than the others.

Cases: a lost reply (2), stale owners (3), turned-away duplicates (4), records that vanish (10).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import fakeredis
import pytest
from idemwatch.demo.servers import PostgresServer
from idemwatch.idempotency.errors import AuthorityMismatch
from idemwatch.idempotency.record import SECOND, Claim, Completion, Outcome, State, Wait
from idemwatch.idempotency.redis_link import RedisLink
from idemwatch.idempotency.redis_store import RedisStore
from idemwatch.idempotency.store import Held
from support.stores import (
    DEADLINE_SECONDS,
    ENDED_US,
    HOUR_US,
    KEY,
    NAMESPACE,
    Subject,
    cached_subject,
    memory_subject,
    postgres_subject,
    redis_subject,
    result,
    wait_until,
)

LATE_STEPS: dict[str, Callable[[Subject, Held], object]] = {
    "complete": lambda s, held: s.store.complete(held, result(b"late")) is Completion.STORED,
    "park": lambda s, held: s.store.park(held, fingerprint="late", open_after_us=HOUR_US),
    "release": lambda s, held: s.store.release(held),
    "abandon": lambda s, held: s.store.abandon(held.key, held.claim.owner),
    "renew": lambda s, held: bool(s.store.renew([held])),
}
late_step = pytest.mark.parametrize("step", LATE_STEPS.values(), ids=LATE_STEPS)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """One database for all of these tests, which keep apart by their namespaces."""
    yield postgres_server.create_database("conformance", template=migrated_template)
    postgres_server.drop_database("conformance")


@pytest.fixture(params=["memory", "postgres", "cached", "redis", "fakeredis"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield memory_subject(stack)
        elif request.param == "fakeredis":
            yield fake_subject(stack)
        elif request.param == "redis":
            yield redis_subject(stack, request.getfixturevalue("redis_url"))
        elif request.param == "postgres":
            yield postgres_subject(stack, request.getfixturevalue("database"), new_namespace())
        else:
            urls = request.getfixturevalue("database"), request.getfixturevalue("redis_url")
            yield cached_subject(stack, *urls, new_namespace())


def new_namespace() -> str:
    return f"n{next(_numbers)}"


def fake_subject(stack: ExitStack) -> Subject:
    client = stack.enter_context(fakeredis.FakeStrictRedis())
    store = RedisStore(RedisLink(client.connection_pool), NAMESPACE)
    stack.callback(store.close)
    return Subject(store, "redis", lambda key: client.delete(store.redis_key(key)))


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
    second = subject.store.claim(replace(claim, lease_us=HOUR_US))
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
        subject.hold(), replace(result(data), content_type="" if data is None else "x/y")
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
    renewed = replace(held, claim=replace(held.claim, lease_us=HOUR_US))
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
    assert not step(subject, replace(held, fence=held.fence - 1))
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
