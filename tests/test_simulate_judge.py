"""The judge of a simulation: what must not be is a failure, whoever did it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from idemwatch.demo.simulate_history import History, Kind
from idemwatch.demo.simulate_judge import Fate, Judged, failures, judge
from support.simulations import (
    WORK,
    Past,
    doubled,
    lost,
    once,
    repeated_after_death,
    unsettled,
)


def judged(history: History) -> Judged:
    """The verdict over the one piece of work."""
    (one,) = judge(history).works
    return one


@pytest.mark.parametrize(
    ("history", "fate"),
    [
        (once(), Fate.ONCE),
        (doubled(), Fate.DOUBLED),
        (repeated_after_death(), Fate.AFTER_DEATH),
        (repeated_after_death(Kind.YOURS), Fate.AFTER_DEATH),
        (repeated_after_death(Kind.TRANSACTION), Fate.DOUBLED),
        (repeated_after_death(Kind.GUARDED), Fate.DOUBLED),
        (lost(), Fate.LOST),
        (replace(lost(), vanished=frozenset({WORK})), Fate.VANISHED),
        (replace(once(), vanished=frozenset({WORK})), Fate.ONCE),
    ],
)
def test_each_fate_is_told_apart(history: History, fate: Fate) -> None:
    assert judged(history).fate is fate
    assert judge(history).counts[fate.value] == 1


def test_a_repeat_that_began_before_the_death_is_not_explained_by_it() -> None:
    past = Past()
    first = past.run(0.0, effect=0.5)
    past.run(0.7, 2.0, effect=1.0)
    past.kill(first, 0.9)
    assert judged(past.history()).fate is Fate.DOUBLED


def test_a_death_after_the_record_explains_nothing() -> None:
    past = Past()
    past.kill(past.run(0.0, 1.0, effect=0.5), 1.5)
    past.run(2.0, 3.0, effect=2.5)
    assert judged(past.history()).fate is Fate.DOUBLED


def test_one_death_explains_one_repeat_and_not_two() -> None:
    past = Past()
    past.kill(past.run(0.0, effect=0.5), 0.6)
    past.run(5.0, 5.5, effect=5.2)
    past.run(6.0, 6.5, effect=6.2)
    assert judged(past.history()).fate is Fate.DOUBLED
    assert judged(past.history()).ran_twice


def test_the_death_of_a_worker_explains_what_its_processes_did_and_no_others() -> None:
    for worker, fate in (("w1.1", Fate.AFTER_DEATH), ("w2.1", Fate.DOUBLED)):
        past = Past()
        past.run(0.0, effect=0.5, worker=worker)
        past.kill(past.run(0.1, worker="w1.1"), 0.6, whole_worker=True)
        past.run(5.0, 6.0, effect=5.5, worker="w1.2")
        assert judged(past.history()).fate is fate, worker


def test_a_lost_lease_explains_a_repeat() -> None:
    past = Past()
    past.run(0.0, 8.0, effect=0.5, lease_lost=True)
    past.run(6.0, 7.0, effect=6.5)
    told = judged(past.history())
    assert (told.fate, told.at_once, told.ran_twice) == (Fate.AFTER_DEATH, False, False)


def test_two_effects_of_one_execution_are_doubled() -> None:
    past = Past()
    past.run(0.0, 1.0, effect=0.5)
    past.effects *= 2
    assert judged(past.history()).fate is Fate.DOUBLED


def test_a_target_that_refuses_hides_no_second_run() -> None:
    past = Past(Kind.GUARDED)
    past.run(0.0, 1.0, effect=0.5)
    past.run(2.0, 3.0, effect=2.5, refused=True)
    told = judged(past.history())
    assert (told.fate, told.effects, told.ran_twice) == (Fate.ONCE, 1, True)
    assert judge(past.history()).counts["refused_by_target"] == 1
    assert failures(judge(once()), judge(past.history())) == [f"idemwatch ran twice 1: {WORK}"]


def test_two_at_the_same_time_are_seen_even_if_one_does_nothing() -> None:
    past = Past()
    past.run(0.0, 5.0, effect=4.0)
    past.run(1.0, 2.0, outcome="Retry")
    assert judged(past.history()).at_once
    assert failures(judge(once()), judge(past.history())) == [f"idemwatch ran at once 1: {WORK}"]


def test_a_retry_is_no_second_run() -> None:
    past = Past()
    past.run(0.0, 1.0, outcome="Retry")
    past.run(2.0, 3.0, effect=2.5)
    told = judged(past.history())
    assert (told.fate, told.ran_twice, told.at_once) == (Fate.ONCE, False, False)


def test_nothing_fails_when_only_plain_celery_doubles() -> None:
    assert failures(judge(doubled()), judge(once())) == []
    assert failures(judge(doubled()), judge(repeated_after_death())) == []


@pytest.mark.parametrize(
    ("plain", "protected", "told"),
    [
        (once(), doubled(), "idemwatch doubled 1: send(1)"),
        (once(), lost(), "idemwatch lost 1: send(1)"),
        (lost(), once(), "plain Celery lost 1: send(1)"),
        (once(), unsettled(), "idemwatch had messages left"),
    ],
)
def test_what_must_not_be_is_told(plain: History, protected: History, told: str) -> None:
    assert told in "\n".join(failures(judge(plain), judge(protected)))


def test_what_plain_celery_had_not_done_when_it_was_given_up_is_not_lost() -> None:
    assert failures(judge(replace(lost(), settled=False)), judge(once())) == []


def test_what_a_users_task_fails_at_on_both_sides_is_told_and_no_failure() -> None:
    failed = replace(lost(), works={WORK: Kind.YOURS})
    assert judge(failed).counts["failed"] == 1 and judge(failed).counts["lost"] == 0
    assert failures(judge(failed), judge(failed)) == []
    told = failures(judge(replace(once(), works={WORK: Kind.YOURS})), judge(failed))
    assert told == ["idemwatch failed what plain Celery did 1: send(1)"]


def test_a_message_that_died_with_its_worker_is_nobodys_failure() -> None:
    history = replace(lost(), vanished=frozenset({WORK}))
    assert failures(judge(history), judge(history)) == []
    assert judge(history).counts["lost_by_broker"] == 1


def test_checks_are_counted_by_what_they_answered() -> None:
    counts = judge(once()).counts
    asked = ("turned_away", "taken_over", "put_off", "deliveries", "executions", "seconds")
    assert [counts[name] for name in asked] == [5, 4, 5, 1, 1, 9.0]
