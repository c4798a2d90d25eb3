"""CASES.md names a test for each case; here are those of a store alone that were missing."""

from __future__ import annotations

import pytest
from idemwatch.idempotency.record import Completion, Outcome, State
from model.lossy import LossyLinks
from support.pages import missing_tests, page, tables
from support.stores import ENDED_US, HOUR_US, KEY, Subject, result

PAGE = page("tests/CASES.md")
CASES = 21
LONGEST_HOLD_US = 6 * HOUR_US
"""What a task may hold its key for, unless told otherwise."""


def test_each_case_names_tests_and_they_exist() -> None:
    (table,) = tables(PAGE.text)
    assert {int(row[0].split()[0]) for row in table[1:]} == set(range(1, CASES + 1))
    assert [row[0] for row in table[1:] if "::test_" not in row[1]] == []
    assert missing_tests(PAGE) == []


# -- case 2 ----------------------------------------------------------------------------------------


def test_a_take_over_whose_reply_was_lost_is_counted_as_one(subject: Subject) -> None:
    subject.hold(lease_us=ENDED_US)
    claim = subject.claim()
    first = subject.store.claim(claim)
    again = subject.store.claim(claim)
    assert (first.outcome, again.outcome) == (Outcome.TAKEN_OVER, Outcome.TAKEN_OVER)
    assert first.fence == again.fence and subject.record().crashes == 1


# -- case 10 ---------------------------------------------------------------------------------------


def test_what_was_written_again_and_whose_reply_was_lost_is_stored(subject: Subject) -> None:
    links = LossyLinks(subject.store)
    for after in range(3):
        held = subject.hold(key := f"work:{after}")
        subject.lose(key)
        links.lose(after)
        assert subject.store.park(held, fingerprint="", open_after_us=ENDED_US)
        successor = subject.hold(key)
        subject.lose(key)
        links.lose(after)
        assert subject.store.complete(successor, result()) is Completion.STORED
        assert subject.ask(key).outcome is Outcome.DUPLICATE


# -- case 20 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [False, True], ids=["running", "retrying"])
def test_a_holder_is_remembered_as_forgotten_for_as_long_as_it_may_work(
    subject: Subject, ended: bool
) -> None:
    """It may find nothing but this tombstone hours later, and would write its result again."""
    held = subject.hold()
    if ended:
        assert subject.store.park(held, fingerprint="", open_after_us=HOUR_US)
    subject.store.forget(KEY)
    found = subject.store.find(KEY)
    assert found is not None and found.record.state is State.FORGOTTEN
    assert found.record.due_us - found.now_us > LONGEST_HOLD_US


def test_what_is_forgotten_is_told_though_a_reply_was_lost(subject: Subject) -> None:
    links = LossyLinks(subject.store)
    for after in range(5):
        held = subject.finish()
        links.lose(after)
        forgotten = subject.store.forget(KEY)
        assert forgotten is not None and forgotten.owner == held.claim.owner
