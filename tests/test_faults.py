"""The fault machine itself: its plan is its seed's, its checker finds each kind of breach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import breach, report
from faults.checker import breaches
from faults.history import Answered, Span
from faults.plan import TOPOLOGIES
from faults.rules import RULES
from faults.scenes import SCENES, TELLING, round_of
from faults.told import (
    KEY,
    Story,
    done_once,
    failure,
    forgotten,
    pid_of,
    record,
    success,
    taken_over,
    token,
)


def sentences(story: Story, **also: Any) -> set[str]:
    return {one.sentence for one in breaches(story.history(**also))}


# -- the plan --------------------------------------------------------------------------------------


def test_a_seed_tells_the_same_plan() -> None:
    first = [round_of(7, number) for number in range(20)]
    assert first == [round_of(7, number) for number in range(20)]
    assert first != [round_of(8, number) for number in range(20)]


def test_ten_rounds_of_a_seed_play_every_scene() -> None:
    for seed in range(5):
        assert {round_of(seed, number).scene for number in range(len(SCENES))} == set(SCENES)


def test_rounds_differ_in_all_that_they_run_on() -> None:
    rounds = [round_of(seed, number) for seed in range(10) for number in range(10)]
    assert {one.topology for one in rounds} == set(TOPOLOGIES)
    assert {one.pool for one in rounds} == {"prefork", "threads"}
    assert {one.clock for one in rounds} == {"", "+1h", "-1h"}


def test_every_fault_that_a_plan_names_can_be_done() -> None:
    from faults.harm import _CUTS, Harm

    faults = [f for seed in range(20) for n in range(10) for f in round_of(seed, n).faults]
    kinds, modes = {one.kind for one in faults}, {one.mode for one in faults if one.mode}
    assert all(hasattr(Harm, f"_{kind}") for kind in kinds)
    assert modes <= set(_CUTS)
    assert all(one.store != "redis" or one.kind != "cut" for one in _unproxied())


def _unproxied() -> list[Any]:
    rounds = [round_of(seed, number) for seed in range(20) for number in range(10)]
    return [fault for one in rounds if one.topology != "single" for fault in one.faults]


def test_each_rule_has_a_scene_that_tells() -> None:
    assert set(TELLING) == set(RULES)
    assert set(TELLING.values()) <= set(SCENES)


# -- the checker: right histories ------------------------------------------------------------------


@pytest.mark.parametrize("task", ["postgres.plain", "redis.plain"])
def test_work_that_is_done_once_is_right(task: str) -> None:
    assert breaches(done_once(task).history()) == []


def test_a_holder_that_lost_its_lease_to_a_successor_is_right() -> None:
    assert breaches(taken_over().history()) == []


def test_what_was_forgotten_may_be_done_again() -> None:
    story = done_once()
    story.claim(3.0, "d")
    story.end(3.5, "d")
    assert breaches(story.history(forgets=[forgotten(2.8)])) == []


def test_what_redis_lost_may_be_done_again_if_redis_decides() -> None:
    again = {"postgres": {breach.NOT_AGAIN, breach.REPEATED}, "redis": set[str]()}
    for authority, expected in again.items():
        story = done_once(f"{authority}.plain")
        story.claim(3.0, "d")
        story.end(3.5, "d")
        assert sentences(story, losses=[Span(2.7, 2.9, "empty_redis")]) <= expected
        assert bool(sentences(story, losses=[Span(2.7, 2.9, "empty_redis")])) is bool(expected)


# -- the checker: breaches -------------------------------------------------------------------------


def _two_holders(story: Story) -> None:
    story.claim(1.8, "d", "taken_over")


def _again(story: Story) -> None:
    story.claim(3.0, "d")


def _not_counted(story: Story) -> None:
    story.events = [e for e in story.events if e.owner == "a" and e.kind in ("claim", "begin")]
    story.claim(4.0, "d")
    story.end(4.5, "d")
    story.answers = {"ta": success("d"), "tb": success("d")}
    story.also["records"] = [record("done", "d", 0.0)]


def _own_claim(story: Story) -> None:
    story.claim(2.6, "e", "running", met="e")


def _never_completed(story: Story) -> None:
    story.claim(2.6, "e", "duplicate", met="x", result=token("x"))


def _too_early(story: Story) -> None:
    story.claim(1.9, "e", "duplicate", met="a", result=token("a"))


def _no_answer(story: Story) -> None:
    del story.answers["tb"]


def _failure_as_success(story: Story) -> None:
    story.task = "postgres.failing"
    story.publish("tf", success("a"))


def _mismatch_as_success(story: Story) -> None:
    story.publish("tm", success("a"), other=True)


def _unexpected_failure(story: Story) -> None:
    story.answers["tb"] = failure("KeyError")


def _strange_result(story: Story) -> None:
    story.answers["tb"] = Answered("SUCCESS", None)


def _not_released(story: Story) -> None:
    story.claim(2.6, "e", "unavailable", error="StoreUnavailable")


def _cache_alone(story: Story) -> None:
    story.also["cached"] = [record("done", "a", 99.0)]
    story.also["records"] = [record("running", "a", 0.5)]


def _overdue(story: Story) -> None:
    story.also["records"] = [record("running", "a", -3.0)]


def _not_counted_by_the_metric(story: Story) -> None:
    story.tell(2.6, "counted", "b", task="postgres.plain", outcome="duplicate")
    story.also["counted"] = {"wb": {("claims", "postgres.plain", "duplicate"): 0.0}}


SPOILED: dict[Callable[[Story], None], str] = {
    _two_holders: breach.ONE_HOLDER,
    _again: breach.NOT_AGAIN,
    _not_counted: breach.REPEATED,
    _own_claim: breach.OWN_CLAIM,
    _never_completed: breach.NEVER_LOST,
    _too_early: breach.CACHE,
    _no_answer: breach.NEVER_LOST,
    _failure_as_success: breach.FAILURES,
    _mismatch_as_success: breach.MISMATCH,
    _unexpected_failure: breach.NEVER_LOST,
    _strange_result: breach.NEVER_LOST,
    _not_released: breach.NO_CRASH,
    _cache_alone: breach.CACHE,
    _overdue: breach.NEVER_LOST,
    _not_counted_by_the_metric: breach.COUNTERS,
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_breach_is_found(spoil: Callable[[Story], None]) -> None:
    story = done_once()
    spoil(story)
    assert SPOILED[spoil] in sentences(story)


def test_a_check_that_passes_after_a_successor_came_is_a_breach() -> None:
    story = taken_over()
    story.tell(3.45, "check", "a", began=3.44)
    assert sentences(story) == {breach.ONE_HOLDER}


def test_a_stale_completion_that_is_taken_is_a_breach() -> None:
    story = taken_over()
    story.end(3.7, "a")
    assert breach.STALE in sentences(story)


def test_a_refused_result_that_is_answered_is_a_breach() -> None:
    story = taken_over()
    story.answers["ta"] = success("a")
    assert sentences(story) == {breach.SUCCESSOR}


def test_a_lease_that_ran_out_for_no_cause_is_a_breach() -> None:
    story = taken_over()
    assert sentences(story, faults=[]) == {breach.REPEATED}
    assert sentences(story, faults=[], dead={pid_of("a")}) == set()
    story.tell(2.9, "stall", "a", began=1.6, seconds=1.3)
    assert sentences(story, faults=[]) == set()


def test_a_fence_that_does_not_grow_is_a_breach() -> None:
    story = taken_over()
    story.claim(9.0, "d", fence=3000)
    assert breach.FENCE in sentences(story)


def test_a_late_write_that_the_target_takes_is_a_breach() -> None:
    story = taken_over()
    assert sentences(story, target=[(KEY, "a", 1000), (KEY, "b", 3000)]) == set()
    late = [(KEY, "b", 3000), (KEY, "a", 3000)]
    assert sentences(story, target=late) == {breach.LATE_WRITES}


def test_a_result_that_was_forgotten_is_not_answered() -> None:
    story = done_once()
    story.claim(3.0, "d", "duplicate", met="a", result=token("a"))
    assert sentences(story, forgets=[forgotten(2.6)]) == {breach.FORGET}
    assert sentences(story, forgets=[forgotten(2.995)]) == set(), "it may have been on its way"


def test_what_waits_for_its_retry_is_granted_to_no_other() -> None:
    story = done_once()
    story.events = []
    story.claim(1.0, "a")
    story.end(1.2, "a", "park", "True")
    story.claim(1.5, "b")
    story.end(1.8, "b")
    story.answers = {"ta": success("b"), "tb": success("b")}
    assert breach.WAITING in sentences(story)


@pytest.mark.parametrize("times", [0, 2])
def test_an_effect_in_a_transaction_is_there_once(times: int) -> None:
    story = Story("commit")
    story.publish("ta", success("a"))
    assert sentences(story, effects=[(KEY, "a")]) == set()
    assert breach.ONCE in sentences(story, effects=[(KEY, "a")] * times)


def test_a_fenced_effect_is_not_lost() -> None:
    story = done_once("postgres.fenced")
    taken = {"target": [(KEY, "a", 1000)], "once": [(KEY, "a")]}
    assert sentences(story, **taken) == set()
    assert sentences(story, **{**taken, "once": []}) == {breach.ONCE}
    assert sentences(story, **{**taken, "target": []}) == {breach.ONCE}


def test_a_message_that_the_broker_keeps_is_a_breach() -> None:
    assert sentences(done_once(), broker_left=["ta"]) == {breach.NEVER_LOST}


def test_a_worker_that_dies_takes_one_message_with_it_at_most() -> None:
    assert sentences(done_once(), lost=["ta"], killed=1) == set()
    assert sentences(done_once(), lost=["ta", "tb"], killed=1) == {breach.NEVER_LOST}


def test_a_completion_is_counted_once() -> None:
    right = {("completions", "postgres.plain", "stored"): 1.0}
    assert sentences(done_once(), counted={"wa": right}) == set()
    assert sentences(done_once(), counted={"wa": {}}) == {breach.COUNTERS}
    assert sentences(done_once(), counted={"wa": {}}, dead={pid_of("a")}) == set()
    twice = {("completions", "postgres.plain", "stored"): 2.0}
    assert sentences(done_once(), counted={"wa": twice}) == {breach.COUNTERS}


def test_a_release_that_redis_has_lost_leaves_its_record() -> None:
    left = {"records": [record("running", "a", -3.0)]}
    story = done_once("redis.plain")
    story.events = [event for event in story.events if event.owner == "a"]
    assert sentences(story, **left) == {breach.NEVER_LOST}
    assert sentences(story, **left, losses=[Span(2.3, 4.0, "fail_over_redis")]) == set()


# -- what people read ------------------------------------------------------------------------------


def test_a_breach_is_told_with_its_sentence_and_the_history_of_its_key() -> None:
    story = taken_over()
    story.answers["ta"] = success("a")
    history = story.history()
    text = report.told(history, breaches(history))
    assert "again: make faults SEED=1 ROUND=0" in text
    assert breach.SUCCESSOR in text
    moments = [line.split()[0] for line in text.splitlines() if line.startswith("     ")]
    assert [float(one) for one in moments] == sorted(map(float, moments))
    assert "FAULT freeze_holder" in text
    assert "answer of ta" in text


def test_the_sentences_stand_in_the_guarantee_of_the_docs() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    words = " ".join(page.replace("*", "").split())
    assert breach.ONE_HOLDER in words
    assert breach.NOT_AGAIN in words
