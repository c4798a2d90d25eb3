"""The claim protocol, explored to the end: three workers, one key, anything may come next.

Without any one of its rules there is a breach, and the way to it is short.
"""

from __future__ import annotations

import pytest
from model.explorer import explore
from model.protocol import RULES, Bounds

BOUNDS = (
    Bounds(ticks=2, deaths=1, retries=0, forget=False),
    Bounds(ticks=2, deaths=0, retries=1, forget=False),
    Bounds(ticks=2, deaths=0, retries=0, forget=True),
)
BREACHES = {
    "owner_check": "completes what",
    "lease": "hold the key at once",
    "fence": "takes the late write",
    "atomic_claim": "hold the key at once",
    "check": "may go on with what",
    "result_kept": "is let do again what",
    "cache_after_commit": "is answered with a result",
    "cache_tombstone": "is answered with a result that was forgotten",
}


@pytest.mark.parametrize("bounds", BOUNDS, ids=["a death", "a retry", "a forget"])
def test_the_guarantee_holds_in_every_world_and_none_is_stuck(bounds: Bounds) -> None:
    found = explore(bounds)
    assert (found.breach, found.stuck) == ("", 0), found.way
    assert found.worlds > 10_000, "there was something to look at"


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_it_does_not(rule: str) -> None:
    ways = (explore(bounds, frozenset((rule,))) for bounds in BOUNDS)
    found = next((one for one in ways if one.breach), None)
    assert found is not None, f"nothing breaks without {rule}: what is it for?"
    assert BREACHES[rule] in found.breach
    assert 4 <= len(found.way) <= 14, found.way


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such rule: heartbeet"):
        explore(BOUNDS[0], frozenset(("heartbeet",)))
