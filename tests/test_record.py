"""The record's state machine: decisions on plain values, and a random walk through a store."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from idemwatch.idempotency.errors import AuthorityMismatch
from idemwatch.idempotency.memory_store import MemoryStore
from idemwatch.idempotency.record import (
    MAX_WAITERS,
    RETRY_GRACE_US,
    SECOND,
    Claim,
    Completion,
    Outcome,
    Record,
    State,
    Verdict,
    Wait,
    Waiter,
    judge,
    running,
)
from idemwatch.idempotency.store import Held, Result

NOW = 1_700_000_000 * SECOND
KEY = "k"

ids = st.sampled_from(["id1", "id2"])
times = st.integers(NOW - 100 * SECOND, NOW + 100 * SECOND)
waiters = st.dictionaries(ids, st.builds(Waiter, st.sampled_from(["t1", "t2"]), times))
records = st.builds(
    Record,
    state=st.sampled_from(State),
    owner=st.sampled_from(["o1", "o2"]),
    fence=times,
    due_us=times,
    created_us=times,
    attempt=st.integers(0, 3),
    crashes=st.integers(0, 4),
    authority=st.sampled_from(["postgres", "redis"]),
    fingerprint=st.sampled_from(["f1", "f2"]),
    task_id=ids,
    endpoint=st.just("task"),
    scope=st.just("global"),
    waiters=waiters,
)
waits = st.builds(
    Wait,
    token=st.just("new"),
    presented=st.sampled_from(["", "t1", "t2"]),
    max_delay_us=st.integers(1, 20 * SECOND),
)
claims = st.builds(
    Claim,
    key=st.just(KEY),
    owner=st.sampled_from(["o1", "o2", "o3"]),
    authority=st.just("postgres"),
    fingerprint=st.sampled_from(["f1", "f2"]),
    task_id=ids,
    attempt=st.integers(0, 3),
    lease_us=st.integers(1, 60 * SECOND),
    max_crashes=st.integers(1, 4),
    wait=st.none() | waits,
)


def verdict_on(record: Record, claim: Claim) -> Verdict:
    return judge(record._replace(authority=claim.authority), claim, NOW)


def live(record: Record) -> bool:
    """Whether somebody may be at work, or the work is done, or nobody may begin it."""
    if record.state is State.POISONED:
        return True
    return record.state is not State.FORGOTTEN and record.due_us > NOW


@given(records, claims)
def test_a_live_record_is_granted_to_its_owner_or_its_next_attempt_alone(
    record: Record, claim: Claim
) -> None:
    answer = verdict_on(record, claim).answer
    if answer.granted and live(record):
        own = record.state is State.RUNNING and record.owner == claim.owner
        same = record.state is State.WAITING and record.task_id == claim.task_id
        overdue = record.due_us - RETRY_GRACE_US + claim.lease_us <= NOW
        assert own or (same and (overdue or claim.attempt >= record.attempt))


def test_an_attempt_whose_retry_is_overdue_by_a_lease_may_run_again() -> None:
    """Its worker died between keeping the key and publishing the retry."""
    claim = Claim("key", "next", "postgres", task_id="message")
    held = running(claim, fence=1, now_us=NOW, created_us=NOW)
    parked = held._replace(state=State.WAITING, attempt=1, due_us=NOW + RETRY_GRACE_US)
    early, due = NOW + claim.lease_us - 1, NOW + claim.lease_us
    assert judge(parked, claim, early).answer.outcome is Outcome.RUNNING
    assert judge(parked, claim, due).answer.outcome is Outcome.GRANTED
    other = claim._replace(task_id="another")
    assert judge(parked, other, due).answer.outcome is Outcome.RUNNING


@given(records, claims)
def test_whoever_is_granted_holds_a_lease_from_now(record: Record, claim: Claim) -> None:
    answer, write = (verdict := verdict_on(record, claim)).answer, verdict.write
    if answer.granted:
        assert write is not None and write == answer.record
        assert (write.state, write.owner) == (State.RUNNING, claim.owner)
        assert write.due_us == NOW + claim.lease_us
        assert write.fence == answer.fence


@given(records, claims)
def test_the_fence_grows_with_every_new_holder(record: Record, claim: Claim) -> None:
    write = verdict_on(record, claim).write
    if write is not None and write.owner != record.owner:
        assert write.fence > record.fence and write.fence >= NOW
    elif write is not None:
        assert write.fence >= record.fence


@given(records, claims)
def test_what_is_finished_stays_as_it_is(record: Record, claim: Claim) -> None:
    finished = record._replace(state=State.DONE, due_us=max(record.due_us, NOW + 1))
    verdict = verdict_on(finished, claim)
    assert verdict.write is None
    assert verdict.answer.outcome in (Outcome.DUPLICATE, Outcome.MISMATCH)


@given(records, claims)
def test_crashes_grow_by_take_overs_alone_and_end_in_poison(record: Record, claim: Claim) -> None:
    verdict = verdict_on(record, claim)
    outcome, write = verdict.answer.outcome, verdict.write
    if outcome is Outcome.TAKEN_OVER:
        again = record.owner == claim.owner  # its first answer was lost
        assert write is not None and write.crashes == record.crashes + (not again)
        assert again or write.crashes <= claim.max_crashes
    elif outcome is Outcome.GRANTED and write is not None:
        assert write.crashes == (record.crashes if write.owner == record.owner else 0) or (
            write.crashes == 0
        )
    elif outcome is Outcome.POISONED and write is not None:
        assert record.crashes + 1 > claim.max_crashes
        assert record.state is State.RUNNING and record.due_us <= NOW


@given(records, claims)
def test_other_arguments_of_another_owner_are_never_granted(record: Record, claim: Claim) -> None:
    verdict = verdict_on(record, claim)
    gone = record.state is State.FORGOTTEN or (record.state is State.DONE and record.due_us <= NOW)
    if not gone and record.fingerprint != claim.fingerprint and record.owner != claim.owner:
        assert verdict.answer.outcome is Outcome.MISMATCH and verdict.write is None


@given(records, claims)
def test_turning_away_changes_the_waiters_alone(record: Record, claim: Claim) -> None:
    verdict = verdict_on(record, claim)
    if verdict.answer.outcome is Outcome.RUNNING and verdict.write is not None:
        before = record._replace(authority=claim.authority)
        assert verdict.write._replace(waiters=before.waiters) == before


@given(records, claims, waits)
def test_one_copy_of_an_id_waits_at_a_time(record: Record, claim: Claim, wait: Wait) -> None:
    first = verdict_on(record, claim._replace(wait=wait))
    if first.answer.outcome is not Outcome.RUNNING or first.write is None:
        return
    assert first.answer.delay_us is not None
    assert 0 < first.answer.delay_us <= min(first.answer.left_us, wait.max_delay_us)
    copy = Wait(token="copy", presented="", max_delay_us=wait.max_delay_us)
    assert verdict_on(first.write, claim._replace(wait=copy)).answer.delay_us is None
    itself = copy._replace(presented=wait.token)
    assert verdict_on(first.write, claim._replace(wait=itself)).answer.delay_us is not None


def test_a_copy_that_was_noted_and_never_sent_is_sent_by_the_redelivery() -> None:
    claim = Claim(key=KEY, owner="o", authority="redis", task_id="id", wait=Wait(token="t"))
    noted = judge(a_running_record(), claim, NOW).write
    assert noted is not None
    for redelivered, sent in ((False, False), (True, True)):
        again = claim._replace(wait=Wait(token="t", redelivered=redelivered))
        assert (judge(noted, again, NOW).answer.delay_us is not None) is sent
    surplus = claim._replace(wait=Wait(token="u", presented="t"))
    first = judge(noted, surplus, NOW).write
    assert first is not None, "the copy itself goes on"
    assert judge(first, surplus, NOW).answer.delay_us is None, "and a second one of it does not"


def test_a_message_too_many_to_remember_still_comes_again() -> None:
    claim = Claim(key=KEY, owner="o", authority="redis", wait=Wait(token="t"))
    full = {f"id{n}": Waiter("t", NOW + SECOND) for n in range(MAX_WAITERS)}
    record = a_running_record(waiters=full)
    verdict = judge(record, claim, NOW)
    assert verdict.write is None and verdict.answer.delay_us is not None
    past = {task_id: Waiter("t", NOW - 1) for task_id in full}
    verdict = judge(record._replace(waiters=past), claim, NOW)
    assert verdict.write is not None and set(verdict.write.waiters) == {claim.task_id}


@pytest.mark.parametrize("state", [State.RUNNING, State.WAITING, State.DONE, State.POISONED])
def test_a_record_of_another_authority_is_refused_loudly(state: State) -> None:
    claim = Claim(key=KEY, owner="o", authority="postgres")
    with pytest.raises(AuthorityMismatch, match="drain the queue"):
        judge(a_running_record()._replace(state=state), claim, NOW)


def test_a_clock_that_went_back_does_not_take_the_fence_back() -> None:
    record = a_running_record()._replace(fence=NOW + 50 * SECOND, due_us=NOW)
    answer = judge(record, Claim(key=KEY, owner="o", authority="redis"), NOW).answer
    assert answer.fence == NOW + 50 * SECOND + 1


def a_running_record(waiters: dict[str, Waiter] | None = None) -> Record:
    return Record(
        state=State.RUNNING,
        owner="holder",
        fence=NOW,
        due_us=NOW + 30 * SECOND,
        created_us=NOW,
        attempt=0,
        crashes=0,
        authority="redis",
        fingerprint="",
        task_id="holder",
        endpoint="task",
        scope="global",
        waiters=waiters or {},
    )


class Walk(RuleBasedStateMachine):
    """Owners that claim, finish, retry, give up, die and come late, while the clock goes on."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.store = MemoryStore(clock=self.clock)
        self.owners = 0
        self.held: list[Held] = []
        self.until: dict[str, int] = {}
        self.fences = [0]
        self.ended: set[str] = set()
        self.finished_until = 0

    def clock(self) -> int:
        """A microsecond later each time that it is read: no two steps are at one time."""
        self.now += 1
        return self.now

    def ask(self, task_id: str = "id", attempt: int = 0) -> None:
        self.owners += 1
        claim = Claim(
            key=KEY,
            owner=f"o{self.owners}",
            authority="postgres",
            task_id=task_id,
            attempt=attempt,
            lease_us=30 * SECOND,
        )
        answer = self.store.claim(claim)
        if answer.granted:
            assert self.now >= self.finished_until, "done again while its record lived"
            assert not self.live_holders(), "granted beside a live holder"
            assert answer.fence > self.fences[-1]
            self.fences.append(answer.fence)
            self.held.append(Held(claim=claim, fence=answer.fence, created_us=self.now))
            self.until[claim.owner] = self.now + claim.lease_us

    def live_holders(self) -> list[Held]:
        return [h for h in self.held if self.until[h.claim.owner] > self.now]

    @rule(task_id=ids, attempt=st.integers(0, 3))
    def claim(self, task_id: str, attempt: int) -> None:
        self.ask(task_id, attempt)

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        latest = held.fence == self.fences[-1]
        if self.store.renew([held]):
            assert latest and held.claim.owner not in self.ended
            self.until[held.claim.owner] = self.now + held.claim.lease_us

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ttl=st.integers(1, 100))
    def complete(self, data: st.DataObject, ttl: int) -> None:
        held = data.draw(st.sampled_from(self.held))
        before = self.store.find(KEY)
        # A process completes once: it is over for its claim whatever the answer.
        done = self.store.complete(held, Result(ttl_us=ttl * SECOND))
        if done is Completion.STORED:
            # Where no record is, as after a successor that failed, the work is done all the same.
            assert before is None or held.fence == self.fences[-1], "a stale holder completed"
            self.finished_until = self.now + ttl * SECOND
        self.end(held)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), after=st.integers(0, 60))
    def park(self, data: st.DataObject, after: int) -> None:
        held = data.draw(st.sampled_from(self.held))
        before = self.store.find(KEY)
        if self.store.park(held, fingerprint="", open_after_us=after * SECOND):
            assert before is None or held.fence == self.fences[-1], "a stale holder parked"
        self.end(held)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        before = self.store.find(KEY)
        if self.store.release(held) and before is not None:
            assert held.fence == self.fences[-1], "a stale holder released"
        self.end(held)

    def end(self, held: Held) -> None:
        self.held.remove(held)
        self.ended.add(held.claim.owner)

    @rule()
    def forget(self) -> None:
        self.store.forget(KEY)
        self.finished_until = 0
        self.held = [h for h in self.held if h not in self.live_holders()]

    @invariant()
    def crashes_are_bounded(self) -> None:
        found = self.store.find(KEY) if hasattr(self, "store") else None
        if found is not None:
            assert found.record.crashes <= 3


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestWalk = Walk.TestCase
