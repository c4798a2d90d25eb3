"""What was seen of a system in a case, and what is said of it: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

PATIENCE_SECONDS: Final = 10.0
"""A key that is shut for longer though nobody works on it is called blocked. The lease of idemwatch
is far shorter here, the locks of the peers longer; Celery itself may take 5 s to notice a death."""


@dataclass(frozen=True)
class Seen:
    """Counts and times of one system in one case.

    executions, effects: how often the body began, and how often its effect was made; at_once: how
    many executions ran at the same time; callers: what each got: `result 1`, `told ValueError`
    (the task failed), `refused AlreadyQueued` (at publishing) or `nothing`; waited_seconds: how
    long a key stayed shut though nobody worked on it; settled: whether all had ended when the case
    was over.
    """

    executions: int
    effects: int
    at_once: int = 1
    callers: tuple[str, ...] = ()
    waited_seconds: float = 0.0
    settled: bool = True


class Kind(StrEnum):
    """What a verdict says, in one word."""

    GOOD = "good"
    REPEATED = "repeated"
    LOST = "lost"
    BLOCKED = "blocked"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """`text`: a few words for the table."""

    kind: Kind
    text: str


Judge = Callable[[Seen], Verdict]


def done_once(seen: Seen) -> Verdict:
    """The effect once, nobody shut out, nobody with another result than the first's."""
    return _problem(seen, seen.effects, 1) or Verdict(Kind.GOOD, "once")


def ran_once(seen: Seen) -> Verdict:
    """The same of executions: where a second one beside the first is the harm."""
    return _problem(seen, seen.executions, 1) or Verdict(Kind.GOOD, "once")


def ran_twice(seen: Seen) -> Verdict:
    """One execution lost its lock, a second took over; a third is one too many."""
    return _problem(seen, seen.executions, 2) or Verdict(Kind.GOOD, "no third")


def both_done(seen: Seen) -> Verdict:
    """Two pieces of work that look alike are both done."""
    return _problem(seen, seen.effects, 2) or Verdict(Kind.GOOD, "both")


def second_refused(seen: Seen) -> Verdict:
    """The first is done, the second told that it is not the same."""
    if seen.executions > 1:
        return Verdict(Kind.REPEATED, "ran both")
    if seen.callers[1].startswith("result"):
        return Verdict(Kind.WRONG, "second got the first's result")
    if seen.callers[1] == "nothing":
        return Verdict(Kind.LOST, "second got nothing")
    return Verdict(Kind.GOOD, f"second {seen.callers[1]}")


def given_up(seen: Seen) -> Verdict:
    """A message that kills whoever takes it is given up, and its caller told."""
    if seen.settled and seen.callers[0].startswith("told"):
        return Verdict(Kind.GOOD, f"stopped after {seen.executions}")
    return Verdict(Kind.REPEATED, "not given up")


def parts_once(seen: Seen) -> Verdict:
    """A chord of three parts: each part done once, and what comes after them too."""
    if seen.executions != 1 or seen.callers != ("result 6",):
        return Verdict(Kind.WRONG, f"ended {seen.executions} times, {seen.callers[0]}")
    if seen.effects > 3:
        return Verdict(Kind.REPEATED, f"a part {seen.effects - 2} times, ended once")
    return Verdict(Kind.GOOD, "once")


def _problem(seen: Seen, done: int, wanted: int) -> Verdict | None:
    if done < wanted:
        return _not_done(seen)
    if done > wanted:
        beside = f", {seen.at_once} at once" if seen.at_once > 1 else ""
        return Verdict(Kind.REPEATED, f"{done} times{beside}")
    if seen.waited_seconds >= PATIENCE_SECONDS:
        return Verdict(Kind.BLOCKED, f"once, blocked for {seen.waited_seconds:.0f} s")
    for one in seen.callers:
        if one.startswith("told"):
            return Verdict(Kind.WRONG, f"once, but a caller was {one}")
        if one in _NO_RESULT:
            return Verdict(Kind.WRONG, f"once, but a caller got {one.removeprefix('result ')}")
    return None


_NO_RESULT: Final = ("nothing", "result null")


def _not_done(seen: Seen) -> Verdict:
    refused = [one for one in seen.callers if one.startswith("refused")]
    if refused:
        return Verdict(Kind.REFUSED, f"not done, {refused[0]}")
    return Verdict(Kind.LOST, "lost" if seen.settled else "not done")


def most_at_once(events: Sequence[dict[str, Any]]) -> int:
    """How many executions ran at the same time."""
    most, running = 0, set[int]()
    for event in sorted(events, key=lambda one: float(one["at"])):
        if event["event"] == "start":
            running.add(event["number"])
        elif event["event"] == "end":
            running.discard(event["number"])
        most = max(most, len(running))
    return most
