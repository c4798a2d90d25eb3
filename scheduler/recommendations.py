"""The recommendations that are shown all the time: the worst, and the same ones while they hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from .advice import Advice
from .occurrences import timing_text

MOST: Final = 50
URGENCIES: Final = ("critical", "high", "medium", "low")


class Recommendation(NamedTuple):
    """A change of one schedule. `reason`: a code: hotspot, conflict, duplicate or dst.

    `before`, `after`: the loads that it starts into.
    """

    schedule_id: str
    current: str
    recommended: str
    urgency: str
    reason: str
    before: float
    after: float

    @property
    def proposal(self) -> tuple[str, str, str]:
        """What it says, whatever the loads of today are."""
        return self.schedule_id, self.current, self.recommended


def recommendations_of(advice: Sequence[Advice]) -> list[Recommendation]:
    """The moves of a plan that takes schedules out of hotspots."""
    return [
        Recommendation(
            schedule_id=one.move.before.id,
            current=timing_text(one.move.before.timing),
            recommended=timing_text(one.move.after.timing),
            urgency=one.urgency,
            reason="hotspot",
            before=one.before,
            after=one.after,
        )
        for one in advice
    ]


def worst(
    found: Sequence[Recommendation], shown: Collection[Recommendation] = (), most: int = MOST
) -> list[Recommendation]:
    """The worst ones; of equal urgency, those `shown` before that still hold: so series stay."""
    before = {one.proposal for one in shown}
    return sorted(
        found,
        key=lambda one: (URGENCIES.index(one.urgency), one.proposal not in before, -one.before),
    )[:most]
