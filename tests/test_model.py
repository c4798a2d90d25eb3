"""The claim protocol, explored to the end: three workers, one key, anything may come next.

Without any one of its rules there is a breach, and the way to it is short.
"""

from __future__ import annotations

import pytest
from model import waiting
from model.explorer import WORLDS, explore
from model.protocol import RULES

BREACHES = {
    "owner_check": ("deaths", "completes what"),
    "lease": ("deaths", "hold the key at once"),
    "fence": ("deaths", "takes the late write"),
    "atomic_claim": ("deaths", "hold the key at once"),
    "check": ("deaths", "may go on with what"),
    "result_kept": ("deaths", "is let do again what"),
    "cache_after_commit": ("deaths", "is answered with a result"),
    "cache_tombstone": ("forgets", "is answered with a result that was forgotten"),
    "clock_fence": ("lost records", "takes the late write"),
    "heartbeat": ("all are well", "takes over from a holder that is well"),
    "same_owner": ("lost replies", "is locked out by its own claim"),
    "abandon": ("lost replies", "waits for what never comes"),
    "attempt": ("retries", "takes the key that was kept for a retry"),
}
"""Of each rule: the world in which it is missed, and what happens there."""


@pytest.mark.parametrize("name", WORLDS)
def test_the_guarantee_holds_in_every_world_and_none_is_stuck(name: str) -> None:
    found = explore(WORLDS[name])
    assert not found.breach, found.story
    assert found.worlds > 3_000, "there was something to look at"


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_it_does_not(rule: str) -> None:
    name, breach = BREACHES[rule]
    found = explore(WORLDS[name], frozenset((rule,)))
    assert breach in found.breach, found.story
    assert 3 <= len(found.way) <= 14, found.story


def test_a_breach_is_told_step_by_step() -> None:
    story = explore(WORLDS["deaths"], frozenset(("lease",))).story.splitlines()
    told = "claim 0 at 1: holds, waits, waits; record running of 0 (fence 1) until 2; cache -"
    assert " ".join(story[1].split()) == f"2. {told}"
    assert story[-1].strip() == "so workers [0, 1] hold the key at once"


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such rule: heartbeet"):
        explore(WORLDS["deaths"], frozenset(("heartbeet",)))


# -- the copies that wait --------------------------------------------------------------------------


def test_of_a_message_that_waits_one_copy_is_kept_and_none_is_lost() -> None:
    worlds, story = waiting.explore()
    assert not story
    assert worlds > 3_000, "there was something to look at"


LOST = "the message is lost"
WITHOUT = {
    "publish_first": LOST,
    "one_waits": "a second copy is published while one waits",
    "token": LOST,
    "redelivered": LOST,
}


@pytest.mark.parametrize("rule", waiting.RULES)
def test_without_a_rule_copies_are_lost_or_too_many(rule: str) -> None:
    _, story = waiting.explore(frozenset((rule,)))
    assert WITHOUT[rule] in story
    assert 4 <= len(story.splitlines()) <= 16, story
