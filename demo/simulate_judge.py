"""The judge of a simulation: a history in, a verdict out, the same for either side.

Invariants: a repeated effect that no death and no lost lease explains is `doubled`, whoever made
it; one that commits with its record is never explained; work without its effect is lost, unless
the broker is proven to have lost its message, or the user's own task raised an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .simulate_history import OK, Effect, Execution, History, Kind, by_work

TURNED_AWAY: Final = ("duplicate", "running")


class Fate(StrEnum):
    """What became of the effect of a piece of work."""

    ONCE = "once"
    AFTER_DEATH = "repeated_after_death"
    DOUBLED = "doubled"
    VANISHED = "lost_by_broker"
    """Its message died with the worker that took it, before the broker knew who had it."""
    LOST = "lost"
    FAILED = "failed"
    """A task of the user's raised an error, and nothing more came of it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One piece of work. `ran_twice`: its body did its work again with no death to explain it;
    `at_once`: two bodies ran at the same time."""

    work: str
    kind: Kind
    fate: Fate
    effects: int
    executions: int
    ran_twice: bool = False
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of a play: each piece of work, and how many there are of everything."""

    works: tuple[Judged, ...]
    counts: Mapping[str, int | float]
    settled: bool

    def names(self, fate: Fate) -> list[str]:
        """The pieces of work with this fate."""
        return [one.work for one in self.works if one.fate is fate]


def judge(history: History) -> Verdict:
    """What a history came to."""
    executions, effects = by_work(history.executions), by_work(history.effects)
    judged = tuple(
        _judged(history, work, kind, executions.get(work, []), effects.get(work, []))
        for work, kind in history.works.items()
    )
    return Verdict(judged, _counts(history, judged), history.settled)


def failures(plain: Verdict, protected: Verdict) -> list[str]:
    """What must not be, in sentences; empty when the guarantee held."""
    told = [
        _sentence("idemwatch doubled", protected.names(Fate.DOUBLED)),
        _sentence("idemwatch lost", protected.names(Fate.LOST)),
        _sentence("idemwatch failed what plain Celery did", _failed_here(plain, protected)),
        _sentence("idemwatch ran twice", [one.work for one in protected.works if one.ran_twice]),
        _sentence("idemwatch ran at once", [one.work for one in protected.works if one.at_once]),
        # What it has not done when it was given up is not lost.
        _sentence("plain Celery lost", plain.names(Fate.LOST) if plain.settled else []),
    ]
    if not protected.settled:
        told.append("idemwatch had messages left when the time to settle was over")
    return [sentence for sentence in told if sentence]


def _failed_here(plain: Verdict, protected: Verdict) -> list[str]:
    """What fails under plain Celery too fails by itself."""
    done = {one.work for one in plain.works if one.effects}
    return [work for work in protected.names(Fate.FAILED) if work in done]


def _sentence(what: str, works: Sequence[str]) -> str:
    return f"{what} {len(works)}: {', '.join(works[:5])}{' ...' * (len(works) > 5)}" * bool(works)


def _judged(
    history: History, work: str, kind: Kind, runs: list[Execution], effects: list[Effect]
) -> Judged:
    happened = [effect for effect in effects if not effect.refused]
    runs = sorted(runs, key=lambda run: run.began)
    done = {effect.execution for effect in effects}
    return Judged(
        work,
        kind,
        _fate(history, work, kind, runs, happened),
        effects=len(happened),
        executions=len(runs),
        ran_twice=_repeated(history, [run for run in runs if run.number in done]),
        at_once=_overlapped(history, runs),
    )


def _fate(
    history: History, work: str, kind: Kind, runs: list[Execution], happened: list[Effect]
) -> Fate:
    if not happened:
        if work in history.vanished:
            return Fate.VANISHED
        gave_up = kind is Kind.YOURS and any(run.outcome not in (None, OK) for run in runs)
        return Fate.FAILED if gave_up else Fate.LOST
    if len(happened) == 1:
        return Fate.ONCE
    if kind in (Kind.TRANSACTION, Kind.GUARDED):
        return Fate.DOUBLED
    makers = {effect.execution for effect in happened}
    made = [run for run in runs if run.number in makers]
    strange = len(made) != len(happened) or _repeated(history, made)
    return Fate.DOUBLED if strange else Fate.AFTER_DEATH


def _repeated(history: History, done: list[Execution]) -> bool:
    """Whether one of these began although an earlier one had done its work and lived on."""
    return any(
        not _explained(history, earlier, later)
        for position, later in enumerate(done)
        for earlier in done[:position]
    )


def _explained(history: History, earlier: Execution, later: Execution) -> bool:
    """Whether `later` may do again what `earlier` has done."""
    death = history.death_of(earlier)
    return earlier.lease_lost or (death is not None and death.at <= later.began)


def _overlapped(history: History, runs: list[Execution]) -> bool:
    """Whether one began while an earlier one lived and held its lease."""
    return any(
        later.began < _end(history, earlier) and not earlier.lease_lost
        for position, later in enumerate(runs)
        for earlier in runs[:position]
    )


def _end(history: History, run: Execution) -> float:
    if run.ended is not None:
        return run.ended
    death = history.death_of(run)
    return float("inf") if death is None else death.at


def _counts(history: History, judged: Sequence[Judged]) -> dict[str, int | float]:
    fates = [one.fate for one in judged]
    checks = history.checks
    return {
        "works": len(judged),
        "messages": history.messages,
        "deliveries": len(history.deliveries),
        "redelivered": sum(one.redelivered for one in history.deliveries),
        "killed": len(history.killed),
        "executions": len(history.executions),
        "ran_twice": sum(one.ran_twice for one in judged),
        "ran_at_once": sum(one.at_once for one in judged),
        "turned_away": sum(checks.get(outcome, 0) for outcome in TURNED_AWAY),
        "taken_over": checks.get("taken_over", 0),
        "put_off": checks.get("unavailable", 0),
        "effects": sum(one.effects for one in judged),
        "once": fates.count(Fate.ONCE),
        "doubled": fates.count(Fate.DOUBLED),
        "repeated_after_death": fates.count(Fate.AFTER_DEATH),
        "refused_by_target": sum(effect.refused for effect in history.effects),
        "failed": fates.count(Fate.FAILED),
        "lost": fates.count(Fate.LOST),
        "lost_by_broker": fates.count(Fate.VANISHED),
        "seconds": round(history.seconds, 1),
    }
