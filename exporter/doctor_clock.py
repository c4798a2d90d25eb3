"""How far another clock is from this host's: decided from questions and answers, and their times.

Invariant: what the round trip can explain is no skew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .doctor_findings import Finding, error, ok, span, warning

LOOKS: Final = 5
WARN_SECONDS: Final = 1.0
ERROR_SECONDS: Final = 10.0


class Look(NamedTuple):
    """Seconds since 1970 by this host before and after, and by the other one in between."""

    asked: float
    told: float
    answered: float


class Skew(NamedTuple):
    """The other clock less ours, give or take `doubt`."""

    seconds: float
    doubt: float

    @property
    def sure(self) -> float:
        """So much it is at least, whichever way."""
        return max(0.0, abs(self.seconds) - self.doubt)


def skew(looks: Iterable[Look]) -> Skew:
    """By the quickest answer: its time lies between the question and the answer."""
    best = min(looks, key=lambda one: one.answered - one.asked)
    middle = (best.asked + best.answered) / 2
    return Skew(best.told - middle, max(0.0, (best.answered - best.asked) / 2))


def looks(ask: Callable[[], float], number: int = LOOKS) -> list[Look]:
    """Ask another clock a few times."""
    found = []
    for _ in range(number):
        asked = time.time()
        told = ask()
        found.append(Look(asked, told, time.time()))
    return found


def clock_finding(whose: str, found: Skew, check: str = "clocks") -> Finding:
    """Whether a clock may be left as it is."""
    way = "ahead of" if found.seconds > 0 else "behind"
    told = f"the clock of {whose} is {span(abs(found.seconds))} {way} this host's"
    told += f" (give or take {span(found.doubt)})"
    if found.sure < WARN_SECONDS:
        return ok(check, told)
    change = (
        "let NTP (chrony, systemd-timesyncd) set both clocks: messages with an ETA, countdown or "
        "expiry come early or late by so much, and times that are told are wrong"
    )
    level = warning if found.sure < ERROR_SECONDS else error
    return level(check, told, change)
